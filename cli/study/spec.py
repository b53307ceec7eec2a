"""What a study's YAML file says: a matrix of discoveries, their options, and what to do with the circuits.

The one idea: the file is checked whole before anything runs, and every mistake in it is told at once, by its line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import CoreSchema, ErrorDetails

from circuits.errors import CircuitError, UnknownNameError

Axis = Literal["task", "model", "method", "seed"]
AXES: tuple[Axis, ...] = ("task", "model", "method", "seed")


RULES = ("top", "threshold", "significance", "smallest", "prune")
"""Ways to select a circuit, of which a cell has one."""


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


class _OrOne:
    """Lets a JSON schema take one value where a list is meant."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        listed = handler(core)
        return {"anyOf": [listed["items"], listed]}


OR_ONE = (BeforeValidator(_listed), _OrOne())
"""Annotates a list that the file may give as its only entry."""


def _known_task(name: str, info: ValidationInfo) -> str:
    """A built-in task, with a form or without, or a file of `matrix.prompts` by its stem."""
    from tasks import TASKS

    own = tuple(info.context or ())
    task, _, form = name.partition("/")
    if name in own:
        return name
    if task not in TASKS.names():
        raise ValueError(str(UnknownNameError("task", task, (*TASKS.names(), *own))))
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
    """No unknown keys, nothing changes afterwards; keys are spelled as options are: min-overlap."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=lambda name: name.replace("_", "-")
    )


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
    settings: Annotated[tuple[Setting, ...], *OR_ONE] = Field((), alias="set")

    @model_validator(mode="after")
    def _one_rule(self) -> Options:
        rules = [name for name in RULES if getattr(self, name) is not None]
        if len(rules) > 1:
            raise ValueError(f"{' and '.join(rules)} are different ways to select; give one of them")
        return self

    def given(self) -> dict[str, Any]:
        """What the file says, and nothing else."""
        return self.model_dump(exclude_unset=True, exclude={"when"})


class Where(Part):
    """Which cells: those that have one of these values on every axis that is named."""

    task: Annotated[tuple[TaskName, ...], *OR_ONE] = ()
    model: Annotated[tuple[ModelName, ...], *OR_ONE] = ()
    method: Annotated[tuple[MethodName, ...], *OR_ONE] = ()
    seed: Annotated[tuple[Seed, ...], *OR_ONE] = ()

    def holds(self, place: dict[Axis, Any]) -> bool:
        return all(place[axis] in getattr(self, axis) for axis in AXES if getattr(self, axis))


class Override(Options):
    """Options for some cells; later ones win."""

    when: Where


class OwnPrompts(Part):
    """A file as `circuit discover --prompts` takes it; a task by the name of its stem.

    corrupt: the corrupted twins, where both files are JSON lists of [prompt, label].
    """

    file: Path
    corrupt: Path | None = None

    @property
    def task(self) -> str:
        return self.file.stem

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _are_there(self) -> OwnPrompts:
        missing = [str(path) for path in (self.file, self.corrupt) if path and not path.is_file()]
        if missing:
            raise ValueError(f"there is no file {' and no file '.join(missing)}")
        return self


class _OrName:
    """Lets a JSON schema take the file's name alone."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler(core)]}


class Matrix(Part):
    """Every task (or task/form, or file of prompts) with every model, method and seed, but those of `exclude`."""

    task: Annotated[tuple[TaskName, ...], *OR_ONE] = ()
    prompts: Annotated[tuple[Annotated[OwnPrompts, _OrName()], ...], *OR_ONE] = ()
    model: Annotated[tuple[ModelName, ...], *OR_ONE, Field(min_length=1)]
    method: Annotated[tuple[MethodName, ...], *OR_ONE, Field(min_length=1)]
    seed: Annotated[tuple[Seed, ...], *OR_ONE, Field(min_length=1)] = (0,)
    exclude: tuple[Where, ...] = ()
    include: tuple[Where, ...] = ()

    @model_validator(mode="after")
    def _tasks(self) -> Matrix:
        from tasks import TASKS

        own = [entry.task for entry in self.prompts]
        if not (self.task or own):
            raise ValueError("task is missing, or prompts in its place")
        if taken := [name for name in own if name in TASKS.names() or own.count(name) > 1]:
            raise ValueError(f"the prompts {taken[0]!r} have the name of a task, or of other prompts")
        return self

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.task, *(entry.task for entry in self.prompts))))


class Compare(Part):
    """One comparison for each choice of the other axes; of models, one for each two of them.

    beside: the value on that axis that every other is compared with, instead of all with all.
    transfer: also judge each circuit on the others' prompts.
    """

    across: Axis
    where: Where = Where()
    beside: str | int | None = None
    transfer: bool = False
    nodes: bool = False


class Repair(Part):
    """The heads that `good` uses and `bad` does not, given the behaviour that they have on `good`."""

    model: ModelName
    method: MethodName
    good: TaskName
    bad: TaskName
    seed: Seed = 0
    onto: Annotated[tuple[str, ...], *OR_ONE] = ()


class Evaluate(Part):
    """What `circuit evaluate` asks, of the circuits of some cells."""

    where: Where = Where()
    ablation: Annotated[tuple[Literal["resample", "mean", "zero"], ...], *OR_ONE] = ("resample",)
    skip: Annotated[
        tuple[Literal["curve", "completeness", "minimality", "tests", "stability"], ...], *OR_ONE
    ] = ()
    pairs: int | None = Field(None, ge=2)


class Check(Part):
    """Gates, as those of `circuit check`, that some cells must pass.

    baseline: a run folder to hold them to. beside: another cell of the study to hold each of them to, by the axes in
    which it differs. Neither is asked for by min-faithfulness alone.
    """

    where: Where = Where()
    baseline: str | None = None
    beside: Where | None = None
    min_overlap: float | None = Field(None, ge=0, le=1)
    min_faithfulness: float | None = None
    max_drift: float | None = Field(None, ge=0)
    nodes: bool = False

    @model_validator(mode="after")
    def _something_to_hold_to(self) -> Check:
        between = self.min_overlap is not None or self.max_drift is not None
        if not between and self.min_faithfulness is None:
            raise ValueError("no gate is given: say min-overlap, min-faithfulness or max-drift")
        if self.baseline is not None and self.beside is not None:
            raise ValueError("baseline and beside cannot go together")
        if between and self.baseline is None and self.beside is None:
            raise ValueError("min-overlap and max-drift need a run folder, baseline, or another cell, beside")
        return self

    @model_validator(mode="after")
    def _one_cell_beside(self) -> Check:
        values = [getattr(self.beside, axis) for axis in AXES] if self.beside else [(0,)]
        if max(map(len, values)) != 1:
            raise ValueError("beside takes one value for each axis that it names, and one axis at least")
        return self


class Study(Part):
    """title: what the report is called."""

    title: str = ""
    matrix: Matrix
    options: Options = Options()
    overrides: tuple[Override, ...] = ()
    compare: Annotated[tuple[Compare, ...], *OR_ONE] = ()
    evaluate: Annotated[tuple[Evaluate, ...], *OR_ONE] = ()
    repair: Annotated[tuple[Repair, ...], *OR_ONE] = ()
    check: Annotated[tuple[Check, ...], *OR_ONE] = ()


def schema() -> dict[str, Any]:
    """A JSON schema of the file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema()}


def with_settings(study: Study, settings: Sequence[str]) -> Study:
    """The study with options for all cells on top of the file's: pairs=20, or sae.trials=2.

    Raises CircuitError with every one that cannot be used.
    """
    if not settings:
        return study
    problems: list[str] = []
    given: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            problems.append(f"--set {setting} is not NAME=VALUE, such as pairs=20 or sae.trials=2.")
            continue
        entry = {"set": [setting]} if "." in name else {name: _value(value)}
        try:
            Override.model_validate({"when": {}, **entry})
        except ValidationError as error:
            problems += [f"--set {setting}: {_words(e, Override)}" for e in error.errors()]
        given |= entry if "." not in name else {"set": [*given.get("set", ()), setting]}
    if not problems:
        try:
            last = Override.model_validate({"when": {}, **given})
            return study.model_copy(update={"overrides": (*study.overrides, last)})
        except ValidationError as error:
            problems += [f"--set: {_words(e, Override)}" for e in error.errors()]
    raise CircuitError("\n".join(problems))


def _value(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


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
        study = Study.model_validate(values, context=_own_prompts(values))
    except ValidationError as error:
        problems += [(_line(lines, e["loc"]), _words(e)) for e in error.errors()]
    if problems:
        told = "\n".join(f"  line {line}: {words}" for line, words in sorted(problems))
        raise CircuitError(f"{path} cannot be used:\n{told}")
    return study


def _own_prompts(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the file's own prompts, which are not checked yet."""
    matrix = values.get("matrix")
    given = matrix.get("prompts", []) if isinstance(matrix, dict) else []
    files = [entry.get("file") if isinstance(entry, dict) else entry for entry in _listed(given)]
    return tuple(Path(file).stem for file in files if isinstance(file, str))


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


def _words(error: ErrorDetails, root: type[BaseModel] = Study) -> str:
    where = _dotted(error["loc"])
    if error["type"] == "extra_forbidden":
        known = _keys(root, error["loc"][:-1])
        close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else f" Keys there: {', '.join(known)}."
        return f"{where} is no key.{hint}"
    if error["type"] == "missing":
        return f"{where} is missing."
    message = error["msg"].removeprefix("Value error, ")
    # What a whole mapping gets wrong is said without the mapping.
    what = f"{where}: " if isinstance(error["input"], dict) else f"{where} = {error['input']!r}: "
    return f"{what}{message}" + ("" if message.endswith((".", "?")) else ".")


def _keys(kind: type[BaseModel], where: Loc) -> list[str]:
    """The keys of the mapping at `where`."""
    for part in where:
        if isinstance(part, str):
            field = next((f for name, f in kind.model_fields.items() if part in (f.alias, name)), None)
            kind = next(_parts(field.annotation), kind) if field else kind
    return [entry.alias or name for name, entry in kind.model_fields.items()]


def _parts(annotation: Any) -> Iterator[type[BaseModel]]:
    """The kinds of mapping that an annotation speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _parts(inner)
