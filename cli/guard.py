"""Exit codes: 2 and one clear message for the user's mistake, 3 and a traceback for ours, 130 for Ctrl-C."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import ParamSpec

import typer

from circuits.errors import CircuitError

P = ParamSpec("P")
MISTAKE, FAULT, INTERRUPTED = 2, 3, 130


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """`command` with every way to fail turned into its exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
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
        except typer.Exit:
            raise
        except Exception:
            traceback.print_exc()
            print(
                "\nThis is a fault of circuit, not of yours; nothing was written. "
                "Please report it with the lines above.",
                file=sys.stderr,
            )
            raise typer.Exit(FAULT) from None

    return run


def _say(message: str) -> None:
    from cli.render import error

    error(message)
