"""What heads do: heads by roles, coloured by how far each head has the role.

The one idea: a table of all heads is mostly empty, so a picture holds those that have some role more than the others
do; a number stands where a head has the role more than chance gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from cli.report.figure import colour_bar, draw_cells, ink_on, paper_style
from cli.report.sheet import COLUMN, EDGE, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEVEL = 0.05
_ROW, _BAR, _LETTER = 0.115, 0.5, 0.048
_MOST = 24


def roles_figure(roles: Mapping[str, Mapping[str, Any]], title: str, width: float = COLUMN) -> Figure:
    """roles: what heads.json has of each: its heads with score and p_value, and its chance level."""
    heads = chosen_heads(roles)
    values = np.array([[roles[role]["heads"][head]["score"] for role in roles] for head in heads])
    sure = np.array([[roles[role]["heads"][head]["p_value"] <= LEVEL for role in roles] for head in heads])
    left = EDGE + _LETTER * max(map(len, heads)) + 0.04
    names = EDGE + _LETTER * max(map(len, roles))
    height = _ROW * len(heads)
    n = len(next(iter(roles.values()))["heads"])
    notes = (
        f"{len(heads)} of {n} heads, those with the highest scores of each role",
        f"colour: score, from 0 to 1; a number: above chance, p at most {LEVEL:g} (Holm over heads)",
    )
    page = sheet(width, names + height, title, notes)
    scale = ScalarMappable(Normalize(0, 1), mpl.colormaps["BuPu"])
    with paper_style():
        across = min(width - left - _BAR, 0.6 * len(roles))
        axes = page.axes(left, 0, across, height)
        draw_cells(axes, values, scale)
        axes.set_xticks(range(len(roles)), list(roles), rotation=90, size=5.5)
        axes.set_yticks(range(len(heads)), heads, size=5.5)
        axes.tick_params(length=0, pad=2, labelbottom=False, labeltop=True)
        axes.spines[:].set_linewidth(0.4)
        _numbers(axes, values, sure, scale)
        bar = page.axes(left + across + 0.1, 0, 0.08, min(height, 1.6))
        colour_bar(page.figure, bar, scale, "", upright=True)
    return page.figure


def chosen_heads(roles: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The heads that stand highest in any role, as many of each as a page holds, in the order of the model."""
    everyone = list(next(iter(roles.values()))["heads"])
    ranked = [_by_score(role["heads"]) for role in roles.values()]
    kept: set[str] = set()
    for place in range(len(everyone)):
        nominated = kept | {ranking[place] for ranking in ranked}
        if kept and len(nominated) > _MOST:
            break
        kept = nominated
    return [head for head in everyone if head in kept]


def _by_score(heads: Mapping[str, Any]) -> list[str]:
    return sorted(heads, key=lambda head: -heads[head]["score"])


def _numbers(axes: Axes, values: Any, sure: Any, scale: ScalarMappable) -> None:
    for row, column in np.argwhere(sure):
        value = float(values[row, column])
        ink = ink_on(tuple(scale.to_rgba(value)))  # type: ignore[arg-type]
        axes.text(column, row, f"{value:.2f}".lstrip("0") or "0", size=5, color=ink, ha="center", va="center")
