"""A page: words and plots as one HTML file that needs no network and no server.

The one idea: the library that draws travels in the file, packed, and each plot is a block of data that page.js draws
when the reader comes near it. The same folder gives the same bytes: bokeh's counters are written anew from 1.
"""

from __future__ import annotations

import base64
import gzip
import json
import mimetypes
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

from bokeh.core.json_encoder import serialize_json
from bokeh.document import Document
from bokeh.util.paths import bokehjs_path
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from circuits.records import write_text
from cli.page.plot import DARK, LIGHT, Plot
from cli.page.prose import Heading, Picture, parts

PAGE = "report.html"


@dataclass(frozen=True)
class Page:
    """What a page shows.

    words: the report as Markdown, whose pictures may lie in `folder`. verdict: sentences that stand out at the top.
    plots: picture file or heading -> the plots that stand there, instead of the picture or below the heading;
    "" -> those at the very top. ends: what follows the words, as title and HTML.
    """

    words: str
    folder: Path
    verdict: Sequence[str] = ()
    plots: Mapping[str, Sequence[Plot]] = field(default_factory=dict)
    ends: Sequence[tuple[str, Markup]] = ()


def html(page: Page) -> str:
    """The whole file."""
    headings: list[Heading] = []
    plots: list[Plot] = []
    body = Markup("\n").join(_body(page, headings, plots))
    title = next((h.text for h in headings if h.level == 1), "circuit")
    for i, (words, content) in enumerate(page.ends):
        headings.append(Heading(2, words, f"end-{i}"))
        body += Markup('\n<h2 id="end-{}">{}</h2>\n{}').format(i, words, content)
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            headings=[h for h in headings if h.level == 2],
            body=body,
            css=Markup(_source("page.css")),
            js=Markup(_source("page.js")),
            library=_packed_library() if plots else "",
            palettes=_json({"light": LIGHT, "dark": DARK}),
            plots=[(plot.name, _json(_record(plot))) for plot in plots],
        )
    )


def _body(page: Page, headings: list[Heading], plots: list[Plot]) -> Iterator[Markup]:
    """The page from top to bottom; what it holds is noted in `headings` and `plots`."""

    def drawn(place: str) -> Iterator[Markup]:
        if here := page.plots.get(place, ()):
            plots.extend(here)
            yield Markup('<div class="plots">{}</div>').format(
                Markup().join(macro("plot", plot=p) for p in here)
            )

    begun = False
    named = {plot.name for some in page.plots.values() for plot in some}
    for part in parts(page.words, page.folder, named):
        if isinstance(part, Heading):
            headings.append(part)
            yield Markup('<h{0} id="{1}">{2}</h{0}>').format(part.level, part.anchor, part.text)
            if not begun:
                begun = True
                yield macro("verdict", sentences=page.verdict)
                yield from drawn("")
            yield from drawn(part.text)
        elif isinstance(part, Picture):
            yield from drawn(part.file) if part.file in page.plots else _embedded(page.folder, part)
        else:
            yield part


def _embedded(folder: Path, picture: Picture) -> Iterator[Markup]:
    """The picture itself inside the file, where it lies in the folder."""
    path = folder / picture.file
    if ".." in picture.file or not path.is_file():
        return
    kind = mimetypes.guess_type(path.name)[0] or "image/png"
    data = base64.b64encode(path.read_bytes()).decode()
    yield Markup('<figure><img alt="{}" src="data:{};base64,{}"></figure>').format(picture.text, kind, data)


def _record(plot: Plot) -> dict[str, Any]:
    """What page.js draws a plot from."""
    document = Document()
    for drawn in plot.figures:
        document.add_root(drawn)
    return {
        "document": json.loads(_counted_anew(serialize_json(document.to_json(deferred=False)))),
        "roots": len(plot.figures),
        "behaviour": plot.behaviour,
        "data": dict(plot.data),
    }


def _counted_anew(document: str) -> str:
    """The document with bokeh's names p1001, p1002, ... counted from 1."""
    names: dict[str, str] = {}
    fresh = count(1)
    return re.sub(r'"(p\d{4,})"', lambda m: f'"{names.setdefault(m[1], f"b{next(fresh)}")}"', document)


def _json(value: object) -> Markup:
    """JSON that may stand inside a script element: nothing in it ends the element."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace("\u2028", "\\u2028"))


@lru_cache(maxsize=1)
def _packed_library() -> str:
    """bokeh.js as base64 of gzip: a third of its size."""
    script = (bokehjs_path() / "js" / "bokeh.min.js").read_bytes()
    return base64.b64encode(gzip.compress(script, 9, mtime=0)).decode()


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("cli", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_page(page: Page) -> None:
    """report.html beside the report that it is made of."""
    write_text(page.folder / PAGE, html(page))


def heading(words: str) -> str:
    """What a heading of the report is called as a place of plots, once Markdown is read."""
    return next((part.text for part in parts(f"## {words}") if isinstance(part, Heading)), words)


def macro(name: str, **values: Any) -> Markup:
    """A piece of parts.html."""
    return Markup(getattr(_environment().get_template("parts.html").module, name)(**values))


def _source(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
