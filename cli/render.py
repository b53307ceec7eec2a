"""What a person sees in the terminal: the only module that knows rich.

The one idea: data goes to stdout and everything about the work to stderr, so a pipe carries results alone.
Colour is an extra: each table and heatmap says the same without it (NO_COLOR, a pipe, a narrow window).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.style import Style
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from circuits.circuit import Circuit
    from circuits.graph import Graph
    from circuits.progress import Progress
    from circuits.scores import Scores
    from cli.text_graph import Line

PATIENCE = 1.0  # seconds that a task may take before its progress is shown
_SAY_AGAIN = 15.0  # seconds between the lines about one task where there is no terminal
_NARROW = 60  # columns of a window below which tables say less
_SUPPORTS, _OPPOSES = (33, 102, 172), (178, 24, 43)


def _console(stderr: bool = False) -> Console:
    """A console on the stream of the moment; text is taken as it is, never as markup."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


# Messages


def error(message: str) -> None:
    """Says on stderr what went wrong and what to do."""
    _message("Error:", "bold red", message)


def warning(message: str) -> None:
    """Says on stderr what the reader of the results should know."""
    _message("Warning:", "bold yellow", message)


def note(message: str) -> None:
    """Says on stderr what is worth knowing while the work goes on."""
    _console(stderr=True).print(message, soft_wrap=True)


def say(message: str) -> None:
    """A line of the results, on stdout."""
    _console().print(message)


def room() -> tuple[int, bool]:
    """The columns of stdout, and whether it takes ASCII alone."""
    console = _console()
    return console.width, console.options.ascii_only or console.legacy_windows


def draw(lines: Iterable[Line]) -> None:
    """Lines of cli.text_graph on stdout, those that are too long cut off; what has a side is coloured by it."""
    console = _console()
    look = {"+": "blue", "-": "red"}
    for line in lines:
        text = Text.assemble(*((piece.text, look.get(piece.side, "")) for piece in line))
        text.rstrip()
        console.print(text, no_wrap=True, crop=True, overflow="crop")


def _message(prefix: str, style: str, message: str) -> None:
    _console(stderr=True).print(Text.assemble((prefix, style), " ", message), soft_wrap=True)


# Progress


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """A circuits.progress.Progress that draws on stderr: bars in a terminal, single lines elsewhere.

    Tasks that are done within a second are not shown; `quiet` shows nothing at all.
    """
    from circuits.progress import silent

    console = _console(stderr=True)
    if quiet:
        yield silent
    elif console.is_terminal and not console.is_dumb_terminal:
        with _SlowTasks(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        ) as bars:
            yield bars.report
    else:
        yield _Lines(console)


class _SlowTasks(Bars):
    """Rich's bars, showing only the tasks that are under way for longer than PATIENCE."""

    def report(self, what: str, done: int, total: int, /) -> None:
        """Counts `what` further, under a bar of its own; a task that comes back begins anew."""
        underway = [task.id for task in self.tasks if task.description == what and not task.finished]
        bar = underway[0] if underway else self.add_task(what, total=total)
        self.update(bar, completed=done, total=total)

    def get_renderables(self) -> Iterable[RenderableType]:
        slow = [task for task in self.tasks if (task.elapsed or 0.0) > PATIENCE]
        if slow:
            yield self.make_tasks_table(slow)


class _Lines:
    """Progress as lines of text: now and then while a slow task runs, and once when it is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun: dict[str, float] = {}
        self._said: dict[str, float] = {}

    def __call__(self, what: str, done: int, total: int, /) -> None:
        now = time.monotonic()
        begun = self._begun.setdefault(what, now)
        said = self._said.setdefault(what, begun)
        if now - begun > PATIENCE and (done >= total or now - said > _SAY_AGAIN):
            self._said[what] = now
            self._console.print(f"{what}: {done}/{total} ({now - begun:.0f} s)", soft_wrap=True)
        if done >= total:
            self._begun.pop(what), self._said.pop(what)


# Many pieces of work


@contextmanager
def board(names: Sequence[str], quiet: bool = False) -> Iterator[Board]:
    """Shows on stderr how the pieces of a study go: a live table in a terminal, a line a piece elsewhere."""
    console = _console(stderr=True)
    pieces = Board(names, None if quiet else console)
    if quiet or not console.is_terminal or console.is_dumb_terminal:
        yield pieces
        return
    pieces.live = True
    with Live(get_renderable=pieces.table, console=console, refresh_per_second=4, transient=True):
        yield pieces


@dataclass
class _Piece:
    state: str = "waiting"
    progress: str = ""
    begun: float = 0.0
    seconds: float = 0.0


class Board:
    """What is known of each piece. It is a circuits.progress.Progress too, for work that is of no named piece."""

    _FIRST = ("running", "failed", "waiting", "done", "stands")

    def __init__(self, names: Sequence[str], console: Console | None) -> None:
        self.live = False
        self._console = console
        self._pieces = {name: _Piece() for name in names}
        self._begun = time.monotonic()
        self._now = ""

    def __call__(self, what: str, done: int, total: int, /) -> None:
        self._now = "" if done >= total else f"{what}: {done}/{total}"

    def report(self, name: str, what: str, done: int, total: int, /) -> None:
        """The piece is under way; total: 0 where it is not known how far."""
        piece = self._pieces[name]
        if piece.state != "running":
            piece.state, piece.begun = "running", time.monotonic()
        piece.progress = f"{what} {done}/{total}" if total else what

    def ended(self, name: str, state: str, seconds: float, problem: str) -> None:
        """state: done, failed, or kept where there was nothing to do."""
        words = "stands" if state == "kept" else state
        self._pieces[name] = _Piece(words, problem.strip().split("\n")[-1], seconds=seconds)
        if self._console and not self.live:
            self._console.print(self._line(name), soft_wrap=True)

    def _line(self, name: str) -> str:
        """[3/72] ioi-plain-4l-sae-0: done, 14 s; about 5 min left."""
        piece, ended = self._pieces[name], len(self._ended())
        took = f", {piece.seconds:.0f} s" if piece.state != "stands" else ""
        problem = f": {piece.progress}" if piece.progress else ""
        return f"[{ended}/{len(self._pieces)}] {name}: {piece.state}{took}{self._left()}{problem}"

    def _ended(self) -> list[_Piece]:
        return [piece for piece in self._pieces.values() if piece.state not in ("waiting", "running")]

    def _left(self) -> str:
        """A guess by the mean of the pieces that were made."""
        made = sum(piece.state != "stands" for piece in self._ended())
        waiting = len(self._pieces) - len(self._ended())
        if not (made and waiting):
            return ""
        return f"; about {_duration((time.monotonic() - self._begun) / made * waiting)} left"

    def table(self) -> RenderableType:
        """All pieces, or as many as the window holds, those that matter now first."""
        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, title_justify="left")
        grid.title = f"{len(self._ended())}/{len(self._pieces)}{self._left()}  {self._now}"
        for column in ("piece", "state", "progress", "time"):
            grid.add_column(column, no_wrap=True, overflow="ellipsis")
        names = list(self._pieces)
        room = max(1, (self._console.size.height if self._console else 25) - 5)
        if len(names) > room:
            names = sorted(names, key=lambda name: self._FIRST.index(self._pieces[name].state))[:room]
        for name in names:
            grid.add_row(*map(Text, self._cells(name)))
        if more := len(self._pieces) - len(names):
            grid.caption = f"and {more} more"
        return grid

    def _cells(self, name: str) -> tuple[str, str, str, str]:
        piece = self._pieces[name]
        seconds = time.monotonic() - piece.begun if piece.state == "running" else piece.seconds
        return name, piece.state, piece.progress, _duration(seconds) if seconds else ""


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


# Tables


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str = "",
    numeric: Iterable[str] = (),
    whole: Iterable[str] | None = None,
) -> None:
    """A table on stdout. Words that do not fit are folded into more lines, never cut off.

    numeric: the columns to align on the right. whole: the columns that are never folded, by default those and the
    first.
    """
    right = set(numeric)
    never = {columns[0], *right} if whole is None else set(whole)
    grid = Table(
        box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False, show_edge=False
    )
    for column in columns:
        justify = "right" if column in right else "left"
        grid.add_column(column, justify=justify, overflow="fold", no_wrap=column in never)  # type: ignore[arg-type]
    for row in rows:
        grid.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    _console().print(grid)


def top_components(
    scores: Scores,
    circuit: Circuit | None = None,
    *,
    n: int = 10,
    unit: str = "score",
    intervals: Mapping[str, tuple[float, float] | None] | None = None,
) -> None:
    """The components, or edges, with the largest scores, with 95% intervals and whether the circuit keeps them.

    intervals: component -> (low, high), from a bootstrap say, None where it is not known; by default 1.96 standard
    errors either way.
    """
    values = dict(zip(scores.components, scores.values.tolist(), strict=True))
    errors = dict(zip(scores.components, scores.stderr.tolist(), strict=True))
    known = intervals or {}
    rows = []
    for rank, name in enumerate(scores.ranking()[:n], 1):
        value, reach = values[name], 1.96 * errors[name]
        interval = known.get(name, (value - reach, value + reach))
        within = "{} to {}".format(*map(_signed, interval)) if interval else ""
        member = "" if circuit is None else "yes" if name in circuit else "no"
        rows.append((rank, name, _signed(value), within, member))
    what = "edge" if any("->" in name for name in scores.components) else "component"
    columns = ("rank", what, unit, "95% interval", "in circuit")[: 5 if circuit is not None else 4]
    shown = [row[: len(columns)] for row in rows]
    whole = ["rank", what, "95% interval"]
    if _console().width < _NARROW:
        columns = (what, "score", "95% interval")
        shown = [(name + " *" * (member == "yes"), *rest) for _, name, *rest, member in rows]
        whole = [what, "score"]
    table(columns, shown, title=scores.method, numeric=("rank", "score", unit), whole=whole)


def _signed(value: float) -> str:
    """Three significant digits with a sign, in plain notation: +0.123, -12.3, +1234."""
    size = abs(value)
    decimals = 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0
    return f"{value:+.{decimals}f}"


# Heatmap


def heatmap(graph: Graph, scores: Scores, circuit: Circuit | None = None, *, unit: str = "score") -> None:
    """Layers by heads with the MLPs beside them, on stdout; members of `circuit` carry a star.

    Cells hold numbers where the width allows it, else a digit: ninths of the largest size. Heads that do not
    fit beside each other follow below.
    """
    console = _console()
    values = dict(zip(scores.components, scores.values.tolist(), strict=True))
    kept = frozenset(circuit.nodes) if circuit else frozenset()
    label = len(str(graph.n_layers - 1)) + 1
    n_cells = graph.n_heads + 1
    cells = _Cells(
        values, kept, *_fitting(values.values(), n_cells, console.width - label - 1), _colourful(console)
    )
    console.print(f"{scores.method}, {unit}: layers down, heads across")
    room = max((console.width - label - cells.width - 1) // cells.width, 1)
    for first in range(0, graph.n_heads, room):
        last = min(first + room, graph.n_heads)
        for line in _panel(graph, cells, range(first, last), label, with_mlps=last == graph.n_heads):
            console.print(line, no_wrap=True, crop=True)
    if legend := cells.legend():
        console.print(legend, style="dim")


def _colourful(console: Console) -> bool:
    """Whether shades can be told apart; the sixteen colours of an old terminal are too few."""
    return console.color_system in ("256", "truecolor") and not console.no_color


def _fitting(values: Iterable[float], n_cells: int, width: int) -> tuple[int, Callable[[float], str]]:
    """The fullest way to write the scores that fits `n_cells` cells into `width`, and the width of a cell."""
    known = list(values)
    reach = max((abs(value) for value in known), default=0.0) or 1.0
    ways: list[Callable[[float], str]] = [_two_decimals, lambda value: _bare(_two_decimals(value))]
    if reach >= 1:
        ways.append(lambda value: _bare(_rounded(value, 1)))
    for number, way in enumerate(ways):
        cell = max((len(way(value)) for value in known), default=1) + (2 if number == 0 else 1)
        if cell * n_cells <= width:
            return cell, way
    return 3, lambda value: _ninths(value / reach)


def _two_decimals(value: float) -> str:
    """Two decimals at most, and none for large numbers: -0.12, 3.40, 120."""
    size = abs(value)
    return _rounded(value, 2 if size < 10 else 1 if size < 100 else 0)


def _rounded(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    return text if float(text) else "0"


def _bare(text: str) -> str:
    """The number without the zero before its point: -.12."""
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def _ninths(share: float) -> str:
    size = round(9 * abs(share))
    return "." if not size else f"-{size}" if share < 0 else str(size)


def _panel(graph: Graph, cells: _Cells, heads: range, label: int, with_mlps: bool) -> Iterator[Text]:
    """The lines of a block of heads; the MLPs close the last block, where any of them is scored."""
    with_mlps = with_mlps and any(f"m{layer}" in cells.values for layer in range(graph.n_layers))
    header = "".join(f"{head:>{cells.width - 1}} " for head in heads)
    yield Text(" " * label + header + (f" {'MLP':>{cells.width - 1}}" if with_mlps else ""))
    for layer in range(graph.n_layers):
        line = Text(f"{layer:>{label - 1}} ")
        for head in heads:
            line.append_text(cells.cell(f"a{layer}.h{head}"))
        if with_mlps:
            line.append(" ").append_text(cells.cell(f"m{layer}"))
        yield line


@dataclass(frozen=True)
class _Cells:
    """How a component is written: its score the way that `figure` has it, a star if kept, and its colour."""

    values: Mapping[str, float]
    kept: frozenset[str]
    width: int
    figure: Callable[[float], str]
    colour: bool

    @cached_property
    def reach(self) -> float:
        return max((abs(value) for value in self.values.values()), default=0.0) or 1.0

    def cell(self, name: str) -> Text:
        """`width` characters; blank where the method scores no such component."""
        if name not in self.values:
            return Text(" " * self.width)
        value, star = self.values[name], "*" if name in self.kept else " "
        return Text(
            f"{self.figure(value):>{self.width - 1}}{star}", style=self._style(value, name in self.kept)
        )

    def _style(self, value: float, kept: bool) -> Style:
        """White at zero to full blue (supports) or red (opposes), bold for members."""
        if not self.colour:
            return Style()
        share = min(abs(value) / self.reach, 1.0)
        full = _SUPPORTS if value >= 0 else _OPPOSES
        red, green, blue = (round(248 + (part - 248) * share) for part in full)
        ink = "white" if share > 0.55 else "black"
        return Style(color=ink, bgcolor=f"rgb({red},{green},{blue})", bold=kept)

    def legend(self) -> str:
        parts = ["* in the circuit"] if self.kept else []
        if self.figure(self.reach) == "9":
            parts.append(f"digits: ninths of the largest size, {_two_decimals(self.reach)}")
        if self.colour:
            parts.append("blue supports, red opposes")
        return "; ".join(parts)
