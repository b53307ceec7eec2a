"""Reads a study's YAML file, and what --set lays over it; every mistake is told by its line, all at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from circuits.errors import CircuitError
from cli.study.spec import Override, Study, listed


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
    return study.model_copy(update={"title": study.title or path.stem})


def _own_prompts(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the file's own prompts, which are not checked yet."""
    matrix = values.get("matrix")
    given = matrix.get("prompts", []) if isinstance(matrix, dict) else []
    files = [entry.get("file") if isinstance(entry, dict) else entry for entry in listed(given)]
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
