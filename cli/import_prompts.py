"""`circuit tasks import`: what prompt files hold, what of it a model can use, and the same as our own JSON Lines."""

from __future__ import annotations

import json as json_
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.guard import guarded

if TYPE_CHECKING:
    from circuits.models.bridge import BridgeModel
    from circuits.prompt_files.pairing import Paired
    from circuits.prompt_files.records import PromptFile, PromptRow

SHOWN = 10
"""Dropped prompts and templates that the terminal names; --json names all."""


@guarded
def import_prompts(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Prompt files; the formats are listed if none is given.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Also say what is left under this model's tokenizer.")
    ] = None,
    corrupt_prompts: Annotated[
        Path | None,
        typer.Option(help="The corrupted twins, where the file is a JSON list of [prompt, label]."),
    ] = None,
    corrupt_column: Annotated[
        str | None, typer.Option(help="Which corrupted twin, where the file has several.")
    ] = None,
    make_corrupt: Annotated[
        str | None, typer.Option(help="How twins are made that the file lacks: resample or mean.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds the choice of partners.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A JSON Lines file to write: what is left, in our format."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that --output names.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, with every dropped prompt.")] = False,
) -> None:
    """Say what prompt files hold: format, prompts, what is dropped and why; with a model, what it can use.

    [bold]circuit tasks import mine.csv[/bold]

    [bold]circuit tasks import mine.csv theirs.json --model gpt2 --json[/bold]

    [bold]circuit tasks import facts.json --model gpt2 --output facts.jsonl[/bold]
    """
    if not files:
        _list_formats(json)
        return
    _check(files, output, force, corrupt_prompts)
    from circuits.prompt_files.reading import read

    held = [read(path, column=corrupt_column, twins=corrupt_prompts) for path in files]
    _require_prompts(held)
    loaded = _loaded(model)
    left = [_left(loaded, file, make_corrupt, seed) for file in held]
    records = [_record(file, kept, loaded) for file, kept in zip(held, left, strict=True)]
    if output:
        _write(output, held[0], left[0].rows if left[0] else held[0].rows)
    if json:
        from circuits.records import json_text

        print(json_text(records), end="")
        return
    for record in records:
        _show(record)


def _check(files: list[Path], output: Path | None, force: bool, twins: Path | None) -> None:
    from circuits.errors import CircuitError

    for name, value in (("--output", output), ("--corrupt-prompts", twins)):
        if value and len(files) > 1:
            raise CircuitError(f"{name} {value} is for one file; {len(files)} are given.")
    if output and output.exists() and not (force and output.is_file()):
        raise CircuitError(f"{output} exists: choose another --output, or pass --force to replace it.")


def _require_prompts(files: Iterable[PromptFile]) -> None:
    from circuits.errors import PromptError

    if empty := [str(file.path) for file in files if not file.size]:
        raise PromptError(f"{' and '.join(empty)} is empty: it holds no prompt.")


def _loaded(model: str | None) -> BridgeModel | None:
    if model is None:
        return None
    from circuits.models.bridge import load_model

    return load_model(model)


def _left(model: BridgeModel | None, file: PromptFile, make_corrupt: str | None, seed: int) -> Paired | None:
    """What the model can use."""
    from circuits.errors import CircuitError
    from cli.own_prompts import require_way

    require_way(make_corrupt)
    if model is None:
        if make_corrupt:
            raise CircuitError(f"--make-corrupt {make_corrupt} needs --model: twins are as many tokens long.")
        return None
    from circuits.prompt_files.pairing import fitting, pair_up

    way: Any = make_corrupt
    return fitting(model, pair_up(model, file, way if file.bare else None, seed=seed))


def _record(file: PromptFile, left: Paired | None, model: BridgeModel | None) -> dict[str, Any]:
    from circuits.prompt_files.formats.prompt_lines import written
    from circuits.prompt_files.records import counted

    rows = left.rows if left else file.rows
    dropped = (*file.dropped, *(left.dropped if left else ()))
    many = [len(row.answers) or len(row.answer_ids) for row in file.rows]
    return {
        "file": str(file.path),
        "format": file.format,
        "rows": file.size,
        "with_twins": len(file.rows) - len(file.bare),
        "without_twins": len(file.bare),
        "model": model.name if model else None,
        "left": len(rows),
        "dropped": counted(dropped),
        "dropped_rows": [asdict(entry) for entry in dropped],
        "doubts": list(left.notes) if left else [],
        "metric": file.metric,
        "answers_by_token_id": file.by_token_ids,
        "answers_each": [min(many, default=0), max(many, default=0)],
        "positions": _counts(name for row in file.rows for name in row.positions),
        "classes": _counts(row.kind for row in file.rows if row.span),
        "templates": _counts(row.template for row in file.rows if row.template),
        "example": _example(rows[0], written(rows[0])) if rows else None,
    }


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _example(row: PromptRow, line: dict[str, Any]) -> dict[str, Any]:
    """The row as a line, with its token ids where those are all that it has, and no long lists."""
    ids = {"answer_ids": row.answer_ids, "distractor_ids": row.distractor_ids}
    shown = line | {name: value for name, value in ids.items() if value}
    return {
        name: [*value[:3], "..."] if isinstance(value, tuple) and len(value) > 4 else value
        for name, value in shown.items()
    }


def _write(output: Path, file: PromptFile, rows: tuple[PromptRow, ...]) -> None:
    from circuits.errors import PromptError
    from circuits.exchange.files import write_file
    from circuits.prompt_files.formats.prompt_lines import written
    from circuits.records import plain

    if any(row.answer_ids for row in rows):
        raise PromptError(
            f"The answers of {file.path} are token ids: say by --model whose, to write them as text."
        )
    if not rows:
        raise PromptError(f"Nothing of {file.path} is left to be written to {output}.")
    lines = (json_.dumps(plain(written(row)), ensure_ascii=False) + "\n" for row in rows)
    write_file(output, "".join(lines).encode())


def _show(record: dict[str, Any]) -> None:
    from cli.render import say, warning

    for line in _lines(record):
        say(line)
    for doubt in record["doubts"]:
        warning(doubt)


def _lines(record: dict[str, Any]) -> Iterator[str]:
    twins = f"{record['with_twins']} with a corrupted twin" + (
        f", {record['without_twins']} without" if record["without_twins"] else ""
    )
    at = f" for {record['model']}" if record["model"] else ""
    yield f"{record['file']}: {record['format']}, {record['rows']} prompts ({twins})"
    yield f"  left{at}: {record['left']}; dropped: {_said(record['dropped'])}"
    few, most = record["answers_each"]
    ids = " as token ids" if record["answers_by_token_id"] else ""
    yield f"  answers{ids}: {few if few == most else f'{few} to {most}'} a prompt; metric: {record['metric']}"
    for what in ("positions", "classes", "templates"):
        if record[what]:
            yield f"  {what}: {_said(record[what])}"
    if record["example"]:
        yield f"  example: {json_.dumps(record['example'], ensure_ascii=False)}"
    for entry in record["dropped_rows"][:SHOWN]:
        yield f"  dropped {entry['where']}: {entry['reason']}"
    if len(record["dropped_rows"]) > SHOWN:
        yield f"  ... and {len(record['dropped_rows']) - SHOWN} more dropped; --json names all"


def _said(counts: dict[str, int]) -> str:
    shown = [f"{n} {name}" for name, n in list(counts.items())[:SHOWN]]
    more = [f"{len(counts) - SHOWN} others"] if len(counts) > SHOWN else []
    return ", ".join([*shown, *more]) or "none"


def _list_formats(json: bool) -> None:
    """The formats, and in JSON also the schema of a line of our own."""
    from circuits.prompt_files.formats import FORMATS
    from circuits.prompt_files.formats.prompt_lines import PromptLine

    formats = [FORMATS.load(name) for name in FORMATS.names()]
    rows = [{"format": f.name, "what": f.summary, "holds": f.holds} for f in formats]
    if json:
        from circuits.records import json_text

        print(json_text({"formats": rows, "prompt_line": PromptLine.model_json_schema()}), end="")
        return
    from cli.render import table

    table(list(rows[0]), [list(row.values()) for row in rows], title="Formats of prompt files")
