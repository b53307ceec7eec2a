"""`circuit show --figure`: one picture for a paper, drawn from a folder at a journal's width, as SVG, PDF or PNG.

The one idea: a figure is a function from a folder and a width to a picture; what the folder lacks for it is said with
the command that makes it. SVG holds text as outlines, PDF embeds its fonts (Type 42); the same folder gives the same
bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from circuits.errors import CircuitError, UnknownNameError
from cli.shown import Shown, read_shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cli.report.attention import Side

ATTRIBUTION = "logit-attribution"


class Request(NamedTuple):
    """What is asked, by the options of `circuit show`."""

    folder: Path
    figure: str
    method: str | None = None
    head: str | None = None
    prompt: int | None = None
    width: str = "column"
    format: str | None = None
    output: Path | None = None
    force: bool = False


class Drawn(NamedTuple):
    """stem: what a file of it is called where nothing is said."""

    figure: Figure
    title: str
    stem: str


def write_figure(request: Request) -> dict[str, Any]:
    """Draws and writes it. Raises CircuitError for what cannot be drawn, and where the file cannot be written."""
    from circuits.exchange.files import check_place, write_file
    from cli.report.figure import legible, printed

    kind = _format(request)
    if request.output:
        check_place(request.output, request.force)
    drawn = draw(request)
    output = request.output or Path(f"{drawn.stem}.{kind}")
    check_place(output, request.force)
    content = printed(drawn.figure, kind, legible(drawn.title))
    write_file(output, content)
    inches = [round(float(side), 3) for side in drawn.figure.get_size_inches()]
    about = {"output": str(output), "figure": request.figure, "title": drawn.title, "format": kind}
    return about | {"inches": inches, "bytes": len(content)}


def draw(request: Request) -> Drawn:
    """The figure. Raises CircuitError for what there is not, and where the folder holds nothing to draw it from."""
    maker: Callable[[Request, float], Drawn] = _named("figure", request.figure, _FIGURES)
    return maker(request, _width(request.width))


def _named(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    if name not in known:
        raise UnknownNameError(kind, name, known)
    return known[name]


def _format(request: Request) -> str:
    """As it is said, or as the file's name ends; SVG where neither says."""
    suffix = request.output.suffix.removeprefix(".").lower() if request.output else ""
    name = request.format or suffix or "svg"
    if name not in _FORMATS:
        raise UnknownNameError("format of figures", name, _FORMATS)
    if request.output and suffix != name:
        raise CircuitError(
            f"{request.output} does not end in .{name}. Choose another --output, or another --format."
        )
    return name


_FORMATS = ("svg", "pdf", "png")


def _width(name: str) -> float:
    from cli.report.sheet import COLUMN, PAGE

    inches: float = _named("width", name, {"column": COLUMN, "page": PAGE})
    return inches


# What can be drawn


def _circuit(request: Request, width: float) -> Drawn:
    from cli.report.drawing import drawing
    from cli.report.figure import legible
    from cli.report.sheet import unbroken

    shown = _run(request)
    title = unbroken(legible(shown.title()))
    figure = drawing(
        shown.graph, shown.circuit, shown.scores or _unscored(shown), shown.links,
        title=title, unit="score", signed=shown.signed, notes=_circuit_notes(shown), width=width,
    )  # fmt: skip
    return Drawn(figure, shown.title(), f"circuit-{shown.method}")


def _circuit_notes(shown: Shown) -> tuple[str, ...]:
    """What nodes and links are, and what their colours and widths are in units of."""
    nodes = f"{len(shown.circuit)} of {len(shown.graph.components)} heads and MLPs"
    sides = "" if shown.signed is False else ", blue supports the behaviour, red opposes it"
    coloured = f"colour of nodes: score, {shown.unit}{sides}"
    if shown.circuit.edges is None:
        borrowed = ("scores of links are those of another method of the run",) if shown.borrowed else ()
        return (coloured, nodes, *borrowed)
    total = len(shown.scored.edges) or len(shown.graph.places)
    edges = f"{len(shown.circuit.edges):,} of {total:,} edges between {nodes}"
    return (coloured, edges, "a link is the sum of its edges into q, k and v, in the same unit")


def _unscored(shown: Shown) -> Any:
    """A circuit whose components nothing scored is drawn in grey."""
    import numpy as np

    from circuits.scores import Scores

    return Scores(shown.method, (), np.zeros((1, 0)))


def _heatmap(request: Request, width: float) -> Drawn:
    from cli.report.heatmap import heatmap

    shown = _run(request)
    if shown.scores is None:
        raise CircuitError(
            f"{request.folder} holds no scores of components for {shown.method}. See --figure circuit, or import a "
            "file that has them."
        )
    notes: tuple[str, ...] = ("outlined: in the circuit",)
    if shown.signed is not False:
        notes += ("blue supports the behaviour, red opposes it",)
    title = shown.title()
    figure = heatmap(
        shown.graph, shown.scores, shown.circuit,
        title=title, unit=shown.unit, signed=shown.signed, notes=notes, width=width,
    )  # fmt: skip
    return Drawn(figure, title, f"heatmap-{shown.method}")


def _curve(request: Request, width: float) -> Drawn:
    from cli.report.sizes import sizes_figure

    shown = _run(request)
    if shown.curve is None:
        raise CircuitError(
            f"{request.folder} holds no faithfulness by size for {shown.method} (sizes.csv). `circuit discover` "
            "makes a run that does."
        )
    title = shown.title(n=shown.verdict.n_prompts if shown.verdict else None)
    figure = sizes_figure(shown.curve, title, len(shown.circuit.kept), _what(shown), shown.verdict, width)
    return Drawn(figure, title, f"curve-{shown.method}")


def _what(shown: Shown) -> str:
    """What the circuit consists of."""
    if shown.circuit.edges is not None:
        return "edges"
    scored = shown.scores.components if shown.scores else shown.graph.components
    return "components" if any(name[0] == "m" for name in scored) else "heads"


def _attention(request: Request, width: float) -> Drawn:
    from cli.report.attention import attention_figure

    shown = _run(request)
    held = shown.run.attention
    if not held:
        raise CircuitError(
            f"{request.folder} holds no attention patterns (attention.json). Make the run again: `circuit discover` "
            "keeps those of a few prompts, where the model's patterns can be read."
        )
    heads = held["heads"]
    head = request.head or next((name for name in shown.circuit.heads if name in heads), next(iter(heads)))
    _named("head with attention in this run", head, heads)
    numbers = [entry["prompt"] + 1 for entry in held["prompts"]]  # as errors and pages count them
    number = numbers[0] if request.prompt is None else request.prompt
    if number not in numbers:
        known = ", ".join(map(str, numbers))
        raise CircuitError(
            f"There is no attention of prompt {number} in this run. Choose --prompt from {known}."
        )
    place = numbers.index(number)
    prompt = held["prompts"][place]
    title = f"Attention of {head} on prompt {number}, {shown.task} in {shown.model}"
    figure = attention_figure(_sides(prompt, heads[head][place]), prompt["positions"], title, width)
    return Drawn(figure, title, f"attention-{head}")


def _sides(prompt: Mapping[str, Any], patterns: Mapping[str, Any]) -> list[Side]:
    from cli.report.attention import Side

    return [
        Side(name, prompt[name], patterns[name]["queries"], patterns[name]["rows"])
        for name in ("clean", "corrupt")
        if name in patterns
    ]


def _waterfall(request: Request, width: float) -> Drawn:
    from cli.report.waterfall import waterfall

    shown = read_shown(request.folder, request.method) if request.method else _attributed(request)
    if shown.method != ATTRIBUTION or shown.scores is None:
        raise CircuitError(f"A waterfall is of {ATTRIBUTION}, whose scores add up; leave --method out.")
    title = shown.title()
    parts = dict(zip(shown.scores.components, shown.scores.values.tolist(), strict=True))
    outside = {name: float(value) for name, value in (shown.details.get("parts") or {}).items()}
    contrast = (shown.details.get("options") or {}).get("contrast")
    whole = "clean - corrupt" if contrast else "logit difference"
    figure = waterfall(parts, outside, title, shown.unit, width, whole=whole)
    return Drawn(figure, title, f"waterfall-{shown.method}")


def _attributed(request: Request) -> Shown:
    shown = _run(request)
    if ATTRIBUTION not in shown.methods:
        raise CircuitError(
            f"{request.folder} has no {ATTRIBUTION}, whose scores a waterfall adds up. "
            f"`circuit discover {shown.task} --method {ATTRIBUTION}` makes a run that has."
        )
    return read_shown(request.folder, ATTRIBUTION)


def _roles(request: Request, width: float) -> Drawn:
    from circuits.records import read_json
    from cli.report.roles import roles_figure

    path = request.folder / "heads.json"
    if not path.is_file():
        raise CircuitError(
            f"{request.folder} holds no roles of heads (heads.json). "
            "`circuit heads MODEL --task TASK --output FOLDER` makes a folder that does."
        )
    held = read_json(path)
    if not held["roles"]:
        raise CircuitError(f"{path} holds no role that could be measured.")
    on = f", prompts of {held['prompts']['task']} (n = {held['prompts']['n']})" if held["prompts"] else ""
    title = f"Roles of heads, {Path(held['model']['name']).name}{on}"
    return Drawn(roles_figure(held["roles"], title, width), title, "roles")


def _run(request: Request) -> Shown:
    return read_shown(request.folder, request.method)


_FIGURES: Mapping[str, Callable[[Request, float], Drawn]] = {
    "circuit": _circuit,
    "heatmap": _heatmap,
    "curve": _curve,
    "attention": _attention,
    "waterfall": _waterfall,
    "roles": _roles,
}
