"""What docs/extending.md shows is run as it stands there: a package of a method, a task and a format."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from circuits.exchange import FORMATS
from circuits.methods import METHODS
from circuits.registry import packaged
from circuits.runs import read_run
from cli.main import app
from tasks import TASKS

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


COMMANDS = [line for block in _blocks("bash") for line in block.splitlines()]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's package as pip installs it, in the working folder."""
    files = dict(zip(re.findall(r"as `(my_\w+\.py)`:", PAGE), _blocks("python"), strict=True))
    for name, source in files.items():
        (tmp_path / name).write_text(source, encoding="utf-8")
    (project,) = map(tomllib.loads, _blocks("toml"))
    assert {f"{module}.py" for module in project["tool"]["setuptools"]["py-modules"]} == set(files)
    about = tmp_path / "my_circuits-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-circuits\nVersion: 1.0\n")
    groups = project["project"]["entry-points"].items()
    lines = [
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in groups
    ]
    (about / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    packaged.cache_clear()
    yield tmp_path
    packaged.cache_clear()
    for name in files:
        sys.modules.pop(name.removesuffix(".py"), None)


def _run(command: str) -> None:
    """The same on few prompts; the page's task has no more than it lists."""
    words = [word for word in shlex.split(command)[1:] if word not in ("--pairs", "60")]
    few = ["--top", "5"] if words[0] == "discover" else []
    result = CliRunner().invoke(
        app, [*words, *few, *(["--pairs", "16"] if few and words[1] == "ioi" else [])]
    )
    assert result.exit_code == 0, (command, result.output)


def test_the_page_makes_a_package_whose_parts_have_names(package: Path) -> None:
    assert "gradient-times-change" in METHODS.names()
    assert "languages" in TASKS.names()
    assert "table" in FORMATS.names()
    assert TASKS.load("languages").forms.keys() == {"spoken", "people"}


def test_the_commands_of_the_page_work_one_after_the_other(package: Path) -> None:
    for command in COMMANDS:
        _run(command)
    kept = [
        [node["name"] for node in read_run(package / run).circuit["circuits"][0]["nodes"]]
        for run in ("runs/mine", "runs/mine-again")
    ]
    assert len(kept[0]) == 5
    assert kept[0] == kept[1]


def test_the_method_of_the_page_is_attribution_patching_by_another_route(package: Path) -> None:
    methods = "--method gradient-times-change --method attribution-patching"
    _run(f"circuit discover ioi {methods} --set attribution-patching.components=heads --output both")
    nodes = read_run(package / "both").nodes
    scores = nodes.pivot(index="component", columns="method", values="score")
    plain, engine = scores["gradient-times-change"], scores["attribution-patching"]
    assert len(scores) == 32
    assert abs(engine).max() > 1
    assert plain.to_numpy() == pytest.approx(engine.to_numpy(), abs=1e-4 * abs(engine).max())


def test_a_damaged_table_is_told_in_one_message(package: Path) -> None:
    (package / "bad.tsv").write_text('{"n_layers": 2}\na0.h0\t1.0\n')
    result = CliRunner().invoke(app, ["import", "bad.tsv", "--output", "runs/bad"])
    assert result.exit_code == 2
    assert "no table of a circuit" in result.output
