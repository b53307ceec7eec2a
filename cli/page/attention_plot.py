"""Where a head looks: its attention pattern on sample prompts, with the tokens.

The one idea: patterns of all heads travel as data, and page.js fills one figure with the one that the reader picks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bokeh.models import ColumnDataSource, FixedTicker, Range1d
from bokeh.transform import transform

from cli.page.plot import Control, Plot, colour_bar, ground, hover, plain, sheet

SIDES = {"clean": "clean", "corrupt": "corrupted"}


def attention_plot(name: str, about: str, samples: Mapping[str, Any]) -> Plot:
    """samples: what attention.json holds."""
    longest = max(
        len(tokens) for prompt in samples["prompts"] for tokens in (prompt["clean"], prompt["corrupt"])
    )
    size = int(min(900, max(300, 24 * longest + 130)))
    heads = {head: head for head in samples["heads"]}
    prompts = {str(i): f"prompt {prompt['prompt'] + 1}" for i, prompt in enumerate(samples["prompts"])}
    return Plot(
        name,
        (_figure(size),),
        f"{about}: attention of a head",
        "Rows are tokens that look, columns tokens that are looked at; the darker, the more attention (a row sums to "
        "1). Named positions stand in brackets.",
        f"Attention patterns of {len(heads)} heads on {len(prompts)} prompts; the line above the figure says where "
        "the last token looks.",
        behaviour="attention",
        data={"prompts": [_tokens(prompt) for prompt in samples["prompts"]], "heads": samples["heads"]},
        controls=(
            Control("head", "head", heads),
            Control("prompt", "prompt", prompts),
            Control("side", "side", SIDES),
        ),
        widest=size + 40,
        least=max(300, 15 * longest + 120),
    )


def _figure(size: int) -> Any:
    mapper = ground(1.0, signed=False)
    drawn = sheet(
        size,
        x_range=Range1d(start=-0.5, end=0.5),
        y_range=Range1d(start=0.5, end=-0.5),
        x_axis_location="above",
    )
    drawn.grid.visible = False
    drawn.xaxis.update(ticker=FixedTicker(ticks=[]), name="sources", major_label_orientation=0.9)
    drawn.yaxis.update(ticker=FixedTicker(ticks=[]), name="queries")
    source = ColumnDataSource({k: [0] for k in ("x", "y", "value", "query", "source")}, name="pattern")
    cells = drawn.rect(
        "x",
        "y",
        width=0.96,
        height=0.96,
        source=source,
        line_color=None,
        fill_color=transform("value", mapper),
    )
    drawn.add_tools(hover([cells], {"from": "@query", "to": "@source", "attention": "@value{0.000}"}))
    drawn.add_layout(colour_bar(mapper, "attention"), "below")
    return drawn


def _tokens(prompt: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens as they are shown: spaces made visible, named positions in brackets."""
    names: dict[int, list[str]] = {}
    for position, place in prompt["positions"].items():
        names.setdefault(place, []).append(position)
    return {
        side: [
            plain(visible(token) + (f" [{', '.join(names[i])}]" if i in names else ""))
            for i, token in enumerate(prompt[side])
        ]
        for side in SIDES
    }


def visible(token: str) -> str:
    """The token with its white space to be seen."""
    return token.replace(" ", "·").replace("\n", "↵").replace("\t", "⇥") or "∅"
