"""The words of a report as HTML: report.md, set as a page, with plots where it has pictures.

The one idea: the page says what the Markdown says, so the two never disagree. Raw HTML is not let through: names and
prompts are text, whatever they hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

_SCHEMES = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)


@dataclass(frozen=True)
class Picture:
    """A picture of the report: the file that it names, and its alternative text."""

    file: str
    text: str


@dataclass(frozen=True)
class Heading:
    """level: 1 for the title. anchor: the id that links go to."""

    level: int
    text: str
    anchor: str


Part = Markup | Picture | Heading


def parts(markdown: str, folder: Path = Path(), named: Iterable[str] = ()) -> Iterator[Part]:
    """Headings, pictures, and what stands between them as HTML. folder: where links to other
    reports lead from. named: what headings may not be called, for something else on the page is."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    between: list[Token] = []
    tokens = parser.parse(markdown)
    taken = set(named)
    i = 0
    while i < len(tokens):
        token = tokens[i]
        special = _heading(tokens, i, taken) or _picture(tokens, i)
        if special is None:
            between.append(token)
            i += 1
            continue
        yield from _rendered(parser, between, folder)
        between = []
        yield special
        i += 3
    yield from _rendered(parser, between, folder)


def _rendered(parser: MarkdownIt, tokens: list[Token], folder: Path) -> Iterator[Markup]:
    if not tokens:
        return
    for token in tokens:
        _tamed(token, folder)
    html = parser.renderer.render(tokens, parser.options, {})
    wide = '<div class="scrolls" tabindex="0" role="region" aria-label="table"><table>'
    html = html.replace("<table>", wide).replace("</table>", "</table></div>")
    yield Markup(re.sub(r"<th(?=[ >])", '<th scope="col"', html))


def _tamed(token: Token, folder: Path) -> None:
    """Links to reports lead to their pages where there are any; pictures inside of text are left out: nothing is
    fetched."""
    for child in token.children or ():
        if child.type == "link_open":
            address = str(child.attrs.get("href", ""))
            page = re.sub(r"(^|/)(report|evaluation)\.md$", r"\1report.html", address)
            if not _SCHEMES.match(address) and (folder / unquote(page)).is_file():
                child.attrs["href"] = page
    if token.children:
        token.children = [
            c for c in token.children if c.type != "image" or not _SCHEMES.match(str(c.attrs["src"]))
        ]


def _heading(tokens: list[Token], i: int, taken: set[str]) -> Heading | None:
    if tokens[i].type != "heading_open":
        return None
    text = _text(tokens[i + 1])
    stem = anchor = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"
    n = 1
    while anchor in taken:
        n += 1
        anchor = f"{stem}-{n}"
    taken.add(anchor)
    return Heading(int(tokens[i].tag[1]), text, anchor)


def _picture(tokens: list[Token], i: int) -> Picture | None:
    """A paragraph that is one picture."""
    if tokens[i].type != "paragraph_open":
        return None
    children = tokens[i + 1].children or []
    if len(children) != 1 or children[0].type != "image":
        return None
    return Picture(str(children[0].attrs["src"]), _text(children[0]))


def _text(token: Token) -> str:
    return (
        "".join(c.content for c in token.children or [] if c.type in ("text", "code_inline")) or token.content
    )
