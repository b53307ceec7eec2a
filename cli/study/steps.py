"""What is made of the cells of a study: comparisons, evaluations and repairs, each in a folder of its own.

The one idea: a step's folder is named by what is asked and by the runs that it is asked of, so that, like a cell's,
its being there is the record of its being done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from circuits.errors import CircuitError
from cli.study.cells import Cell, digest
from cli.study.runner import LastModel
from cli.study.spec import AXES, Axis, Compare, Evaluate, Repair, Study

if TYPE_CHECKING:
    from circuits.models.bridge import BridgeModel
    from circuits.progress import Progress
    from circuits.runs import RunFolder


@dataclass(frozen=True)
class Step:
    """What is made of some cells. about: what it says in reports; make: writes the folder."""

    kind: str
    about: dict[str, Any]
    cells: tuple[Cell, ...]
    folder: Path
    make: Callable[[], None]

    @property
    def name(self) -> str:
        return self.folder.name


class Bench(NamedTuple):
    """What steps work on. standing: the cells that are whole, and their run folders."""

    output: Path
    standing: Mapping[Cell, Path]
    load: LastModel
    show: Progress


def steps(study: Study, at: Bench) -> Iterator[Step]:
    """Every step that the study asks for, of the cells that stand."""
    for compare in study.compare:
        yield from _comparisons(compare, at)
    for evaluate in study.evaluate:
        yield from (
            _evaluation(evaluate, cell, at) for cell in at.standing if evaluate.where.holds(cell.place)
        )
    for repair in study.repair:
        yield _repair(repair, at)


def _comparisons(wanted: Compare, at: Bench) -> Iterator[Step]:
    among = [cell for cell in at.standing if wanted.where.holds(cell.place)]
    for fixed, members in _groups(among, wanted.across):
        yield from (_comparison(wanted, fixed, some, at) for some in _sets(wanted, members))


def _sets(wanted: Compare, members: Sequence[Cell]) -> Iterator[tuple[Cell, ...]]:
    """Those that are compared together."""
    first = [cell for cell in members if cell.place[wanted.across] == wanted.beside]
    if wanted.beside is not None:
        yield from ((cell, other) for cell in first for other in members if other is not cell)
    elif wanted.across == "model":
        # Models may differ in shape, and heads are aligned two models at a time.
        yield from combinations(members, 2)
    elif len(members) > 1:
        yield tuple(members)


def label(axis: str, value: object) -> str:
    """What reports call a value; of a model that is a directory its last part."""
    return Path(str(value)).name if axis == "model" else str(value)


def _groups(cells: Sequence[Cell], across: Axis) -> Iterator[tuple[dict[str, Any], list[Cell]]]:
    """Cells that agree on every other axis, with what they agree on."""
    others: list[Axis] = [axis for axis in AXES if axis != across]
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(tuple(str(cell.place[axis]) for axis in others), []).append(cell)
    for values, members in groups.items():
        yield dict[str, Any](zip(others, values, strict=True)), members


def _comparison(wanted: Compare, fixed: dict[str, Any], members: tuple[Cell, ...], at: Bench) -> Step:
    runs = [at.standing[cell] for cell in members]
    facts = [wanted.across, wanted.transfer, wanted.nodes, [run.name for run in runs]]
    labels = [label(wanted.across, cell.place[wanted.across]) for cell in members]
    by = "-".join(label(axis, value) for axis, value in fixed.items())
    paired = wanted.across == "model" or wanted.beside is not None
    between = f"{labels[0]}-{labels[1]}-" if paired else ""
    name = f"{wanted.across}s-{between}{by}-{digest(facts)}".replace("/", "-")
    folder = at.output / "comparisons" / name
    about = {"across": wanted.across, "transfer": wanted.transfer, **fixed, "between": labels}

    def make() -> None:
        from cli.comparing import Request, compared

        request = Request(
            tuple(map(str, runs)), names=tuple(labels), nodes=wanted.nodes, transfer=wanted.transfer
        )
        compared(request, at.show, at.load).write(folder, force=False)

    return Step("comparison", about, members, folder, make)


def _evaluation(wanted: Evaluate, cell: Cell, at: Bench) -> Step:
    asked = wanted.model_dump(exclude={"where"})
    run = at.standing[cell]
    folder = at.output / "evaluations" / f"{cell.name}-{digest([asked, run.name])}"
    about = {"cell": cell.name, **asked}
    return Step("evaluation", about, (cell,), folder, partial(_evaluate, wanted, cell, run, folder, at))


def _evaluate(wanted: Evaluate, cell: Cell, run: Path, folder: Path, at: Bench) -> None:
    from circuits.runs import read_run
    from cli.evaluate import Place, Wanted, evaluated

    held = read_run(run)
    model = _model(held, cell, at)
    asked = Wanted((cell.method,), (), wanted.ablation, frozenset(wanted.skip))
    evaluated(held, model, asked, Place(folder, False), at.show, pairs=wanted.pairs)


def _repair(wanted: Repair, at: Bench) -> Step:
    found = {
        name: next((cell for cell in at.standing if _is(cell, wanted, task)), None)
        for name, task in (("good", wanted.good), ("bad", wanted.bad))
    }
    members = tuple(cell for cell in found.values() if cell is not None)
    facts = [wanted.model_dump(), [at.standing[cell].name for cell in members]]
    stem = f"{Path(wanted.model).name}-{wanted.bad}-by-{wanted.good}".replace("/", "-")
    folder = at.output / "repairs" / f"{stem}-{digest(facts)}"
    return Step(
        "repair", wanted.model_dump(), members, folder, partial(_make_repair, wanted, found, folder, at)
    )


def _make_repair(wanted: Repair, found: dict[str, Cell | None], folder: Path, at: Bench) -> None:
    from circuits.interventions.run_intervention import Treatment
    from circuits.runs import read_run
    from cli.intervene import repaired
    from cli.intervention_output import write

    good, bad = found["good"], found["bad"]
    if good is None or bad is None:
        missing = [task for cell, task in ((good, wanted.good), (bad, wanted.bad)) if cell is None]
        raise CircuitError(f"There is no run of {' and '.join(missing)} to repair with: its cell failed.")
    runs = [read_run(at.standing[cell]) for cell in (good, bad)]
    treatment, model = Treatment("repair", onto=wanted.onto), _model(runs[1], bad, at)
    write(folder, repaired(runs[1], runs[0], None, model, treatment, wanted.seed, at.show), force=False)


def _model(run: RunFolder, cell: Cell, at: Bench) -> BridgeModel:
    """The model of a cell, where its run was made and in the same precision."""
    from cli.run_source import model_of

    return model_of(run, cell.model, cell.options.get("device", "cpu"), None, None, at.show, at.load)[0]


def _is(cell: Cell, wanted: Repair, task: str) -> bool:
    return (cell.task, cell.model, cell.method, cell.seed) == (task, wanted.model, wanted.method, wanted.seed)
