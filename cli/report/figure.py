"""How every picture of ours looks, and how it becomes bytes.

The one idea: a picture is a value. No pyplot and no global figure, sizes in inches of a printed column, and
neither a date nor a version inside the file, so the same run gives the same bytes.
Colours: ColorBrewer's RdBu and BuPu, both safe for colour-blind readers. Blue supports the
behaviour, red opposes it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font
from matplotlib.ft2font import FT2Font

if TYPE_CHECKING:
    from jaxtyping import Float
    from matplotlib.axes import Axes

INK, NOTES, PALE, PAPER = "#222222", "#555555", "#9a9a9a", "#ffffff"
DPI, PRINT_DPI = 220, 300
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 7.0,
    "axes.linewidth": 0.6,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "circuit",
    "path.simplify": True,
    "text.parse_math": False,  # a token may hold dollars
    "pdf.fonttype": 42,
}


@contextmanager
def paper_style() -> Iterator[None]:
    """Matplotlib's defaults with our own settings on top, whatever the user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def blank(width: float, height: float) -> Figure:
    """A white figure of this size in inches."""
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def axes_at(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches from the lower left corner."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


def write_lines(
    figure: Figure, at: tuple[float, float], lines: Iterable[str], apart: float, **look: Any
) -> None:
    """Lines of text, one below the other, from a point given in inches."""
    width, height = figure.get_size_inches()
    for i, line in enumerate(lines):
        figure.text(at[0] / width, (at[1] - i * apart) / height, line, ha="left", va="top", **look)


def colours(values: Float[np.ndarray, "*shape"], signed: bool | None = None) -> ScalarMappable:
    """Maps scores to colours: diverging about zero where they have signs, sequential where they count.

    signed: None asks the values; scores that happen to be all positive are then taken as counts.
    """
    signed = bool((values < 0).any()) if signed is None else signed
    reach = float(np.abs(values).max(initial=0.0)) or 1.0
    if signed:
        return ScalarMappable(Normalize(-reach, reach), mpl.colormaps["RdBu"])
    return ScalarMappable(Normalize(0, reach), mpl.colormaps["BuPu"])


def draw_cells(axes: Axes, values: Float[np.ndarray, "row column"], scale: ScalarMappable) -> None:
    """A cell a value, row 0 on top and NaN left out: drawn as areas, for a bitmap inside a PDF gets blurred."""
    rows, columns = values.shape
    axes.pcolormesh(
        np.arange(columns + 1) - 0.5,
        np.arange(rows + 1) - 0.5,
        np.ma.masked_invalid(values),
        cmap=scale.cmap,
        norm=scale.norm,  # type: ignore[arg-type]
        edgecolors="face",  # else viewers show hairlines between cells
        linewidth=0.2,
    )
    axes.set_ylim(rows - 0.5, -0.5)


def ink_on(colour: tuple[float, ...]) -> str:
    """Black or white, whichever reads better on `colour`."""
    red, green, blue = colour[:3]
    return PAPER if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else INK


def colour_bar(figure: Figure, axes: Axes, scale: ScalarMappable, label: str, upright: bool) -> None:
    """A colour bar that fills `axes`."""
    bar = figure.colorbar(scale, cax=axes, orientation="vertical" if upright else "horizontal")
    bar.set_label(label, size=7)
    bar.ax.spines[:].set_linewidth(0.4)
    bar.ax.tick_params(labelsize=6, width=0.4, length=2)
    bar.locator = mpl.ticker.MaxNLocator(5, steps=[1, 2, 5, 10])
    bar.update_ticks()


def png(figure: Figure) -> bytes:
    """The figure as PNG."""
    return _saved(figure, "png", {"Software": None}, dpi=DPI)


def svg(figure: Figure) -> bytes:
    """The figure as SVG, its text kept as text: searchable, and set in the reader's own font if need be."""
    return _saved(figure, "svg", {"Date": None, "Creator": None})


def printed(figure: Figure, kind: str, title: str) -> bytes:
    """The figure as print takes it, with its title inside the file for who cannot see it.

    svg: text as outlines, the same whatever fonts there are. pdf: with the glyphs that it uses embedded as Type 42
    (TrueType), for journals refuse Type 3. png: 300 dots an inch.
    """
    silent = {
        "svg": ("Date", "Creator"),
        "pdf": ("CreationDate", "Creator", "Producer"),
        "png": ("Software",),
    }
    metadata: dict[str, str | None] = {"Title": title} | dict.fromkeys(silent[kind])
    return _saved(figure, kind, metadata, {"svg.fonttype": "path"}, dpi=PRINT_DPI)


def legible(text: str) -> str:
    """The text without what our font cannot draw: such characters by their code, control characters escaped."""
    return "".join(map(_legible, text))


def _legible(character: str) -> str:
    if not character.isprintable():
        return character.encode("unicode_escape").decode()
    return character if _font().get_char_index(ord(character)) else f"<{ord(character):X}>"


def text_width(text: str, size: float) -> float:
    """Inches that a line of `size` points takes."""
    font = _font()
    font.set_size(size, 72)
    font.set_text(text, 0.0)
    return font.get_width_height()[0] / 64 / 72


@cache
def _font() -> FT2Font:
    return get_font(str(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")))


def _saved(
    figure: Figure,
    kind: str,
    metadata: Mapping[str, str | None],
    style: Mapping[str, Any] | None = None,
    **settings: Any,
) -> bytes:
    buffer = io.BytesIO()
    with paper_style(), mpl.rc_context(style):  # type: ignore[arg-type]
        figure.savefig(buffer, format=kind, metadata=dict(metadata), **settings)
    return buffer.getvalue()
