"""What `circuit mlp` found: MLP by MLP, head by head, and the last layer, in words and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from cli.reading_output import Drawing, Reading, Table, model_record
from cli.wording import estimate, number, share

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from circuits.mlp_reading.overconfidence import Overconfidence
    from circuits.mlp_reading.reading import Reading as MlpReading
    from circuits.models.bridge import BridgeModel
    from cli.prompt_source import Prompts

RECORD = "mlp.json"
"""By which the folder is known."""

SHOWN, TOKENS = 8, 3
MODEL = (
    "y = sum over heads of b * (what the head wrote) + c, at the last token, by least squares over the fitted half; "
    "b < 0 erases, b > 0 amplifies, c is the task's vector. R^2 is on the judged half, against the mean output; "
    "shuffled: the mean of fits to the outputs of other prompts, which is chance."
)


def reading_of(
    model: BridgeModel,
    prompts: Prompts,
    found: Sequence[MlpReading],
    last: Overconfidence,
    text: str,
    seed: int,
) -> Reading:
    kept = {
        "model": model_record(model),
        "prompts": {"task": prompts.name, "form": prompts.form, "n": len(prompts.pairs)},
        "seed": seed,
        "definition": MODEL,
        "mlps": [_kept(each) for each in found],
        "last_layer": {"text": text} | vars(last),
    }
    title = f"MLPs of {model.name} on {prompts.name}"
    return Reading(
        RECORD,
        title,
        kept,
        tuple(_words(found, last, text)),
        (_mlps(found), _answers(found), _heads(found), _last(last)),
        drawings=(
            Drawing("mlp.png", "The number that each MLP puts on each head", partial(_draw, found, title)),
        ),
    )


def _draw(found: Sequence[MlpReading], title: str) -> Figure:
    from cli.report.readings import mlp_picture

    return mlp_picture(found, title)


def _kept(each: MlpReading) -> dict[str, object]:
    of = each.regression
    return {
        "mlp": each.mlp,
        "r2": {"value": of.r2, "low": of.r2_low, "high": of.r2_high},
        "r2_shuffled": of.shuffled,
        "r2_by_ridge": of.by_ridge,
        "condition": of.fit.condition,
        "heads": {
            head: {"b": float(b), "low": float(low), "high": float(high)}
            for head, b, low, high in zip(each.heads, of.fit.heads, of.low, of.high, strict=True)
        },
        "task_vector_tokens": each.tokens,
        "answered": each.answered,
    }


def _mlps(found: Sequence[MlpReading]) -> Table:
    rows = [
        (
            each.mlp,
            f"{number(of.r2)} [{number(of.r2_low)}, {number(of.r2_high)}]",
            float(sum(of.shuffled) / len(of.shuffled)),
            f"{int((of.high < 0).sum())} / {int((of.low > 0).sum())} of {len(each.heads)}",
            " ".join(each.tokens[:TOKENS]),
        )
        for each in found
        for of in [each.regression]
    ]
    columns = ("MLP", "R^2", "shuffled", "erased / amplified", "c says")
    return Table("What heads and one vector tell of each MLP", columns, rows, (MODEL,), name="mlps")


def _answers(found: Sequence[MlpReading]) -> Table:
    from circuits.mlp_reading.reading import REPLACEMENTS

    rows = [
        (each.mlp, *(each.answered[name].metric.value for name in REPLACEMENTS.values())) for each in found
    ]
    title = "Metric on judged prompts with something else in the MLP's place at the last token"
    return Table(title, ("MLP", *REPLACEMENTS), rows, name="answers")


def _heads(found: Sequence[MlpReading]) -> Table:
    rows = []
    for each in found:
        of = each.regression
        for head, b, low, high in zip(each.heads, of.fit.heads, of.low, of.high, strict=True):
            rows.append((each.mlp, head, float(b), float(low), float(high)))
    rows.sort(key=lambda row: -min(abs(row[3]), abs(row[4])) if row[3] * row[4] > 0 else 0.0)
    columns = ("MLP", "head", "b", "low", "high")
    title = "Heads by how surely an MLP erases or amplifies them"
    return Table(title, columns, rows, lines=SHOWN, name="heads")


def _last(last: Overconfidence) -> Table:
    rows = [
        (part.name, part.effect.value, part.effect.low, part.effect.high, part.frequency)
        for part in sorted(last.parts, key=lambda part: part.effect.value)
    ]
    columns = ("part", "effect on log p(answer)", "low", "high", "with token frequency")
    title = f"Direct effects of layer {last.layer}, in nats"
    return Table(title, columns, rows, lines=SHOWN, name="last-layer")


def _words(found: Sequence[MlpReading], last: Overconfidence, text: str) -> Iterator[str]:
    best = max(found, key=lambda each: each.regression.r2)
    yield (
        f"Heads and one vector tell {best.mlp} best: R^2 {number(best.regression.r2)} on prompts that were not "
        f"fitted (highest of {len(best.regression.shuffled)} shuffled fits "
        f"{number(max(best.regression.shuffled))})."
    )
    if not last.scaled:
        yield f"No part of layer {last.layer} lowers the answer's probability: there is nothing to mitigate."
        return
    none, done = last.judged["none"], last.judged["suppressors"]
    yield (
        f"{', '.join(last.scaled)} lower the answer; scaled by {last.chosen:g}, as the fitted half chose, they "
        f"leave it a probability of {estimate(done.probability, 3)} instead of {estimate(none.probability, 3)}, "
        f"first on {share(done.correct)} instead of {share(none.correct)}; other text ({text}) moves by "
        f"{estimate(done.divergence, 3)} nats."
    )
    if "random" in last.judged:
        control = last.judged["random"]
        yield (
            f"As many other parts of the layer ({', '.join(last.random)}), scaled alike: probability "
            f"{estimate(control.probability, 3)}, text moves by {estimate(control.divergence, 3)} nats."
        )
