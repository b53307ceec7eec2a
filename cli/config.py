"""Options from a YAML file: the keys are the command's own option names, and the command line wins over it."""

from __future__ import annotations

from pathlib import Path

import typer

from cli.guard import guarded_option

# Options that take several values, as the command line repeats them.
REPEATED = {"method", "set"}


@guarded_option
def use_config(context: typer.Context, path: Path | None) -> Path | None:
    """Takes the file's values for the options that the command line does not give.

    Raises CircuitError for a file that is no YAML mapping, and for keys that are no options, all at once.
    """
    if path is not None:
        names = {p.opts[0].lstrip("-") if p.opts else p.name: p.name for p in context.command.params}
        values = _read(path, {str(name) for name in names} - {"config", "help"})
        context.default_map = {str(names[key]): value for key, value in values.items()}
    return path


def _read(path: Path, known: set[str]) -> dict[str, object]:
    import yaml

    from circuits.errors import CircuitError

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CircuitError(f"Config {path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CircuitError(f"Config {path} is no YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise CircuitError(f"Config {path} must be a mapping such as `task: ioi`, one option a line.")
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        raise CircuitError(
            f"Config {path} has keys that are no options: {', '.join(unknown)}. Known: {', '.join(sorted(known))}."
        )
    return {
        key: [value] if key in REPEATED and isinstance(value, str) else value for key, value in values.items()
    }
