"""Reading a prompt file: what it holds tells the format, repeated rows are kept once, and each row is counted."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import Path

from circuits.errors import PromptError
from circuits.prompt_files.content import Content, content_of
from circuits.prompt_files.formats import FORMATS
from circuits.prompt_files.formats.format import Format
from circuits.prompt_files.formats.prompt_label import twin_rows
from circuits.prompt_files.records import Dropped, PromptFile, PromptRow, parted
from circuits.prompts import PromptPair

OWN = "prompt-lines"


def read(path: Path, *, column: str | None = None, twins: Path | None = None) -> PromptFile:
    """Every row of a file, and which were dropped and why.

    column: which of several corrupted twins, by the file's name for it. twins: the file of the corrupted twins, where
    both are JSON lists of [prompt, label].
    Raises PromptError for a file that is of no known format, and for one with bad rows, all of them named.
    """
    if twins is not None:
        kept, dropped = _without_repeats(twin_rows(path, twins))
        return PromptFile(path, "prompt-label", kept, dropped)
    content = content_of(path)
    form = recognised(content)
    if column and (form.pair_free or not content.entries):
        raise PromptError(
            f"--corrupt-column {column}: {path} is of the format {form.name}, which has no such choice."
        )
    rows = form.read(content, column)
    if form.name != OWN:  # it tells of bad entries itself, with those that are no JSON among them
        content.refuse(content.problems)
    kept, dropped = _without_repeats(rows)
    return PromptFile(path, form.name, kept, dropped, form.metric(rows))


def read_prompts(path: Path) -> tuple[PromptPair, ...]:
    """The pairs of a file that holds both sides of them as text. Raises PromptError that names every bad line."""
    file = read(path)
    require_pairs(file)
    if file.bare or file.by_token_ids:
        what = "prompts have no corrupted twin" if file.bare else "answers are token ids"
        raise PromptError(
            f"{path}: {len(file.bare) or len(file.rows)} {what}, so they are no pairs without a model."
        )
    return tuple(row.pair() for row in file.rows)


def require_pairs(file: PromptFile) -> None:
    """Raises PromptError where there are too few prompts, or one side of pairs alone that nothing can be made of."""
    if file.format == "prompt-label" and file.bare:
        raise PromptError(
            f"{file.path} is a JSON list, which holds one side of each pair. Give the corrupted twins, a list of "
            "[prompt, label] in the same order, by --corrupt-prompts FILE, or do without by --make-corrupt mean."
        )
    if len(file.rows) < 2:
        raise PromptError(
            f"{file.path} holds {len(file.rows)} prompt pairs; at least 2 are needed, one to discover on and one to "
            'judge on. A line reads {"clean": "...", "corrupt": "...", "answers": [" x"], "distractors": [" y"]}.'
        )


def recognised(content: Content) -> Format:
    """The format that the content is of. Raises PromptError that says what is there, and what could be."""
    formats: list[Format] = [FORMATS.load(name) for name in FORMATS.names()]
    for form in formats:
        if form.recognises(content):
            return form
    if content.carrier == "lines":  # then it is told line by line what is missing
        return next(form for form in formats if form.name == OWN)
    known = "\n".join(f"  {form.name}: {form.holds}" for form in formats)
    raise PromptError(f"{content.path} is {_described(content)}. Formats of prompt files:\n{known}")


def _described(content: Content) -> str:
    if content.carrier == "table":
        return f"no JSON, and as a table has the columns {', '.join(content.columns)}"
    keys = ", ".join(content.first) if isinstance(content.first, dict) else ""
    return f"JSON of no known format (keys: {keys or 'none'})"


def _without_repeats(
    rows: Iterable[PromptRow | Dropped],
) -> tuple[tuple[PromptRow, ...], tuple[Dropped, ...]]:
    """Each row once: a prompt that is on both halves of the set would be judged by what was found on it."""
    first: dict[Hashable, str] = {}

    def once(row: PromptRow) -> PromptRow | Dropped:
        earlier = first.setdefault(_identity(row), row.where)
        if earlier == row.where:
            return row
        return Dropped(row.where, "repeated", f"the same as {earlier}: {row.clean!r}")

    return parted(once(row) if isinstance(row, PromptRow) else row for row in rows)


def _identity(row: PromptRow) -> Hashable:
    """Of a prompt without a twin, its text: a second answer to it would be wrong by the first."""
    if not row.corrupt:
        return row.clean
    return row.clean, row.corrupt, row.answers, row.distractors, row.answer_ids, row.distractor_ids
