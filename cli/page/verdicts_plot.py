"""What circuits do alone: faithfulness with its interval, beside the band of random circuits of the same size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bokeh.models import ColumnDataSource, FactorRange

from cli.page.plot import Plot, hover, legend_above, plain, sheet
from cli.page.size_curve import CHANCE, RANKING

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812


@dataclass(frozen=True)
class Judged:
    """A circuit under an ablation: its faithfulness, and random circuits of its size, as evaluation.json has them."""

    name: str
    faithfulness: Any
    random: Any


def verdicts_plot(name: str, title: str, circuits: Sequence[Judged]) -> Plot:
    """One row a circuit and ablation, the first on top."""
    rows = FactorRange(factors=[plain(circuit.name) for circuit in reversed(circuits)])
    drawn = sheet(34 * len(circuits) + 90, y_range=rows)
    drawn.xaxis.axis_label = "faithfulness (0: everything replaced, 1: the whole model)"
    drawn.ygrid.visible = False
    _draw(drawn, circuits)
    legend_above(drawn)
    text = "; ".join(f"{c.name}: {_words(c.faithfulness, c.random)}" for c in circuits)
    caption = "Points with 95% bootstrap intervals over judged prompts."
    return Plot(name, (drawn,), title, caption, text, widest=760)


def _words(found: Any, random: Any) -> str:
    interval = f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
    return f"{interval}, random circuits {random.low:.2f} to {random.high:.2f}"


def _draw(drawn: Figure, circuits: Sequence[Judged]) -> None:
    chance = _source(circuits, [circuit.random for circuit in circuits], ("low", "high"))
    words = "95% of random circuits of the same size"
    look: dict[str, Any] = {"fill_alpha": 0.45, "color": CHANCE, "legend_label": words}
    drawn.hbar("name", left="low", right="high", height=0.5, source=chance, **look)
    found = _source(circuits, [circuit.faithfulness for circuit in circuits], ("value", "low", "high"))
    drawn.segment("low", "name", "high", "name", source=found, line_width=2.5, line_color=RANKING)
    dots = drawn.scatter("value", "name", source=found, size=9, color=RANKING, legend_label="the circuit")
    rows = {"circuit": "@name", "faithfulness": "@value{0.00} [@low{0.00}, @high{0.00}]"}
    drawn.add_tools(hover([dots], rows))


def _source(circuits: Sequence[Judged], values: Sequence[Any], parts: Sequence[str]) -> ColumnDataSource:
    columns = {part: [getattr(value, part) for value in values] for part in parts}
    return ColumnDataSource({"name": [plain(circuit.name) for circuit in circuits], **columns})
