"""Folders that are no runs, in the terminal: comparisons, evaluations, studies, heads; each by its own record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuits.errors import RunFolderError
from circuits.records import read_json
from cli.render import say, table, warning
from cli.shown import as_value
from cli.wording import chance_words, estimate, number, p_value

_SHOWN = 30
"""Rows of a table; the record holds them all."""


@dataclass(frozen=True)
class Folder:
    """record: what --json prints."""

    path: Path
    record: Mapping[str, Any]
    draw: Callable[[Any], None]

    def show(self) -> None:
        """Raises RunFolderError where the record lacks what it should hold."""
        try:
            self.draw(as_value(self.record))
        except AttributeError as problem:
            raise RunFolderError(
                f"The record of {self.path} is damaged: {problem}. Make it again."
            ) from problem


def read_folder(path: Path) -> Folder:
    """Raises RunFolderError for a folder that is none of ours."""
    if not path.is_dir():
        raise RunFolderError(f"There is no folder {path}. `circuit discover` makes one.")
    for mark, (record, draw) in _KINDS.items():
        if (path / mark).is_file():
            return Folder(path, read_json(path / record), draw)
    known = ", ".join(("run.json", *_KINDS))
    raise RunFolderError(
        f"{path} is no folder of ours: it has none of {known}. See its report.md, if it has one."
    )


def _comparison(held: Any) -> None:
    """As `circuit compare` ends: two circuits in sentences, more of them as a table; alignment and transfer."""
    from cli.comparison_words import listed, overlap_words, pair_cells, ranking_words, share_words

    for note in held.notes:
        warning(note)
    if held.alignment.by == "behaviour":
        from cli.comparison_words import alignment_words

        say(alignment_words(held.alignment))
    if len(held.runs) > 2:
        columns = ("first", "second", "of", "shared", "Jaccard", "chance", "p")
        found = sorted(held.comparisons, key=lambda entry: -(entry.overlap.jaccard or 0.0))
        table(columns, [pair_cells(entry) for entry in found[:_SHOWN]], numeric=columns[3:])
    else:
        for entry in held.comparisons:
            most = 5 if entry.granularity == "edge" else 30
            say(overlap_words(entry))
            say(f"  {share_words(entry)}")
            say(f"  {ranking_words(entry)}")
            say(f"  both: {listed(entry.shared, most)}")
            say(f"  {entry.first} alone: {listed(entry.only_first, most)}")
            say(f"  {entry.second} alone: {listed(entry.only_second, most)}")
    _references(held)
    _transfer(held)


def _references(held: Any) -> None:
    from cli.comparison_words import reference_words

    for match in held.references:
        say(reference_words(match))


def _transfer(held: Any) -> None:
    from cli.comparison_words import TRANSFER

    journeys = getattr(held, "transfer", ())
    if not journeys:
        return
    places = tuple(dict.fromkeys(journey.prompts for journey in journeys))
    rows: dict[str, dict[str, str]] = {}
    for journey in journeys:
        star = "*" if journey.p_value <= 1 / 26 else ""
        words = f"{number(journey.faithfulness)}{star} ({number(journey.random_median)})"
        row = rows.setdefault(journey.circuit, {"size": f"{journey.size:,}"})
        row[journey.prompts] = words + (" own" if journey.at_home else "")
    header = ("circuit of", "size", *places)
    say(f"\n{TRANSFER}")
    cells = [(name, *(row.get(c, "") for c in header[1:])) for name, row in rows.items()]
    table(header, cells, numeric=header[1:], whole=())


def _evaluation(held: Any) -> None:
    """As `circuit evaluate` ends: how the model does, a table over all circuits, and each one's faithfulness."""
    from cli.wording import baseline_line

    for itself in held.baselines:
        say(baseline_line(held.model.name, itself.task, itself))
    say("")
    header = ("circuit", "replaced by", "kept", "faithful", "CPR", "CMD", "gap", "Jaccard")
    rows = [_evaluated(entry, found) for entry in held.circuits for found in entry.evaluations]
    table(header, rows, numeric=header[2:])
    for entry in held.circuits:
        for found in entry.evaluations:
            verdict = found.verdict
            say(
                f"{entry.method} keeps {len(entry.kept):,} of {entry.of:,} {entry.granularity}s; faithfulness "
                f"{estimate(verdict.faithfulness)} ({verdict.ablation} ablation), {chance_words(verdict)}."
            )
            for test in found.tests:
                say(f"  {test.name.capitalize()} (p {p_value(test.p_value)}): {test.words}")


def _evaluated(entry: Any, found: Any) -> tuple[str, ...]:
    curves, gaps, stable = found.curves, found.completeness, entry.stability
    return (
        entry.method,
        found.ablation,
        f"{len(entry.kept):,}",
        number(found.verdict.faithfulness.value),
        number(curves.signed.cpr.value) if curves else "",
        number(curves.absolute.cmd.value) if curves else "",
        number(gaps.mean_gap.value) if gaps else "",
        number(stable.jaccard) if stable else "",
    )


def _study(held: Any) -> None:
    """Every run with its first verdict, what failed, and the gates that fell."""
    if held.title:
        say(held.title)
    axes = ("task", "model", "method", "seed")
    places = [tuple(_last(str(getattr(cell, axis)), axis) for axis in axes) for cell in held.cells]
    varied = [i for i in range(len(axes)) if len({place[i] for place in places}) > 1]
    if alike := [f"{axis} {places[0][i]}" for i, axis in enumerate(axes) if places and i not in varied]:
        say(f"All of {', '.join(alike)}.")
    header = (*(axes[i] for i in varied), "keeps", "faithful", "random", "p")
    rows = [
        (*(place[i] for i in varied), *_came(cell)) for place, cell in zip(places, held.cells, strict=True)
    ]
    table(header, rows, numeric=header[-3:], whole=header[-3:])
    made = Counter(step.kind for step in held.steps if step.whole)
    if made:
        say(f"\nMade of them: {', '.join(f'{n} {kind}s' for kind, n in made.items())}; report.md shows them.")
    failed = [entry for entry in (*held.cells, *held.steps) if entry.problem]
    for entry in failed:
        warning(f"{entry.name} failed: {entry.problem.strip().splitlines()[-1]}")
    for gate in held.gates:
        if gate.problem:
            warning(f"{gate.cell}: {gate.problem}")


def _last(value: str, axis: str) -> str:
    """A model may be a directory: its name is the last part."""
    return Path(value).name if axis == "model" else value


def _came(cell: Any) -> tuple[str, ...]:
    """What the run of a cell comes to."""
    if not cell.whole:
        return "failed", "", "", ""
    return (
        f"{cell.kept:,} {cell.granularity}s",
        number(cell.faithfulness.value),
        number(cell.random_median),
        p_value(cell.p_value),
    )


def _heads(held: Any) -> None:
    """As `circuit heads` ends: the three heads that have each role most."""
    rows = []
    for name, role in vars(held.roles).items():
        best = sorted(vars(role.heads).items(), key=lambda item: -item[1].score)[:3]
        for i, (head, found) in enumerate(best):
            interval = f"{number(found.low)} to {number(found.high)}"
            cells = (head, number(found.score), interval, number(role.chance, 4), p_value(found.p_value))
            rows.append(("" if i else name, *cells))
    on = f", prompts of {held.prompts.task}" if held.prompts else ""
    columns = ("role", "head", "score", "95% interval", "chance", "p")
    table(columns, rows, title=f"Heads of {Path(held.model.name).name}{on}", numeric=("score", "chance", "p"))
    for name, reason in vars(held.left_out).items():
        say(f"{name} is left out: it {reason}.")


_KINDS: Mapping[str, tuple[str, Callable[[Any], None]]] = {
    "overlap.json": ("overlap.json", _comparison),
    "evaluation.md": ("evaluation.json", _evaluation),
    "study.json": ("study.json", _study),
    "heads.json": ("heads.json", _heads),
}
"""The file by which a folder is known -> its record, and what draws that."""
