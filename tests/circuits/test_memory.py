"""Memory: amounts in words, what is free, and work that goes on after memory ran out."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits.errors import CircuitError
from circuits.memory import (
    GIB,
    UNITS,
    Budget,
    _left_by_groups,
    default_budget,
    free_bytes,
    in_chunks,
    is_out_of_memory,
    parse_bytes,
    peak_bytes,
    spell_bytes,
)

CPU, CARD = torch.device("cpu"), torch.device("cuda:1")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4_000_000_000),
        ("512MiB", 536_870_912),
        ("400 MB", 400_000_000),
        ("1.5GiB", 1_610_612_736),
        (" 0.1 tb ", 100_000_000_000),
        ("7b", 7),
        ("0.3KB", 300),
    ],
)
def test_amounts_of_memory_as_people_write_them(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "4",
        "4G",
        "-4GB",
        "0GB",
        "0.4B",
        "GB",
        "",
        "4 apples",
        "1e9GB",
        "4,5GB",
        "4GBs",
        "nanGB",
        "9" * 5000 + "GB",
    ],
)
def test_what_is_no_amount_of_memory_is_named_with_a_good_spelling(text: str) -> None:
    with pytest.raises(CircuitError, match=re.escape(repr(text)) + r".*4GB or 512MiB"):
        parse_bytes(text)


@given(st.integers(1, 10**14))
def test_an_amount_is_spelt_to_a_decimal(size: int) -> None:
    assert parse_bytes(spell_bytes(size)) == pytest.approx(size, rel=0.05)


@given(st.integers(1, 10**6), st.sampled_from(sorted(UNITS)))
def test_a_unit_multiplies(n: int, unit: str) -> None:
    assert parse_bytes(f"{n}{unit}") == n * parse_bytes(f"1 {unit.upper()}")


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="Linux tells it in /proc")
def test_what_is_free_is_what_the_system_says_unless_a_group_allows_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    available = re.search(r"MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text())
    assert available is not None
    monkeypatch.setattr("circuits.memory._left_by_groups", lambda: iter([2**60]))
    assert free_bytes(CPU) == pytest.approx(int(available[1]) * 1024, rel=0.2)
    monkeypatch.setattr("circuits.memory._left_by_groups", lambda: iter([2**60, 12345]))
    assert free_bytes(CPU) == 12345
    monkeypatch.setattr("circuits.memory._left_by_groups", lambda: iter([-5]))
    assert free_bytes(CPU) == 0


def _group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{text}\n")


def _groups(root: Path, membership: str) -> list[int]:
    (root / "membership").write_text(membership)
    return list(_left_by_groups(root / "membership", root))


def test_every_control_group_above_the_process_counts(tmp_path: Path) -> None:
    _group(tmp_path / "a" / "b", memory_max="max", memory_current=10)
    _group(
        tmp_path / "a", memory_max=1000, memory_current=700, memory_stat="active_file 90\ninactive_file 50"
    )
    _group(tmp_path, memory_max=2000, memory_current=900)
    assert _groups(tmp_path, "0::/a/b\n") == [350, 1100]


def test_older_control_groups_are_read_as_well(tmp_path: Path) -> None:
    _group(
        tmp_path / "memory" / "job",
        memory_limit_in_bytes=500,
        memory_usage_in_bytes=400,
        memory_stat="inactive_file 7\ntotal_inactive_file 30",
    )
    _group(tmp_path / "memory", memory_limit_in_bytes=2**63 - 4096, memory_usage_in_bytes=900)
    assert _groups(tmp_path, "9:name=systemd:/\n4:cpu,memory:/job\n0::/\n") == [130, 2**63 - 4096 - 900]


def test_inside_a_container_the_path_may_be_the_hosts(tmp_path: Path) -> None:
    _group(tmp_path, memory_max=300, memory_current=100)
    assert _groups(tmp_path, "0::/docker/4f2a\n") == [200]
    assert list(_left_by_groups(tmp_path / "no-such-file", tmp_path)) == []


def _stand_in(monkeypatch: pytest.MonkeyPatch, **functions: object) -> None:
    """A device module of an accelerator that is not here."""
    monkeypatch.setattr(torch, "get_device_module", lambda device=None: SimpleNamespace(**functions))


def test_what_is_free_on_a_card_is_what_it_has_and_what_torch_keeps_in_reserve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = {CARD: (100, 500)}
    _stand_in(
        monkeypatch,
        mem_get_info=free.__getitem__,
        memory_reserved=lambda device: 30,
        memory_allocated=lambda device: 10,
        max_memory_allocated={CARD: 77}.__getitem__,
    )
    assert free_bytes(CARD) == 120
    assert default_budget(CARD) == Budget(32)
    assert peak_bytes(CARD) == 77


def test_apples_memory_is_what_it_recommends_less_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 100)
    for held, free in ((40, 60), (140, 0)):
        monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda held=held: held)
        assert free_bytes(torch.device("mps")) == free


@pytest.mark.parametrize(
    ("free", "total"), [(GIB, GIB // 2), (2 * GIB - 9, GIB // 2), (100 * GIB, GIB), (0, 1)]
)
def test_on_a_cpu_the_budget_is_no_more_than_half_of_what_is_free_nor_than_a_gibibyte(
    free: int, total: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("circuits.memory.free_bytes", lambda device: free)
    assert default_budget(CPU) == Budget(total)


def test_a_budget_holds_one_row_at_least() -> None:
    assert [Budget(100).rows(size) for size in (10, 33, 100, 101, 0)] == [10, 3, 1, 1, 100]


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="Linux tells it in /proc")
def test_the_peak_is_the_processs_own_and_grows_with_it() -> None:
    before = peak_bytes(CPU)
    assert before is not None
    held = torch.ones(max(0, before - _resident()) // 4 + 2**24)
    peak = peak_bytes(CPU)
    assert peak is not None
    assert peak > before
    assert peak == pytest.approx(_status("VmHWM"), rel=0.02)
    assert len(held) > 0


def _status(name: str) -> int:
    (kilobytes,) = re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes) * 1024


def _resident() -> int:
    return _status("VmRSS")


def _too_large_for_torch() -> None:
    torch.empty(10**15)


def _too_large_for_numpy() -> None:
    np.empty(10**15)


def _raising(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


RAN_OUT = {
    "torch on a CPU": _too_large_for_torch,
    "numpy": _too_large_for_numpy,
    "a card": _raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
    "Apple's": _raising(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)")),
    "Windows": _raising(
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")
    ),
    "a library": _raising(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")),
}


@pytest.mark.parametrize("fail", RAN_OUT.values(), ids=RAN_OUT)
def test_running_out_of_memory_is_known_in_all_its_forms(fail: Callable[[], None]) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as failed:
        fail()
    assert is_out_of_memory(failed.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory"), KeyError()])
def test_other_errors_are_no_lack_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)


@settings(max_examples=15)
@given(
    n_rows=st.integers(0, 60),
    at_once=st.integers(0, 70),
    fits=st.lists(st.integers(1, 70), min_size=60, max_size=60),
)
def test_every_row_is_worked_once_and_in_order_however_little_fits(
    n_rows: int, at_once: int, fits: list[int]
) -> None:
    """fits: how many rows do, by the first of them, so that memory may run out anywhere."""
    done: list[int] = []
    tried = 0

    def work(rows: slice) -> list[int]:
        nonlocal tried
        tried += 1
        inside = list(range(n_rows))[rows]
        assert 0 < len(inside) <= max(1, at_once)
        if len(inside) > fits[rows.start]:
            raise MemoryError
        done.extend(inside)
        return inside

    parts = in_chunks(n_rows, at_once, work)
    assert [row for part in parts for row in part] == done == list(range(n_rows))
    assert tried - len(parts) <= 7  # halvings of 70


@pytest.mark.parametrize("fail", RAN_OUT.values(), ids=RAN_OUT)
def test_chunks_are_halved_when_memory_runs_out(fail: Callable[[], None]) -> None:
    def work(rows: slice) -> int:
        if rows.stop - rows.start > 3:
            fail()
        return rows.stop - rows.start

    assert in_chunks(20, 12, work) == [3, 3, 3, 3, 3, 3, 2]


def test_what_a_failed_chunk_held_is_let_go_before_the_next_is_tried() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    def work(rows: slice) -> int:
        assert not [held for held in alive if held() is not None]
        tensor = torch.zeros(4)
        alive.append(weakref.ref(tensor))
        if rows.stop - rows.start > 1:
            _too_large_for_torch()
        return len(tensor)

    assert in_chunks(8, 8, work) == [4] * 8
    assert len(alive) == 11


def test_a_row_that_does_not_fit_alone_is_the_users_to_mend() -> None:
    def work(rows: slice) -> None:
        if rows.stop > 5:
            _too_large_for_torch()

    said = r"Row 6 of 9 does not fit .*allocate 4000000000000000 bytes.*--memory.*not help.*--dtype bfloat16"
    with pytest.raises(CircuitError, match=said) as failed:
        in_chunks(9, 4, work)
    assert failed.value.__context__ is None


def test_other_errors_pass_through_at_once() -> None:
    tried = []

    def work(rows: slice) -> None:
        tried.append(rows)
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        in_chunks(9, 4, work)
    assert tried == [slice(0, 4)]


def test_the_caches_of_an_accelerator_are_emptied_before_the_next_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []
    _stand_in(monkeypatch, empty_cache=lambda: events.append("emptied"))

    def work(rows: slice) -> None:
        events.append(f"{rows.start}-{rows.stop}")
        if rows.stop - rows.start > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    in_chunks(2, 2, work)
    assert events == ["0-2", "emptied", "0-1", "1-2"]
