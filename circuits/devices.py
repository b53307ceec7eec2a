"""Devices and dtypes: what --device and --dtype mean on this machine, and where a model goes.

The one idea: torch.accelerator knows whatever kind of accelerator there is, so names of devices are read here and
nowhere else; all other code says model.device. A dtype is tried out on the device rather than looked up in a table.

Tested on CPUs: which cards are there and what is free on them are stand-ins in the tests, and that nothing of a
model on two cards meets across them is shown with torch's fake tensors. No test has run on a real card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from circuits.errors import CircuitError
from circuits.memory import free_bytes, spell_bytes

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CPU = torch.device("cpu")

ROOM = 0.8
"""The share of a card's free memory that weights may take; the rest is for activations."""


@dataclass(frozen=True)
class Placement:
    """Where a model's weights go.

    device: where they lie; the first of several where the model is spread. shares: index of a card -> bytes of
    weights that it may hold; empty where one device holds them all.
    """

    device: torch.device
    shares: Mapping[int, int] = field(default_factory=dict)


def dtype_named(name: str) -> torch.dtype:
    """Raises CircuitError for a dtype that models are not loaded in."""
    if name not in DTYPES:
        raise CircuitError(f"There is no dtype {name!r}. Known: {', '.join(DTYPES)}.")
    return DTYPES[name]


def accelerators() -> tuple[torch.device, ...]:
    """Every card that torch can use on this machine: cuda:0, cuda:1 ..., or mps:0."""
    kind = torch.accelerator.current_accelerator(check_available=True)
    return tuple(torch.device(kind.type, i) for i in range(torch.accelerator.device_count())) if kind else ()


def place(name: str, dtype: torch.dtype, weights: int) -> Placement:
    """Where a model of `weights` bytes goes under --device `name`.

    auto: the first card with room for it, else all cards together, and the CPU where there is no card.
    balanced: all cards together, whether or not one would do.
    Raises CircuitError for a device that is not here, lacks the dtype, or is too small for the weights.
    """
    cards = accelerators()
    if name == "balanced" and len(cards) < 2:
        raise CircuitError(f"--device balanced spreads a model over several cards; {_inventory()}.")
    if name == "balanced":
        placement = _spread(cards)
    elif name == "auto":
        placement = _automatic(cards, weights)
    else:
        placement = Placement(device_named(name))
    require_dtype(placement.device, dtype)
    _require_room(placement, weights)
    return placement


def device_named(name: str) -> torch.device:
    """The device that `name` spells ("cpu", "cuda", "cuda:1", "mps"). Raises CircuitError where it is not here."""
    try:
        wanted = torch.device(name)
    except RuntimeError:
        raise CircuitError(
            f"There is no device {name!r}. Write auto, cpu, cuda, cuda:1, mps or balanced; {_inventory()}."
        ) from None
    for device in (CPU, *accelerators()):
        if (device.type, device.index or 0) == (wanted.type, wanted.index or 0):
            return device
    raise CircuitError(
        f"Device {name!r} cannot be used: {_inventory()}, as far as torch {torch.__version__} can see. "
        "Use --device cpu, or install a build of torch for your card."
    )


def require_dtype(device: torch.device, dtype: torch.dtype) -> None:
    """Raises CircuitError where `device` cannot compute in `dtype`, with the dtypes that it can."""
    reason = _failure(device, dtype)
    if reason is None:
        return
    works = [name for name, other in DTYPES.items() if _failure(device, other) is None]
    if not works:
        raise CircuitError(f"Device {device} cannot be used ({reason}). Use --device cpu.")
    name = str(dtype).removeprefix("torch.")
    raise CircuitError(
        f"Device {device} cannot compute in {name} ({reason}). Use --dtype {' or '.join(works)}, or another --device."
    )


def _failure(device: torch.device, dtype: torch.dtype) -> str | None:
    """What goes wrong when `device` multiplies and normalises in `dtype`; None where nothing does."""
    try:
        square = torch.ones(8, 8, dtype=dtype, device=device)
        share = (square @ square).softmax(-1)[0, 0].item()
    except (RuntimeError, TypeError, AssertionError) as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return None if share == 1 / 8 else f"its softmax gives {share} for 1/8"


def _automatic(cards: Sequence[torch.device], weights: int) -> Placement:
    roomy = next((card for card in cards if weights <= ROOM * free_bytes(card)), None)
    if roomy is None and len(cards) > 1:
        return _spread(cards)
    return Placement(roomy or next(iter(cards), CPU))


def _spread(cards: Sequence[torch.device]) -> Placement:
    return Placement(cards[0], {card.index: int(ROOM * free_bytes(card)) for card in cards})


def _require_room(placement: Placement, weights: int) -> None:
    if placement.device == CPU:
        return
    free = sum(placement.shares.values()) or free_bytes(placement.device)
    if weights > free:
        where = f"{len(placement.shares)} cards have" if placement.shares else f"{placement.device} has"
        raise CircuitError(
            f"The weights take {spell_bytes(weights)} and {where} {spell_bytes(free)} free for them. "
            "Use a smaller --dtype or model, or --device cpu"
            + (" or balanced." if not placement.shares and len(accelerators()) > 1 else ".")
        )


def _inventory() -> str:
    return f"this machine has {', '.join(str(device) for device in (CPU, *accelerators()))}"
