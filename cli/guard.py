"""Exit codes: 2 and one clear message for the user's mistake, 3 and a traceback for ours, 130 for Ctrl-C."""

from __future__ import annotations

import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, ParamSpec, TypeVar

import typer

from circuits.errors import CircuitError

P = ParamSpec("P")
T = TypeVar("T")
MISTAKE, FAULT, INTERRUPTED = 2, 3, 130
NO_MEMORY = (
    "There is not enough memory. Try a smaller --memory or --batch-size, shorter prompts, --dtype bfloat16, "
    "or a smaller model."
)


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """`command` with every way to fail turned into its exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with _exit_codes(), _stopping_like_ctrl_c():
            command(*args, **kwargs)

    return run


def guarded_option(callback: Callable[P, T]) -> Callable[P, T]:
    """The callback of an option, its mistakes reported like a command's."""

    @functools.wraps(callback)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with _exit_codes():
            return callback(*args, **kwargs)

    return run


@contextmanager
def _exit_codes() -> Iterator[None]:
    try:
        yield
    except CircuitError as error:
        _say(str(error))
        raise typer.Exit(MISTAKE) from None
    except KeyboardInterrupt:
        print("\nInterrupted; nothing was written.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # The reader of our output went away (`| head`): no fault of anyone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if out_of_memory(error):
            _say(NO_MEMORY)
            raise typer.Exit(MISTAKE) from None
        traceback.print_exc()
        print(
            "\nThis is a fault of circuit, not of yours; nothing was written. "
            "Please report it with the lines above.",
            file=sys.stderr,
        )
        raise typer.Exit(FAULT) from None


def out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed; torch, which takes long to import, says so by RuntimeErrors."""
    if not isinstance(error, RuntimeError):
        return isinstance(error, MemoryError)
    from circuits.memory import is_out_of_memory

    return is_out_of_memory(error)


@contextmanager
def _stopping_like_ctrl_c() -> Iterator[None]:
    """A polite kill (SIGTERM) cleans up as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _say(message: str) -> None:
    from cli.render import error

    error(message)
