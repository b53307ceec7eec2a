"""What a study's YAML file says: a matrix of discoveries, their options, and what to do with the circuits.

The one idea: the file is checked whole before anything runs, and every mistake in it is told at once, by its line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from circuits.errors import CircuitError, UnknownNameError

Axis = Literal["task", "model", "method", "seed"]
AXES: tuple[Axis, ...] = ("task", "model", "method", "seed")


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _known_task(name: str) -> str:
    from tasks import TASKS

    task, _, form = name.partition("/")
    if task not in TASKS.names():
        raise ValueError(str(UnknownNameError("task", task, TASKS.names())))
    if form and form not in TASKS.load(task).forms:
        raise ValueError(str(UnknownNameError(f"form of {task}", form, TASKS.load(task).forms)))
    return name


def _known_method(name: str) -> str:
    from circuits.methods import METHODS

    if name not in METHODS.names():
        raise ValueError(str(UnknownNameError("method", name, METHODS.names())))
    return name


def _fitting_setting(setting: str) -> str:
    from circuits.methods import METHODS

    target, equals, value = setting.partition("=")
    method, dot, option = target.partition(".")
    if not (equals and dot):
        raise ValueError(f"{setting!r} is not METHOD.OPTION=VALUE, such as sae.trials=20")
    try:
        METHODS.load(_known_method(method)).configure({option: value})
    except CircuitError as problem:
        raise ValueError(str(problem)) from None
    return setting


TaskName = Annotated[str, AfterValidator(_known_task)]
MethodName = Annotated[str, AfterValidator(_known_method)]
ModelName = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0)]
Setting = Annotated[str, AfterValidator(_fitting_setting)]


class Part(BaseModel):
    """No unknown keys, nothing changes afterwards."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Options(Part):
    """Options of `circuit discover`, with its own names; what is not given is as there."""

    corruption: str | None = None
    pairs: int | None = Field(None, ge=2)
    budget: int | None = Field(None, ge=2)
    metric: Literal["logit-difference", "probability-difference"] | None = None
    top: int | None = Field(None, ge=1)
    threshold: float | None = Field(None, ge=0, le=1)
    significance: float | None = Field(None, ge=0, le=1)
    correction: Literal["holm", "bonferroni", "benjamini-hochberg"] | None = None
    smallest: float | None = Field(None, ge=0)
    prune: float | None = Field(None, ge=0)
    verify: int | None = Field(None, ge=1)
    batch_size: int | None = Field(None, ge=1)
    device: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    memory: str | None = None
    settings: Annotated[tuple[Setting, ...], BeforeValidator(_listed)] = Field((), alias="set")

    def given(self) -> dict[str, Any]:
        """What the file says, and nothing else."""
        return self.model_dump(exclude_unset=True, exclude={"when"})


class Where(Part):
    """Which cells: those that have one of these values on every axis that is named."""

    task: Annotated[tuple[TaskName, ...], BeforeValidator(_listed)] = ()
    model: Annotated[tuple[ModelName, ...], BeforeValidator(_listed)] = ()
    method: Annotated[tuple[MethodName, ...], BeforeValidator(_listed)] = ()
    seed: Annotated[tuple[Seed, ...], BeforeValidator(_listed)] = ()

    def holds(self, place: dict[Axis, Any]) -> bool:
        return all(place[axis] in getattr(self, axis) for axis in AXES if getattr(self, axis))


class Override(Options):
    """Options for some cells; later ones win."""

    when: Where


class Matrix(Part):
    """Every task (or task/form) with every model, method and seed, but those that `exclude` names."""

    task: Annotated[tuple[TaskName, ...], BeforeValidator(_listed), Field(min_length=1)]
    model: Annotated[tuple[ModelName, ...], BeforeValidator(_listed), Field(min_length=1)]
    method: Annotated[tuple[MethodName, ...], BeforeValidator(_listed), Field(min_length=1)]
    seed: Annotated[tuple[Seed, ...], BeforeValidator(_listed), Field(min_length=1)] = (0,)
    exclude: tuple[Where, ...] = ()
    include: tuple[Where, ...] = ()


class Compare(Part):
    """One comparison for each choice of the other axes. transfer: also judge each circuit on the others' prompts."""

    across: Axis
    where: Where = Where()
    transfer: bool = False
    nodes: bool = False


class Repair(Part):
    """The heads that `good` uses and `bad` does not, given the behaviour that they have on `good`."""

    model: ModelName
    method: MethodName
    good: TaskName
    bad: TaskName
    seed: Seed = 0
    onto: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()


class Study(Part):
    """title: what the report is called."""

    title: str = ""
    matrix: Matrix
    options: Options = Options()
    overrides: tuple[Override, ...] = ()
    compare: Annotated[tuple[Compare, ...], BeforeValidator(_listed)] = ()
    repair: Annotated[tuple[Repair, ...], BeforeValidator(_listed)] = ()


def read_study(path: Path) -> Study:
    """Raises CircuitError with every mistake of the file, each with its line."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CircuitError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CircuitError(f"{path} is no YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(root, yaml.MappingNode):
        raise CircuitError(f"{path} holds no mapping. It begins with `matrix:`; see configs/reuse.yaml.")
    lines = dict(_lines(root, ()))
    problems = [(lines[where], words) for where, words in _repeated(root, ())]
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        problems += [(_line(lines, e["loc"]), _words(e)) for e in error.errors()]
    if problems:
        told = "\n".join(f"  line {line}: {words}" for line, words in sorted(problems))
        raise CircuitError(f"{path} cannot be used:\n{told}")
    return study


Loc = tuple[int | str, ...]


def _lines(node: Any, at: Loc) -> Iterator[tuple[Loc, int]]:
    """Where each value stands; in a mapping, where its key stands, the last one of a repeated key."""
    yield at, node.start_mark.line + 1
    if node.id == "mapping":
        for key, value in node.value:
            yield from _lines(value, (*at, key.value))
            yield (*at, key.value), key.start_mark.line + 1
    elif node.id == "sequence":
        for i, value in enumerate(node.value):
            yield from _lines(value, (*at, i))


def _repeated(node: Any, at: Loc) -> Iterator[tuple[Loc, str]]:
    """Keys that stand twice in one mapping, of which YAML would keep the last in silence."""
    if node.id == "mapping":
        keys = [key.value for key, _ in node.value]
        repeated = {key for key in keys if keys.count(key) > 1}
        yield from (((*at, key), f"{_dotted((*at, key))} stands more than once.") for key in sorted(repeated))
        for key, value in node.value:
            yield from _repeated(value, (*at, key.value))
    elif node.id == "sequence":
        for i, value in enumerate(node.value):
            yield from _repeated(value, (*at, i))


def _line(lines: dict[Loc, int], where: Loc) -> int:
    """Of the value, or of the nearest around it that the file has."""
    while where not in lines:
        where = where[:-1]
    return lines[where]


def _dotted(where: Loc) -> str:
    return "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in where).lstrip(".")


def _words(error: ErrorDetails) -> str:
    where = _dotted(error["loc"])
    if error["type"] == "extra_forbidden":
        known = _keys(error["loc"][:-1])
        close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else f" Keys there: {', '.join(known)}."
        return f"{where} is no key.{hint}"
    if error["type"] == "missing":
        return f"{where} is missing."
    message = error["msg"].removeprefix("Value error, ")
    return f"{where} = {error['input']!r}: {message}" + ("" if message.endswith((".", "?")) else ".")


def _keys(where: Loc) -> list[str]:
    """The keys of the mapping at `where`."""
    kinds: dict[str, type[BaseModel]] = {
        "matrix": Matrix,
        "options": Options,
        "overrides": Override,
        "compare": Compare,
        "repair": Repair,
    }
    names = [part for part in where if isinstance(part, str)]
    kind = Study if not names else Where if len(names) > 1 else kinds.get(names[0], Study)
    return [entry.alias or name for name, entry in kind.model_fields.items()]
