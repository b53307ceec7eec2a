"""Commands that are imported when called: the list says what each says of itself, and nothing is imported for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cli.deferred import Deferred
from cli.main import COMMANDS, app
from cli.weights_group import READINGS, weights_app

ROOT = Path(__file__).parents[2]
GROUP: Any = get_command(app)
ENTRIES = [*GROUP.commands.values(), *get_command(weights_app).commands.values()]  # type: ignore[attr-defined]


def test_the_list_is_whole_and_in_order() -> None:
    assert list(GROUP.commands) == list(COMMANDS)
    assert len(ENTRIES) == len(COMMANDS) + len(READINGS)
    assert all(isinstance(entry, Deferred) for entry in ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_list_says_what_the_command_says_of_itself(entry: Deferred) -> None:
    real = entry.command()
    assert real.name == entry.name
    assert " ".join(real.help.split("\n\n")[0].split()) == entry.help


def _python(code: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_a_command_imports_its_own_module_alone() -> None:
    code = (
        "import sys; from cli.main import app\n"
        "app({}, standalone_mode=False); print(sorted(m for m in sys.modules if m.startswith('cli.')))"
    )
    few = ["cli.deferred", "cli.main"]
    assert _python(code.format(["--help"])).splitlines()[-1] == str(few)
    shown = _python(code.format(["check", "--help"])).splitlines()[-1]
    assert "'cli.check'" in shown
    assert "'cli.discover'" not in shown


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("circuit sub", "subspace"), ("circuit weights low", "low-rank"), ("circuit rank --tar", "--target")],
)
def test_the_shell_completes_commands_and_their_options(typed: str, expected: str) -> None:
    last = str(len(typed.split()) - 1)
    environment = {"_CIRCUIT_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": last}
    code = "import sys; sys.argv = ['circuit']\nfrom cli.main import run\ntry: run()\nexcept SystemExit: pass"
    assert expected in _python(code, **environment).split()


def test_a_name_that_is_nearly_a_command_is_told() -> None:
    result = CliRunner().invoke(app, ["subspac"])
    assert result.exit_code == 2
    assert "'subspace'" in result.stderr
