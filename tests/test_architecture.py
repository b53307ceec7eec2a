"""The import arrows: cli -> tasks -> circuits, heavy libraries late, and each kept to the place it belongs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jaxtyping
import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [path for package in ("circuits", "tasks", "cli") for path in sorted((ROOT / package).rglob("*.py"))]


class Import(NamedTuple):
    """module: as it is written. at_top: whether importing the file imports it."""

    file: str
    module: str
    at_top: bool


def _imports(path: Path) -> Iterator[Import]:
    file = path.relative_to(ROOT).as_posix()

    def visit(node: ast.AST, at_top: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inside = at_top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                # Never run, but an arrow between packages all the same.
                inside = False
            if isinstance(child, ast.Import):
                yield from (Import(file, alias.name, at_top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{file} has a relative import"
                yield Import(file, child.module or "", at_top)
            yield from visit(child, inside)

    return visit(ast.parse(path.read_text(encoding="utf-8")), True)


IMPORTS = [found for path in FILES for found in _imports(path)]


def who_imports(*roots: str, at_top: bool = False) -> set[str]:
    return {i.file for i in IMPORTS if i.module.split(".")[0] in roots and (i.at_top or not at_top)}


def test_there_is_something_to_look_at() -> None:
    assert len(FILES) > 40
    assert "cli/main.py" in who_imports("typer", at_top=True)
    assert "circuits/models/bridge.py" in who_imports("transformer_lens")
    assert "circuits/models/bridge.py" not in who_imports("transformer_lens", at_top=True)


def test_arrows_run_one_way() -> None:
    assert not {f for f in who_imports("tasks", "cli") if f.startswith("circuits/")}
    assert not {f for f in who_imports("cli") if f.startswith("tasks/")}


def test_transformer_lens_is_imported_in_one_file() -> None:
    assert who_imports("transformer_lens") == {"circuits/models/bridge.py"}


def test_rich_is_imported_in_one_file_and_typer_by_the_command_line_alone() -> None:
    assert who_imports("rich") == {"cli/render.py"}
    assert all(f.startswith("cli/") for f in who_imports("typer"))
    assert who_imports("ray") == {"cli/study/ray_workers.py"}


def test_the_command_line_imports_nothing_heavy_at_the_top() -> None:
    heavy = who_imports(
        "torch", "numpy", "pandas", "scipy", "transformers", "sklearn", "networkx", "ray", at_top=True
    )
    drawing = ("cli/report/", "cli/page/")
    assert not {f for f in heavy if f.startswith("cli/") and not f.startswith(drawing)}
    assert not {f for f in who_imports("torch") if f.startswith(drawing)}


def test_tasks_need_no_torch_and_no_numpy() -> None:
    heavy = who_imports("torch", "numpy", "pandas", "transformers")
    assert not {f for f in heavy if f.startswith("tasks/") and not f.startswith("tasks/training/")}


def test_the_library_prints_nothing() -> None:
    for path in FILES:
        if path.relative_to(ROOT).parts[0] == "circuits":
            calls = [
                n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)
            ]
            assert not [
                c for c in calls if isinstance(c.func, ast.Name) and c.func.id in ("print", "input")
            ], path


def test_weights_are_never_unpickled_unguarded() -> None:
    assert not who_imports("pickle", "dill", "joblib", "cloudpickle")
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), path


def _names_an_accelerator(path: Path) -> set[str]:
    """Lines of code that name a kind of accelerator, whether as text ("cuda:0") or as torch's part (torch.cuda)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = {n: n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    parts = {n: n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    modules = {n: ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)}
    return {ast.unparse(n) for n, words in (texts | parts | modules).items() if "cuda" in words.lower()}


def test_devices_are_named_in_one_file_and_in_the_help_of_the_option(tmp_path: Path) -> None:
    """Code that says cuda runs on one kind of card alone; model.device and torch.accelerator run on all."""
    found = {path.relative_to(ROOT).as_posix(): _names_an_accelerator(path) for path in FILES}
    assert found.pop("circuits/devices.py")
    (help_text,) = found.pop("cli/discover.py")
    assert "balanced" in help_text
    assert {file for file, lines in found.items() if lines} == set()
    (tmp_path / "bad.py").write_text("import torch.cuda\nx.to('cuda:0')\ntorch.cuda.empty_cache()\n# cuda\n")
    assert len(_names_an_accelerator(tmp_path / "bad.py")) == 3


def test_shapes_in_annotations_are_checked_while_the_tests_run() -> None:
    import torch

    from circuits.metrics import correct

    with pytest.raises(jaxtyping.TypeCheckError, match="batch vocab"):
        correct(torch.zeros(3), ((0,),))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        *(
            [name, "--help"]
            for name in (
                "discover",
                "show",
                "evaluate",
                "compare",
                "heads",
                "intervene",
                "tasks",
                "run",
                "weights",
            )
        ),
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['circuit', *sys.argv[1:]]\n"
        "from cli.main import run\n"
        "try: run()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'ray', 'numpy', 'pandas', 'scipy', 'transformers', 'transformer_lens', 'matplotlib'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
