"""What `circuit rank` found: the first texts, a record, and the lines of the file with their figures, best first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cli.reading_output import Drawing, Reading, Table, model_record
from cli.wording import number

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from circuits.models.bridge import BridgeModel
    from circuits.ranking.texts import Text

RECORD = "ranking.json"
WIDTH, IN_REPORT = 60, 10

MEANING = {
    "attention-influence": "loss that masking the retrieval heads adds, over the loss of the model as it is",
    "mona": "generalised Jaccard similarity of mean sparse features with those of the target texts",
}
CHANCE = {
    "attention-influence": "the same with as many random heads, of the same layers where those have enough",
    "mona": "the same against as many random texts of the pool",
}
"""What stands beside a score."""


class Ranked(NamedTuple):
    """columns: more figures by text. chance: the control's mean by text; None where there is nothing to draw from."""

    by: str
    texts: tuple[Text, ...]
    scores: np.ndarray
    columns: Mapping[str, np.ndarray]
    chance: np.ndarray | None
    details: Mapping[str, Any]

    @property
    def order(self) -> list[int]:
        """Places of the texts, highest score first."""
        return sorted(range(len(self.texts)), key=lambda place: (-self.scores[place], place))


def reading_of(
    found: Ranked, model: BridgeModel, texts: Path, target: Path | None, seed: int, top: int
) -> Reading:
    """top: texts that the terminal shows."""
    kept = _record(found, model, texts, target, seed)
    shown = list(_shown(found, max(top, IN_REPORT)))
    title = f"Texts by {found.by}, {model.name}"
    return Reading(
        RECORD,
        title,
        kept,
        tuple(_words(found, kept)),
        (Table("", COLUMNS, shown, lines=top, numeric=COLUMNS[:4]),),
        {"scores": kept["scores"]},
        (
            Drawing(
                "ranking.png", "Scores of all texts, before those of chance", partial(_draw, found, title)
            ),
        ),
        more=partial(_write_lines, found, kept["scores"]),
    )


def _draw(found: Ranked, title: str) -> Figure:
    from cli.report.histogram import histogram

    notes = (f"score: {MEANING[found.by]}", f"chance: {CHANCE[found.by]}")
    return histogram(found.scores, found.chance, title, notes)


def _record(found: Ranked, model: BridgeModel, texts: Path, target: Path | None, seed: int) -> dict[str, Any]:
    """What was asked, and a line a text in the order of the file."""
    return {
        "by": found.by,
        "score": MEANING[found.by],
        "chance": CHANCE[found.by],
        "model": model_record(model),
        "texts": texts.name,
        "target": target and target.name,
        "seed": seed,
        **found.details,
        "mean": {
            "score": found.scores.mean(),
            "chance": None if found.chance is None else found.chance.mean(),
        },
        "scores": list(_rows(found)),
    }


def _rows(found: Ranked) -> Iterator[dict[str, Any]]:
    rank = {place: n for n, place in enumerate(found.order, 1)}
    for place, text in enumerate(found.texts):
        figures = {name: float(column[place]) for name, column in found.columns.items()}
        chance = None if found.chance is None else float(found.chance[place])
        yield {
            "line": text.line,
            "rank": rank[place],
            "score": float(found.scores[place]),
            "chance": chance,
            **figures,
            "tokens": len(text.tokens),
        }


def _shown(found: Ranked, n: int) -> Iterator[tuple[str, ...]]:
    for rank, place in enumerate(found.order[:n], 1):
        text = " ".join(found.texts[place].text.split())
        chance = "" if found.chance is None else number(found.chance[place], 3)
        short = text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."
        yield str(rank), str(found.texts[place].line), number(found.scores[place], 3), chance, short


COLUMNS = ("rank", "line", "score", "chance", "text")


def _words(found: Ranked, kept: Mapping[str, Any]) -> Iterator[str]:
    yield f"Score: {MEANING[found.by]}. Chance: {CHANCE[found.by]}."
    if "heads" in kept:
        yield f"Masked: {', '.join(kept['heads'])}. Compare texts of one kind alone: losses of others differ."
    if "variance_explained" in kept:
        yield f"The dictionary explains {kept['variance_explained']:.0%} of the variance of the states."
    mean = kept["mean"]
    if mean["chance"] is not None:
        yield f"Mean score {number(mean['score'], 3)}, mean chance {number(mean['chance'], 3)}."


def _write_lines(found: Ranked, rows: list[dict[str, Any]], place: Path) -> None:
    """The lines of the file, best first, with their figures."""
    from circuits.records import plain, write_text

    lines = ({"text": found.texts[p].text, **found.texts[p].fields, found.by: rows[p]} for p in found.order)
    text = "".join(json.dumps(plain(line), ensure_ascii=False) + "\n" for line in lines)
    write_text(place / "scores.jsonl", text)
