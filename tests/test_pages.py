"""The pages of docs/ say what the program has: names, options, forms, examples, commands, links and pictures."""

from __future__ import annotations

import re
import shlex
from functools import cache
from itertools import chain
from pathlib import Path

import pytest
import remake
from typer.main import get_command

from circuits.methods import METHODS
from cli.main import app
from tasks import TASKS

PAGES = remake.pages()
READ = [*PAGES, remake.ROOT / "README.md"]
LARGEST, ALL = 1_000_000, 3_000_000
"""Bytes of a file, and of the folder."""


@cache
def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _name(page: Path) -> str:
    return page.relative_to(remake.ROOT).as_posix()


def test_every_method_and_every_task_has_a_page_and_no_other_has() -> None:
    for folder, registry in (("methods", METHODS), ("tasks", TASKS)):
        assert {page.stem for page in (remake.DOCS / folder).iterdir()} == set(registry.names())


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_what_needs_no_run_is_as_the_program_has_it_now(page: Path) -> None:
    assert remake.remade(_text(page), remake.QUICK) == _text(page), "python docs/remake.py --quick"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_block_is_of_a_kind_that_is_made_and_has_been(page: Path) -> None:
    blocks = [found[0] for found in remake.BLOCK.finditer(_text(page))]
    assert len(blocks) == _text(page).count("<!-- made:") == _text(page).count("<!-- end -->")
    assert all(block.count("<!--") == 2 for block in blocks)
    for block in blocks:
        first, *shown, _ = block.splitlines()
        assert first.split()[2] in remake.MAKERS
        assert "".join(shown).strip(), f"{first} is empty: python docs/remake.py {page.stem}"


@pytest.mark.parametrize("folder", ["methods", "tasks"])
def test_a_page_says_what_it_is_of(folder: str) -> None:
    """A page that was copied for another has the other's blocks."""
    kinds = {"methods": {"options", "cost"}, "tasks": {"task", "examples", "known", "fits"}}[folder]
    for page in (remake.DOCS / folder).iterdir():
        of = {
            found[2].strip()
            for found in remake.BLOCK.finditer(_text(page))
            if found[1] in kinds or found[1] == "beside"
        }
        assert of == {page.stem}
        assert kinds <= {found[1] for found in remake.BLOCK.finditer(_text(page))}
        assert _text(page).startswith(f"# {page.stem}\n")
        assert any(page.stem in command for command in remake.commands(_text(page)))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_command_of_a_page_is_one(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/test_extending.py runs those of that page."""
    monkeypatch.chdir(remake.ROOT)
    for command in remake.commands(_text(page)):
        words = shlex.split(command)[1:]
        group = get_command(app)
        group.commands[words[0]].make_context(words[0], words[1:])  # type: ignore[attr-defined]


def test_pictures_are_those_that_are_made() -> None:
    assert {path.name for path in remake.DOCS.rglob("*.png")} == set(remake.PICTURES)
    shown = {
        target.rpartition("/")[2] for page in READ for target in re.findall(r"!\[.*?\]\((.*?)\)", _text(page))
    }
    assert shown == set(remake.PICTURES)
    for command in chain.from_iterable(making for making, _ in remake.PICTURES.values()):
        assert any(command in _text(page) for page in READ), f"no page says {command}"


@pytest.mark.parametrize("page", READ, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)]+)\)", re.sub(r"```.*?```", "", _text(page), flags=re.DOTALL))
    for target in targets:
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", _text(path), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in heads}


def test_every_picture_says_in_words_what_it_shows() -> None:
    for page in READ:
        assert all(len(words) > 10 for words in re.findall(r"!\[(.*?)\]", _text(page)))


def test_the_folder_is_small() -> None:
    sizes = {
        path: path.stat().st_size for path in remake.DOCS.rglob("*") if path.suffix in (".md", ".png", ".py")
    }
    assert max(sizes.values()) < LARGEST
    assert sum(sizes.values()) < ALL


def test_a_stale_block_is_found(tmp_path: Path) -> None:
    page = "<!-- made: options acdc -->\n\n| option |\n\n<!-- end -->\n"
    made = remake.remade(page, remake.QUICK)
    assert "`threshold` | `0.01`" in made
    assert remake.remade(made, remake.QUICK) == made
