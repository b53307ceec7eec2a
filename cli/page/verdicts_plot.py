"""What circuits do alone: faithfulness with its interval, beside the band of random circuits of the same size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bokeh.models import ColumnDataSource, FactorRange

from cli.page.plot import Plot, hover, plain, sheet
from cli.page.size_curve import CHANCE, RANKING

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812


@dataclass(frozen=True)
class Judged:
    """A circuit under an ablation. random: the band that holds 95% of random circuits."""

    name: str
    value: float
    low: float
    high: float
    random: tuple[float, float] | None


def verdicts_plot(name: str, title: str, circuits: Sequence[Judged]) -> Plot:
    """One row a circuit and ablation, the first on top."""
    drawn = sheet(
        34 * len(circuits) + 90, y_range=FactorRange(factors=[plain(c.name) for c in reversed(circuits)])
    )
    drawn.xaxis.axis_label = "faithfulness (0: everything replaced, 1: the whole model)"
    drawn.ygrid.visible = False
    bands = [circuit for circuit in circuits if circuit.random is not None]
    if bands:
        chance = ColumnDataSource(
            {
                "name": [plain(circuit.name) for circuit in bands],
                "low": [circuit.random[0] for circuit in bands if circuit.random],
                "high": [circuit.random[1] for circuit in bands if circuit.random],
            }
        )
        words = "95% of random circuits of the same size"
        drawn.hbar(
            "name", left="low", right="high", height=0.5, source=chance, fill_alpha=0.45, color=CHANCE,
            legend_label=words,
        )  # fmt: skip
    _points(drawn, circuits)
    drawn.add_layout(drawn.legend[0], "above")
    drawn.legend.update(
        orientation="horizontal", label_text_font_size="11px", padding=2, border_line_color=None
    )
    text = "; ".join(f"{c.name}: {c.value:.2f} [{c.low:.2f}, {c.high:.2f}]" for c in circuits)
    return Plot(
        name, (drawn,), title, "Points with 95% bootstrap intervals over judged prompts.", text, widest=760
    )


def _points(drawn: Figure, circuits: Sequence[Judged]) -> None:
    source = ColumnDataSource(
        {
            "name": [plain(circuit.name) for circuit in circuits],
            "value": [circuit.value for circuit in circuits],
            "low": [circuit.low for circuit in circuits],
            "high": [circuit.high for circuit in circuits],
        }
    )
    drawn.segment("low", "name", "high", "name", source=source, line_width=2.5, line_color=RANKING)
    dots = drawn.scatter("value", "name", source=source, size=9, color=RANKING, legend_label="the circuit")
    drawn.add_tools(
        hover([dots], {"circuit": "@name", "faithfulness": "@value{0.00} [@low{0.00}, @high{0.00}]"})
    )
