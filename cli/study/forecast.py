"""What the cells of a study are going to take, by the forecast of `circuit plan`.

The one idea: cells of one model, method and options cost about the same whatever their task and seed, so one of them
is forecast for all, and a study of a hundred cells is priced in the time of a few.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from circuits.errors import CircuitError
from cli.study.cells import Cell
from cli.study.runner import LastModel

if TYPE_CHECKING:
    from circuits.progress import Progress


class Price(NamedTuple):
    """seconds, bytes: of one cell, the model among the latter; None where nobody knows. unknown: what is not in
    them. problem: why the cell cannot begin."""

    cells: tuple[Cell, ...]
    seconds: float | None = None
    bytes: int | None = None
    unknown: tuple[str, ...] = ()
    problem: str = ""


def prices(waiting: Sequence[Cell], show: Progress) -> Iterator[Price]:
    """One for each kind of cell."""
    kinds: dict[str, list[Cell]] = {}
    for cell in waiting:
        options = {name: value for name, value in cell.options.items() if name != "prompts"}
        kind = json.dumps([cell.model, cell.method, options], default=str)
        kinds.setdefault(kind, []).append(cell)
    load = LastModel()
    for done, members in enumerate(kinds.values()):
        show("forecasting", done, len(kinds))
        yield _price(tuple(members), show, load)
    show("forecasting", len(kinds), len(kinds))


def _price(members: tuple[Cell, ...], show: Progress, load: LastModel) -> Price:
    """Of the first of them. Without loading the model, which is done once for many."""
    from circuits.calibration import Seconds
    from cli.discover import prepared
    from cli.plan import forecast

    try:
        ready = prepared(members[0].discover_options(), show, load)
        ahead = forecast(ready, Seconds())
    except CircuitError as problem:
        return Price(members, problem=str(problem))
    return Price(members, ahead.seconds.wall, ready.model.n_bytes + ahead.work.bytes, ahead.unknown)
