"""What a study's YAML file says: a matrix of discoveries, their options, and what to do with the circuits.

The one idea: the file is checked whole before anything runs, so all that can be wrong with it is said here, in types.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    model_validator,
)
from pydantic_core import CoreSchema

from circuits.errors import CircuitError, UnknownNameError

Axis = Literal["task", "model", "method", "seed"]
AXES: tuple[Axis, ...] = ("task", "model", "method", "seed")
RULES = ("top", "threshold", "significance", "smallest", "prune")
"""Ways to select a circuit, of which a cell has one."""


def listed(value: Any) -> Any:
    """A list for what may be given as its only entry."""
    return value if isinstance(value, list | tuple) else [value]


class _OrOne:
    """Lets a JSON schema take one value where a list is meant."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        listed = handler(core)
        return {"anyOf": [listed["items"], listed]}


OR_ONE = (BeforeValidator(listed), _OrOne())
"""Annotates a list that the file may give as its only entry."""


def _known_task(name: str, info: ValidationInfo) -> str:
    """A task, with a form or without; one of a user's file, my_task.py; or a file of `matrix.prompts` by its stem."""
    from tasks import TASKS
    from tasks.own import split_form

    own = tuple(info.context or ())
    task, form = split_form(name)
    if name in own:
        return name
    try:
        TASKS.require(task, own)
    except CircuitError as problem:
        raise ValueError(str(problem)) from None
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
    metric: Literal["logit-difference", "probability-difference", "log-probability-difference"] | None = None
    answers: Literal["one-token", "first-token", "whole-string"] | None = None
    top: int | None = Field(None, ge=1)
    threshold: float | None = Field(None, ge=0, le=1)
    significance: float | None = Field(None, ge=0, le=1)
    correction: Literal["holm", "bonferroni", "benjamini-hochberg"] | None = None
    smallest: float | None = Field(None, ge=0)
    prune: float | None = Field(None, ge=0)
    verify: int | None = Field(None, ge=1)
    missed: int | None = Field(None, ge=40)
    min_accuracy: float | None = Field(None, ge=0, le=1)
    keep_solved: bool = False
    judge_on: Literal["prompts", "templates"] = "prompts"
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

    corrupt: the corrupted twins, where both files are JSON lists of [prompt, label]. corrupt-column, make-corrupt: as
    options of `circuit discover`.
    """

    file: Path
    corrupt: Path | None = None
    corrupt_column: str | None = None
    make_corrupt: Literal["resample", "mean"] | None = None

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
    """title: what the report is called; the file's name if not given."""

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
