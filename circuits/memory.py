"""Memory: how much is free, how much of it work may take, and how to go on when it runs out.

The one idea: what a forward pass takes cannot be told to the byte beforehand, so rows are worked in chunks, and
a chunk that does not fit is halved and tried again, from the row where it stopped. Every kind of accelerator is
reached through torch.get_device_module, so none is named here but Apple's, which counts in words of its own.

Tested on CPUs; what is asked of accelerators is tested on stand-ins alone. Linux may kill a process that fills
the main memory before any allocation fails: no code can catch that, so a budget is the better guard there.
"""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import psutil
import torch

from circuits.errors import CircuitError

T = TypeVar("T")

UNITS = {
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
}
GIB = UNITS["gib"]

_RAN_OUT = ("out of memory", "can't allocate memory", "not enough memory", "_STATUS_ALLOC_FAILED")
"""How torch's allocators and the libraries under it say so where they raise a plain RuntimeError."""


def parse_bytes(text: str) -> int:
    """Bytes in "4GB", "512MiB", "1.5 GiB" (any case). Raises CircuitError for anything else, and for nothing."""
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*([a-z]+)\s*", text.lower())
    size = int(Fraction(found[1]) * UNITS.get(found[2], 0)) if found else 0
    if size < 1:
        raise CircuitError(
            f"{text!r} is no amount of memory. Write a number above 0 and its unit, such as 4GB or 512MiB."
        )
    return size


def spell_bytes(size: int) -> str:
    """`size` as people write it: "1.5 GB"."""
    unit = next((u for u in ("TB", "GB", "MB", "KB") if size >= UNITS[u.lower()]), None)
    return f"{size / UNITS[unit.lower()]:.1f} {unit}" if unit else f"{size} B"


def free_bytes(device: torch.device) -> int:
    """Bytes of `device` that are to be had, those that torch's cache holds in reserve included.

    On a CPU: what the system can give without swapping, and no more than this process's control groups allow.
    """
    if device.type == "cpu":
        return max(0, min([int(psutil.virtual_memory().available), *_left_by_groups()]))
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    module = torch.get_device_module(device)
    reserve = module.memory_reserved(device) - module.memory_allocated(device)
    return int(module.mem_get_info(device)[0] + reserve)


def _left_by_groups(
    membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """Bytes that each control group with a limit, of this process and above it, leaves (cgroup v1 and v2).

    Files in the page cache that nobody has used of late are given back when memory is asked for: they are free.
    """
    for line in _text(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = root, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # Inside a container the path may be the host's, and only the base is there to read.
        own = base / path.lstrip("/")
        for folder in (own, *own.parents):
            limit, used = (_text(folder / name).strip() for name in names[:2])
            if limit.isdigit() and used.isdigit():
                idle = re.search(rf"^{names[2]} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
                yield int(limit) - int(used) + (int(idle[1]) if idle else 0)
            if folder == base:
                break


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""


@dataclass(frozen=True)
class Budget:
    """total: the bytes that work may take on top of the model's weights."""

    total: int

    def rows(self, bytes_each: int) -> int:
        """How many rows of `bytes_each` the budget holds; one at least, for less cannot be worked."""
        return max(1, self.total // max(1, bytes_each))


def default_budget(device: torch.device) -> Budget:
    """The largest power of two that is at most half of what is free on `device`; on a CPU, where others work too,
    1 GiB at most. In steps of two, for results are rounded alike only where the budget is the same.
    """
    half = max(1, free_bytes(device) // 2)
    step = 1 << (half.bit_length() - 1)
    return Budget(min(step, GIB) if device.type == "cpu" else step)


def peak_bytes(device: torch.device) -> int | None:
    """The most memory held so far: by torch on an accelerator that counts it, else by the whole process.

    None where the system does not tell (Windows).
    """
    counted = getattr(torch.get_device_module(device), "max_memory_allocated", None)
    if counted is not None:
        return int(counted(device))
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that an allocation failed, of whichever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _RAN_OUT)


def in_chunks(n_rows: int, at_once: int, work: Callable[[slice], T]) -> list[T]:
    """What `work` gives for consecutive slices of range(n_rows), of `at_once` rows at most, in order.

    Where memory runs out, caches are emptied and chunks are halved from there on; no row is skipped, and none
    whose work was done is done again. Raises CircuitError where a single row does not fit.
    """
    parts: list[T] = []
    start, at_once = 0, max(1, at_once)
    while start < n_rows:
        stop = min(start + at_once, n_rows)
        try:
            parts.append(work(slice(start, stop)))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = (str(error).strip() or "the allocation failed").splitlines()[0]
        else:
            start = stop
            continue
        # Only here, out of the except clause, is the traceback gone, and with it the tensors of its frames.
        if stop - start == 1:
            raise CircuitError(
                f"Row {start + 1} of {n_rows} does not fit in memory even alone ({reason}). A smaller --memory or "
                "--batch-size does not help: use shorter prompts, a smaller model, another --device, "
                "or --dtype bfloat16."
            )
        _empty_caches()
        at_once = (stop - start) // 2
    return parts


def _empty_caches() -> None:
    """Gives back what garbage and torch's cache still hold."""
    gc.collect()
    if empty := getattr(torch.get_device_module(), "empty_cache", None):
        empty()
