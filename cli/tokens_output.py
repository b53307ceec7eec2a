"""What `circuit tokens` found: importance token by token or position by position, and what its judges say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from cli.reading_output import Drawing, Reading, Table, model_record
from cli.wording import estimate, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from circuits.evaluation.faithfulness import Estimate
    from circuits.models.bridge import BridgeModel
    from circuits.token_importance.reading import ReadPrompt
    from circuits.token_importance.reagent import Search
    from cli.prompt_source import Prompts

RECORD = "tokens.json"
"""By which the folder is known."""

JUDGES = ("sufficiency", "comprehensiveness")
JUDGED = (
    "Soft-NS: what embeddings that fade by importance keep of the next-token distribution; Soft-NC: what they lose "
    "where they fade by the opposite; both over what no embeddings at all change, larger is better. shuffled: the "
    "same numbers at random tokens, which is chance; better by: with 95% bootstrap intervals over prompts."
)


def reading_of(
    model: BridgeModel,
    prompts: Prompts | None,
    texts: Sequence[str],
    found: Sequence[ReadPrompt],
    search: Search,
    seed: int,
) -> Reading:
    kept = {
        "model": model_record(model),
        "prompts": prompts and {"task": prompts.name, "form": prompts.form, "n": len(texts)},
        "search": vars(search),
        "seed": seed,
        "read": [_kept(text, each) for text, each in zip(texts, found, strict=True)],
    }
    title = (
        f"Tokens of {prompts.name} that {model.name} rests on" if prompts else f"What {model.name} rests on"
    )
    first = _tokens(found[0]) if prompts is None else _positions(model, prompts, found)
    tables = (first,) if prompts is None else (first, _all(found))
    words, noun = tuple(_words(found, search)), "token" if prompts is None else "position"
    drawing = Drawing("tokens.png", f"Importance of each {noun}", partial(_draw, first, found, title, noun))
    drawings = (drawing,) if first.rows else ()
    return Reading(RECORD, title, kept, words, (*tables, _judges(found, seed)), drawings=drawings)


def _draw(shown: Table, found: Sequence[ReadPrompt], title: str, noun: str) -> Figure:
    """The rows of a table, which begin with a name and the importance by each method."""
    from cli.report.readings import tokens_picture

    methods = list(found[0].importance)
    lines = []
    for name, *figures in shown.rows:
        shares = [float(str(figure)) for figure in figures[: len(methods)]]
        even = float(str(figures[-1])) if noun == "position" else 1 / len(shown.rows)
        lines.append((str(name), dict(zip(methods, shares, strict=True)), even))
    return tokens_picture(lines, title, noun)


def _kept(text: str, each: ReadPrompt) -> dict[str, object]:
    return {
        "text": text,
        "said": each.said,
        "probability": each.probability,
        "tokens": each.tokens,
        "importance": each.importance,
        "rationale": each.rationale,
        "runs_stopped": each.stopped,
        "mean_steps": each.steps,
        "judged": [
            {"method": method, "way": way} | vars(judged) for (method, way), judged in each.judged.items()
        ],
    }


def _lines(each: ReadPrompt) -> Iterator[tuple[object, ...]]:
    columns = zip(each.tokens, *each.importance.values(), each.rationale, strict=True)
    for token, *importance, agreed in columns:
        yield token, *importance, "yes" if agreed else ""


def _tokens(each: ReadPrompt) -> Table:
    title = f"{each.said!r}, said with probability {number(each.probability)}, rests on"
    note = f"Even shares would be {number(1 / len(each.tokens), 3)}."
    columns = ("token", *each.importance, "in rationale")
    return Table(title, columns, list(_lines(each)), (note,), name="tokens")


def _all(found: Sequence[ReadPrompt]) -> Table:
    rows = [(n, each.said, *line) for n, each in enumerate(found, start=1) for line in _lines(each)]
    columns = ("prompt", "said", "token", *found[0].importance, "in rationale")
    return Table("Token by token", columns, rows, lines=0, name="tokens")


def _positions(model: BridgeModel, prompts: Prompts, found: Sequence[ReadPrompt]) -> Table:
    from circuits.batches import tokenize_pair

    sums: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for pair, each in zip(prompts.pairs, found, strict=True):
        for name, column in tokenize_pair(model, pair, repr(pair.clean)).positions.items():
            if column >= each.first:
                values = (share[column - each.first] for share in each.importance.values())
                sums[name].append((*values, 1 / len(each.tokens)))
    rows = [
        (name, *(sum(column) / len(lines) for column in zip(*lines, strict=True)))
        for name, lines in sums.items()
    ]
    columns = ("position", *found[0].importance, "even share")
    title = "Mean importance of the positions that prompts name"
    return Table(title, columns, rows, name="positions")


def _judges(found: Sequence[ReadPrompt], seed: int) -> Table:
    rows = []
    for method, way in found[0].judged:
        for judge, name in zip(JUDGES, ("Soft-NS", "Soft-NC"), strict=True):
            own = [getattr(each.judged[method, way], judge) for each in found]
            chance = [getattr(each.judged[method, way], f"{judge}_shuffled") for each in found]
            better = _better(own, chance, seed)
            rows.append((f"{name}, {way}", method, sum(own) / len(own), sum(chance) / len(chance), better))
    rows.sort(key=lambda row: str(row[0]))
    columns = ("judge", "importance", "score", "shuffled", "better by")
    return Table("Whether importance is to be believed", columns, rows, (JUDGED,), name="judges")


def _better(own: Sequence[float], chance: Sequence[float], seed: int) -> str:
    if len(own) == 1:
        return number(own[0] - chance[0], 3)
    return estimate(_mean([a - b for a, b in zip(own, chance, strict=True)], seed), 3)


def _mean(values: Sequence[float], seed: int) -> Estimate:
    import numpy as np

    from circuits.evaluation.faithfulness import mean_estimate

    return mean_estimate(np.array(values), seed)


def _words(found: Sequence[ReadPrompt], search: Search) -> Iterator[str]:
    stopped, runs = sum(each.stopped for each in found), search.runs * len(found)
    steps = sum(each.steps for each in found) / len(found)
    yield (
        f"ReAGent: {stopped} of {runs} runs stopped, {search.top} tokens doing without the others; "
        f"{number(steps, 1)} steps a run on average, two forward passes each."
    )
    if stopped < runs:
        yield (
            f"{runs - stopped} runs did not stop within {search.steps} steps; of a prompt they count only where none "
            "of its runs did."
        )
