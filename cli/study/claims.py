"""Who is at work on which folder of a study: a locked file beside it, so that two processes share the cells.

The one idea: a claim spares double work and decides nothing. It dies with its process, and a folder still counts as
done only by being there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from circuits.locks import locked
from circuits.runs import remove_left_overs


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether `folder` is this process's to make: false while another one is at it."""
    file = claim_of(folder)
    with suppress(OSError):  # what cannot be claimed is made all the same, or fails by its own name
        folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(file) as lock:
        try:
            yield lock != "theirs"
        finally:
            if lock != "theirs":
                with suppress(OSError):
                    file.unlink(missing_ok=True)


def claim_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.claim")


def clean(study: Path) -> None:
    """Takes away what killed processes left in a study's folder: claims, and folders half written."""
    for place in (entry for entry in study.iterdir() if entry.is_dir()):
        remove_left_overs(place)
        for file in place.glob(".*.claim"):
            with locked(file) as lock, suppress(OSError):
                if lock == "ours":
                    file.unlink(missing_ok=True)
