"""--device and --dtype: what they mean on this machine, and on machines with cards, by stand-ins."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from circuits.devices import (
    DTYPES,
    Placement,
    accelerators,
    device_named,
    dtype_named,
    place,
    require_dtype,
)
from circuits.errors import CircuitError

CPU = torch.device("cpu")
Machine = Callable[..., None]
GB = 10**9


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes it look as if there were cards of one kind, with so many bytes free, that compute in every dtype."""

    def build(kind: str | None, *free: int) -> None:
        current = None if kind is None else torch.device(kind)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: current)
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: len(free))
        monkeypatch.setattr("circuits.devices.free_bytes", lambda card: free[card.index])
        monkeypatch.setattr("circuits.devices._failure", lambda device, dtype: None)

    return build


@pytest.mark.parametrize(
    ("kind", "n", "names"), [(None, 0, []), ("cuda", 2, ["cuda:0", "cuda:1"]), ("mps", 1, ["mps:0"])]
)
def test_accelerators_are_what_torch_can_use(
    kind: str | None, n: int, names: list[str], machine: Machine
) -> None:
    machine(kind, *[GB] * n)
    assert [str(device) for device in accelerators()] == names


@pytest.mark.parametrize(
    ("name", "means"),
    [("cpu", "cpu"), ("cpu:0", "cpu"), ("cuda", "cuda:0"), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:1")],
)
def test_a_device_is_spelt_as_torch_spells_it(name: str, means: str, machine: Machine) -> None:
    machine("cuda", GB, GB)
    assert str(device_named(name)) == means


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cuda:-1", "CUDA", "0", "cpu "])
def test_an_unknown_spelling_is_named_with_the_known_ones(name: str, machine: Machine) -> None:
    machine("cuda", GB)
    said = f"There is no device {name!r}. Write auto, cpu, .* this machine has cpu, cuda:0"
    with pytest.raises(CircuitError, match=said):
        device_named(name)


@pytest.mark.parametrize("name", ["cuda:2", "mps", "xpu", "meta", "cpu:1"])
def test_a_device_that_this_machine_lacks_is_told_from_what_it_has(name: str, machine: Machine) -> None:
    machine("cuda", GB, GB)
    with pytest.raises(
        CircuitError, match=f"{name!r} cannot be used: this machine has cpu, cuda:0, cuda:1, .*cpu"
    ):
        device_named(name)


def test_this_very_machine() -> None:
    """No stand-ins: whatever runs the tests has a CPU, and all dtypes work there."""
    for name, dtype in DTYPES.items():
        assert dtype_named(name) == dtype
        assert place("cpu", dtype, 10**18) == Placement(CPU)
    if not accelerators():
        assert place("auto", torch.float32, 10**18) == Placement(CPU)
        with pytest.raises(
            CircuitError, match=r"'cuda' cannot be used: this machine has cpu, .*--device cpu"
        ):
            place("cuda", torch.float32, 1)


def test_an_unknown_dtype_is_named_with_the_known_ones() -> None:
    with pytest.raises(CircuitError, match=r"no dtype 'float8'\. Known: float32, bfloat16, float16"):
        dtype_named("float8")


def test_a_dtype_that_the_device_cannot_compute_in_is_refused_with_those_it_can() -> None:
    """Nothing is simulated: no CPU multiplies 8-bit floats."""
    with pytest.raises(
        CircuitError,
        match=r"cpu cannot compute in float8_e4m3fn \(.+\).* --dtype float32 or bfloat16 or float16",
    ):
        require_dtype(CPU, torch.float8_e4m3fn)


def test_only_dtypes_that_work_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DTYPES, "bfloat16", torch.float8_e5m2)
    with pytest.raises(CircuitError, match=r"Use --dtype float32 or float16, or another --device\."):
        require_dtype(CPU, DTYPES["bfloat16"])


def test_a_device_that_computes_wrongly_or_in_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "softmax", lambda self, dim: self * 0)
    with pytest.raises(CircuitError, match=r"Device cpu cannot be used \(its softmax gives 0.0 for 1/8\)"):
        require_dtype(CPU, torch.float32)


@pytest.mark.parametrize(
    ("name", "free", "weights", "device", "shares"),
    [
        ("auto", (10, 10), 8, "cuda:0", {}),
        ("auto", (5, 10), 8, "cuda:1", {}),
        ("auto", (10, 10), 9, "cuda:0", {0: 8, 1: 8}),
        ("auto", (10,), 9, "cuda:0", {}),
        ("balanced", (10, 20), 1, "cuda:0", {0: 8, 1: 16}),
        ("cuda:1", (1, 10), 9, "cuda:1", {}),
        ("cpu", (10, 10), 999, "cpu", {}),
    ],
)
def test_where_a_model_goes(
    name: str, free: tuple[int, ...], weights: int, device: str, shares: dict[int, int], machine: Machine
) -> None:
    machine("cuda", *(n * GB for n in free))
    found = place(name, torch.float32, weights * GB)
    assert str(found.device) == device
    assert found.shares == {index: n * GB for index, n in shares.items()}


def test_without_cards_auto_is_the_cpu(machine: Machine) -> None:
    machine(None)
    assert place("auto", torch.float32, 999 * GB) == Placement(CPU)


@pytest.mark.parametrize(
    ("name", "free", "said"),
    [
        (
            "cuda",
            (10, 90),
            r"take 17\.0 GB and cuda:0 has 10\.0 GB free .*smaller --dtype.* --device cpu or balanced",
        ),
        ("auto", (10,), r"cuda:0 has 10\.0 GB free .* --device cpu\.$"),
        ("auto", (10, 10), r"2 cards have 16\.0 GB free for them\. .* --device cpu\.$"),
        ("balanced", (90,), r"several cards; this machine has cpu, cuda:0\."),
    ],
)
def test_weights_that_no_card_holds_are_refused_before_they_are_read(
    name: str, free: tuple[int, ...], said: str, machine: Machine
) -> None:
    machine("cuda", *(n * GB for n in free))
    with pytest.raises(CircuitError, match=said):
        place(name, torch.float32, 17 * GB)
