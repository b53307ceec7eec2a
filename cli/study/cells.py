"""The cells of a study: one discovery each, named by what it is and by all that its outcome depends on."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

from circuits.errors import CircuitError
from cli.run_records import LIBRARIES
from cli.study.spec import AXES, RULES, Axis, Matrix, Study, Where
from tasks.own import split_form, split_reference

NO_MATTER = ("device", "memory", "batch_size")
"""Options that change where and in what portions the work is done, and no figure."""
OF_FILES = ("prompts", "corrupt_prompts")
"""Options that name a file: what it holds matters, not where it lies."""
OF_GRANULARITY = {"verify": "edge", "missed": "node"}
OF_METHOD = {"budget": "activation-patching"}


@dataclass(frozen=True, eq=False)
class Cell:
    """options: those of `circuit discover`, by the names of its parameters, without the four axes."""

    task: str
    model: str
    method: str
    seed: int
    options: Mapping[str, Any]

    @property
    def place(self) -> dict[Axis, Any]:
        return {axis: getattr(self, axis) for axis in AXES}

    @property
    def ground(self) -> tuple[str, str, int]:
        """What cells share that differ in method alone."""
        return self.model, self.task, self.seed

    @property
    def name(self) -> str:
        """For people and folders: ioi-plain-4l-sae-0."""
        return f"{_file_name(self.task)}-{Path(self.model).name}-{self.method}-{self.seed}"

    def discover_options(self) -> dict[str, Any]:
        """Everything that `circuit discover` takes, but where the run goes."""
        from cli.discover import discover

        defaults = {p.name: p.default for p in inspect.signature(discover).parameters.values()}
        task, form = split_form(self.task)
        axes = {"task": task, "form": form or None, "model": self.model, "method": [self.method]}
        if "prompts" in self.options:
            axes |= {"task": None, "form": None}
        return defaults | dict(self.options) | axes | {"seed": self.seed}

    def key(self, weights: str) -> str:
        """A digest of all that the outcome depends on. weights: the hash of the model's."""
        matters = {
            name: _content(value) if name in OF_FILES else value
            for name, value in self.options.items()
            if name not in NO_MATTER
        }
        place = {name: value for name, value in self.place.items() if name != "model"}
        if file := split_reference(split_form(self.task)[0]):
            place["task"] = [_content(file[0]), file[1], split_form(self.task)[1]]
        facts = [place, matters, weights, {name: version(name) for name in LIBRARIES}]
        return digest(facts)


def _file_name(task: str) -> str:
    """The task as a part of a folder's name: ioi-plain, my_task-capitals."""
    name, form = split_form(task)
    file = split_reference(name)
    parts = (file[0].stem, file[1], form) if file else (name, form)
    return "-".join(part for part in parts if part)


def _content(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def digest(facts: object) -> str:
    """Eight hexadecimal digits that stand for `facts`."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def cells(study: Study) -> tuple[Cell, ...]:
    """In the order of the file, those of one model together, and of one task and seed in it.

    Raises CircuitError where none is left.
    """
    matrix = study.matrix
    places = [dict(zip(AXES, values, strict=True)) for values in product(*_axes(matrix))]
    places = [place for place in places if not any(where.holds(place) for where in matrix.exclude)]
    for where in matrix.include:
        whole = [getattr(where, axis) or values for axis, values in zip(AXES, _axes(matrix), strict=True)]
        places += [dict(zip(AXES, values, strict=True)) for values in product(*whole)]
    found = {tuple(place.values()): Cell(**place, options=_options(study, place)) for place in places}
    if not found:
        raise CircuitError("The matrix has no cell: `exclude` leaves out all of them.")
    grounds = list(dict.fromkeys(cell.ground for cell in found.values()))
    models = list(dict.fromkeys(cell.model for cell in found.values()))
    return tuple(
        sorted(found.values(), key=lambda cell: (models.index(cell.model), grounds.index(cell.ground)))
    )


def require_cells(study: Study, found: Sequence[Cell]) -> None:
    """Raises CircuitError for every step that has no cells to work on."""
    problems = []
    for kind in ("evaluate", "check"):
        for n, wanted in enumerate(getattr(study, kind), start=1):
            if not any(wanted.where.holds(cell.place) for cell in found):
                problems.append(f"{kind}[{n}] finds no cell in the matrix: {_said(wanted.where)}.")
    for n, check in enumerate(study.check, start=1):
        if check.beside and not any(check.beside.holds(cell.place) for cell in found):
            problems.append(f"check[{n}].beside is no cell of the matrix: {_said(check.beside)}.")
    for n, compare in enumerate(study.compare, start=1):
        if sum(compare.where.holds(cell.place) for cell in found) < 2:
            problems.append(f"compare[{n}] finds fewer than two cells in the matrix: {_said(compare.where)}.")
        if compare.beside is not None and not any(c.place[compare.across] == compare.beside for c in found):
            problems.append(f"compare[{n}].beside is no {compare.across} of the matrix: {compare.beside}.")
    for n, repair in enumerate(study.repair, start=1):
        for kind, task in (("good", repair.good), ("bad", repair.bad)):
            place = {"task": task, "model": repair.model, "method": repair.method, "seed": repair.seed}
            if not any(cell.place == place for cell in found):
                cell = ", ".join(map(str, place.values()))
                problems.append(f"repair[{n}].{kind} is no cell of the matrix: {cell}. Include it there.")
    if problems:
        raise CircuitError("\n".join(problems))


def _said(where: Where) -> str:
    return str(where.model_dump(exclude_defaults=True)) if where != Where() else "it has one cell"


def _axes(matrix: Matrix) -> list[tuple[Any, ...]]:
    return [matrix.tasks, matrix.model, matrix.method, matrix.seed]


def _options(study: Study, place: dict[Axis, Any]) -> dict[str, Any]:
    """What is given for all cells, then what is given for some; without what is not for this method."""
    given = study.options.given()
    settings = list(study.options.settings)
    for override in study.overrides:
        if override.when.holds(place):
            more = override.given()
            if not more.keys().isdisjoint(RULES):
                given = {name: value for name, value in given.items() if name not in RULES}
            given |= more
            settings += override.settings
    given.pop("settings", None)
    mine = [setting for setting in settings if setting.startswith(f"{place['method']}.")]
    fitting = dict(_fitting(given, place["method"])) | ({"set_": mine} if mine else {})
    return fitting | _files(study.matrix, place["task"])


def _files(matrix: Matrix, task: str) -> dict[str, Path | str]:
    """The files of a task that is the user's own prompts."""
    for own in matrix.prompts:
        if own.task == task:
            more = {"corrupt_prompts": own.corrupt, "corrupt_column": own.corrupt_column}
            given = {**more, "make_corrupt": own.make_corrupt}
            return {"prompts": own.file, **{name: value for name, value in given.items() if value}}
    return {}


def _fitting(given: Mapping[str, Any], method: str) -> Iterator[tuple[str, Any]]:
    from circuits.methods import METHODS

    for name, value in given.items():
        # A method is loaded where that is asked alone: loading one imports torch.
        if name in OF_GRANULARITY and METHODS.load(method).granularity != OF_GRANULARITY[name]:
            continue
        if OF_METHOD.get(name, method) == method:
            yield name, value
