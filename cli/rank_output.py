"""What `circuit rank` found: in the terminal, as a record, and as a folder of scores, a table and a report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cli.wording import number

if TYPE_CHECKING:
    import numpy as np

    from circuits.models.bridge import BridgeModel
    from circuits.ranking.texts import Text

RECORD, FORMAT_VERSION = "ranking.json", 1
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


def record(found: Ranked, model: BridgeModel, texts: Path, target: Path | None, seed: int) -> dict[str, Any]:
    """ranking.json: what was asked, and a line a text in the order of the file."""
    from circuits.models.source import weights_hash

    return {
        "format_version": FORMAT_VERSION,
        "by": found.by,
        "score": MEANING[found.by],
        "chance": CHANCE[found.by],
        "model": {"name": model.name, "weights_sha256": weights_hash(model.directory)},
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


def _sentences(found: Ranked, kept: Mapping[str, Any]) -> Iterator[str]:
    yield f"Score: {MEANING[found.by]}. Chance: {CHANCE[found.by]}."
    if "heads" in kept:
        yield f"Masked: {', '.join(kept['heads'])}. Compare texts of one kind alone: losses of others differ."
    if "variance_explained" in kept:
        yield f"The dictionary explains {kept['variance_explained']:.0%} of the variance of the states."
    mean = kept["mean"]
    if mean["chance"] is not None:
        yield f"Mean score {number(mean['score'], 3)}, mean chance {number(mean['chance'], 3)}."


def show(found: Ranked, kept: Mapping[str, Any], n: int, folder: Path | None) -> None:
    """The first n texts."""
    from cli.render import say, table

    table(
        COLUMNS,
        list(_shown(found, n)),
        title=f"Texts by {found.by}, {kept['model']['name']}",
        numeric=COLUMNS[:4],
    )
    for line in _sentences(found, kept):
        say(line)
    if folder:
        say(f"Written to {folder}")


def write(folder: Path, found: Ranked, kept: Mapping[str, Any], *, force: bool) -> None:
    """Writes the whole folder, or nothing. scores.jsonl: the lines of the file, best first, with their figures."""
    import pandas as pd

    from circuits.records import plain, write_json, write_table, write_text
    from circuits.runs import writing_run
    from cli.report.markdown import table

    rows = kept["scores"]
    lines = [{"text": found.texts[p].text, **found.texts[p].fields, found.by: rows[p]} for p in found.order]
    report = [f"# Texts by {found.by}, {kept['model']['name']}", *_sentences(found, kept)]
    report.append(table(COLUMNS, list(_shown(found, IN_REPORT))))
    with writing_run(folder, force, RECORD) as place:
        write_json(place / RECORD, kept)
        write_text(
            place / "scores.jsonl",
            "".join(json.dumps(plain(line), ensure_ascii=False) + "\n" for line in lines),
        )
        write_table(place / "scores.csv", pd.DataFrame(rows))
        write_text(place / "report.md", "\n\n".join(report) + "\n")
