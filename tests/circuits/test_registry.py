"""Registries and unknown names: what is there, and what was probably meant."""

from __future__ import annotations

import subprocess
import sys

import pytest

from circuits.errors import CircuitError, UnknownNameError
from circuits.methods import METHODS
from circuits.methods.method import Method
from circuits.registry import Registry


def test_the_methods_are_the_files_of_their_folder() -> None:
    assert {"activation-patching", "logit-attribution", "sae"} <= set(METHODS.names())
    assert "method" not in METHODS.names()


@pytest.mark.parametrize("name", METHODS.names())
def test_every_method_says_what_it_is(name: str) -> None:
    method = METHODS.load(name)
    assert isinstance(method, Method)
    assert method.name == name
    assert method.summary
    assert method.paper
    for field in method.options.model_fields.values():
        assert field.description
    assert method.configure({}) == method.options()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("activation-patchin", "activation-patching"),
        ("logit_attribution", "logit-attribution"),
        ("SAE", None),
    ],
)
def test_an_unknown_name_lists_what_there_is(typed: str, meant: str | None) -> None:
    with pytest.raises(UnknownNameError) as refusal:
        METHODS.load(typed)
    message = str(refusal.value)
    assert message.startswith(f"There is no method {typed!r}.")
    assert all(name in message for name in METHODS.names())
    assert (f"Did you mean {meant!r}?" in message) == (meant is not None)
    assert isinstance(refusal.value, CircuitError)


def test_a_module_path_is_no_name() -> None:
    for name in ("", "method", "activation_patching", "..errors"):
        with pytest.raises(UnknownNameError):
            METHODS.load(name)


def test_names_need_no_import_of_the_entries() -> None:
    code = (
        "import sys; from circuits.registry import Registry; "
        "print(Registry('task', 'tasks', 'TASK').names()); "
        "sys.exit(any(m.startswith('tasks.') and m != 'tasks.task' for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_packages_are_left_out() -> None:
    assert "training" not in Registry("task", "tasks", "TASK").names()
