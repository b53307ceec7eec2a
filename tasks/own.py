"""A user's own tasks: functions under `@task`, in a Python file of one's own or in an installed package.

    from tasks.own import pair, task

    CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid"}

    @task
    def capitals(rng, lexicon):
        \"\"\"Capitals: the capital of a country.\"\"\"
        country, other = rng.sample(lexicon.single("countries", list(CAPITALS)), 2)
        return pair(
            "The capital of {COUNTRY} is",
            clean={"COUNTRY": country},
            corrupt={"COUNTRY": other},
            answer=" " + CAPITALS[country],
            distractor=" " + CAPITALS[other],
        )

The one idea: whatever names a task may name a file, `my_task.py` or, where it holds several, `my_task.py:capitals`;
so every command, study and worker finds it without being told of it first. Packages give tasks names of their own by
the entry-point group `circuit.tasks`.
"""

from __future__ import annotations

import hashlib
import inspect
import random
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import overload

from circuits.errors import CircuitError, PromptError, UnknownNameError
from circuits.prompts import PromptPair
from tasks.task import Generator, Lexicon, Task
from tasks.templates import end, fill

ARGUMENTS = ("rng", "lexicon", "form", "corruption")
AS_IT_IS = {
    "forms": {"plain": "as the function makes it"},
    "corruptions": {"other": "as the function makes it"},
}
MOST = 100_000
"""Pairs that a function may list."""

Function = Callable[..., PromptPair | Iterable[PromptPair]]


@dataclass(frozen=True)
class OwnTask(Task):
    """A task that a function under `@task` makes. file, sha256: where it stands and what that file holds."""

    file: str = ""
    sha256: str = ""


@overload
def task(function: Function) -> OwnTask: ...
@overload
def task(
    *,
    name: str | None = None,
    forms: Mapping[str, str] = ...,
    corruptions: Mapping[str, str] = ...,
    metric: str = ...,
    paper: str = ...,
) -> Callable[[Function], OwnTask]: ...
def task(
    function: Function | None = None,
    *,
    name: str | None = None,
    forms: Mapping[str, str] = AS_IT_IS["forms"],
    corruptions: Mapping[str, str] = AS_IT_IS["corruptions"],
    metric: str = "logit-difference",
    paper: str = "",
) -> OwnTask | Callable[[Function], OwnTask]:
    """Makes a task of a function that returns a pair, or lists or yields all that there are.

    The function takes what it names of rng, lexicon, form and corruption; its docstring's first line is the summary.
    forms, corruptions: name -> what it means, the default first.
    """
    if function is None:
        return lambda function: task(
            function, name=name, forms=forms, corruptions=corruptions, metric=metric, paper=paper
        )  # type: ignore[call-overload]
    code = getattr(function, "__code__", None)
    if code is None:
        raise CircuitError(f"@task stands above {function!r}, which is no function.")
    called = name or code.co_name.replace("_", "-")
    return OwnTask(
        name=called,
        summary=(inspect.getdoc(function) or called).splitlines()[0],
        paper=paper,
        metric=metric,
        forms=dict(forms),
        corruptions=dict(corruptions),
        generate=_generator(function, called),
        file=code.co_filename,
    )


def pair(
    template: str,
    *,
    clean: Mapping[str, str],
    corrupt: Mapping[str, str],
    answer: str,
    distractor: str,
    negative: Mapping[str, str] | None = None,
) -> PromptPair:
    """A pair of one template: `corrupt` and `negative` say which words of `clean` change.

    A slot in capitals, {NAME}, is a named position. Raises PromptError for a slot without a word, and for a word
    without a slot.
    """
    text, spans = _filled(template, clean)
    return PromptPair(
        clean=text,
        corrupt=_filled(template, {**clean, **corrupt})[0],
        answers=(answer,),
        distractors=(distractor,),
        positions={slot: span for slot, span in spans.items() if slot.isupper()} | {"END": end(text)},
        negative=_filled(template, {**clean, **negative})[0] if negative else "",
        template=template,
        key="|".join(clean.values()),
    )


def _filled(template: str, words: Mapping[str, str]) -> tuple[str, dict[str, tuple[int, int]]]:
    try:
        text, spans = fill(template, words)
    except KeyError as slot:
        raise PromptError(
            f"the template {template!r} has the slot {{{slot.args[0]}}}, for which there is no word. "
            f"Words: {', '.join(words)}."
        ) from None
    except ValueError as problem:
        raise PromptError(f"the template {template!r} cannot be read ({problem}).") from None
    if unused := [word for word in words if word not in spans]:
        raise PromptError(
            f"the template {template!r} has no slot {{{unused[0]}}}. Slots: {', '.join(spans)}."
        )
    return text, spans


def _generator(function: Function, called: str) -> Generator:
    """The function as a task's generator; what goes wrong in it is told by file and line."""
    code = function.__code__
    place = f"{Path(code.co_filename).name}, line {code.co_firstlineno}: @task {called}"
    wanted = tuple(inspect.signature(function).parameters)
    if unknown := [name for name in wanted if name not in ARGUMENTS]:
        raise CircuitError(f"{place} takes {unknown[0]!r}. It may take any of {', '.join(ARGUMENTS)}.")
    listed: dict[tuple[int, str, str], tuple[Lexicon, tuple[PromptPair, ...]]] = {}

    def generate(rng: random.Random, lexicon: Lexicon, form: str, corruption: str) -> PromptPair:
        which = id(lexicon), form, corruption
        if which not in listed:
            given = dict(zip(ARGUMENTS, (rng, lexicon, form, corruption), strict=True))
            with _told_by_line(code.co_filename):
                made = function(**{name: given[name] for name in wanted})
                if isinstance(made, PromptPair):
                    return made
                # The lexicon is kept so that no other has its id.
                listed[which] = lexicon, _listed(made, place)
        return rng.choice(listed[which][1])

    return generate


def _listed(made: object, place: str) -> tuple[PromptPair, ...]:
    pairs: list[PromptPair] = []
    for one in made if isinstance(made, Iterable) and not isinstance(made, str | Mapping) else [made]:
        if not isinstance(one, PromptPair):
            raise PromptError(
                f"{place} made {str(one)[:60]!r}, a {type(one).__name__}. It must return tasks.own.pair(...), or "
                "yield several."
            )
        if len(pairs) == MOST:
            raise PromptError(f"{place} yields more than {MOST:,} pairs. Return one, drawn with rng.")
        pairs.append(one)
    if not pairs:
        raise PromptError(f"{place} yields no pair.")
    return tuple(pairs)


@contextmanager
def _told_by_line(file: str) -> Iterator[None]:
    """Whatever the user's code raises, as one CircuitError that says where in the file."""
    try:
        yield
    except SyntaxError as error:
        raise CircuitError(
            f"{file}, line {error.lineno}: no Python that can be read ({error.msg})."
        ) from None
    except (Exception, SystemExit) as error:
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file
        ]
        where = f"{Path(file).name}, line {lines[-1]}" if lines else Path(file).name
        if isinstance(error, CircuitError):
            if str(error).startswith(Path(file).name):
                raise
            raise CircuitError(f"{where}: {error}") from None
        raise CircuitError(
            f"{where}: {type(error).__name__}: {error}. The task's own code raised this; mend it there."
        ) from error


_FORM_BEHIND = re.compile(r"(.*\.py(?::[^/]+)?)(?:/([^/]*))?")


def split_form(name: str) -> tuple[str, str]:
    """Task and form of `ioi/plain` and of `folder/my_task.py:capitals/plain`; no form is an empty one."""
    found = _FORM_BEHIND.fullmatch(name)
    task, _, form = name.partition("/")
    return (found[1], found[2] or "") if found else (task, form)


def split_reference(reference: str) -> tuple[Path, str] | None:
    """File and task name of `my_task.py` and `my_task.py:capitals`; None for what names no file."""
    file, _, name = reference.partition(".py:")
    if name or reference.endswith(".py:"):
        return Path(f"{file}.py"), name
    return (Path(reference), "") if reference.endswith(".py") else None


def load_file(path: Path, name: str = "") -> OwnTask:
    """The task `name` of the file, or its only one. Raises CircuitError that says what is wrong, and where."""
    found = tasks_of(path)
    if name:
        if name not in found:
            raise UnknownNameError(f"task of {path}", name, found)
        return found[name]
    if len(found) > 1:
        raise CircuitError(
            f"{path} holds the tasks {', '.join(found)}. Say which: {path}:{next(iter(found))}."
        )
    return next(iter(found.values()))


def tasks_of(path: Path) -> dict[str, OwnTask]:
    """Every task of the file, by name. Runs the file."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise CircuitError(f"Task file {path} cannot be read: {error.strerror}.") from None
    return _tasks_in(path, source)


@lru_cache(maxsize=64)
def _tasks_in(path: Path, source: bytes) -> dict[str, OwnTask]:
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    with _told_by_line(str(path)), _beside(path.parent):
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    digest = hashlib.sha256(source).hexdigest()
    own = [value for value in vars(module).values() if isinstance(value, OwnTask) and value.file == str(path)]
    if not own:
        raise CircuitError(
            f"{path} has no function under @task. Put `from tasks.own import pair, task` at its top, and @task above "
            "the function that makes a pair."
        )
    if twice := [one.name for one in own if [other.name for other in own].count(one.name) > 1]:
        raise CircuitError(f"{path} has two tasks of the name {twice[0]}.")
    return {one.name: replace(one, file=path.name, sha256=digest) for one in own}


@contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """Lets a file import what lies beside it, as a script can."""
    sys.path.insert(0, str(folder.absolute()))
    try:
        yield
    finally:
        sys.path.remove(str(folder.absolute()))
