"""What `circuit in-context` found: the phases layer by layer, their heads, and what each edge is worth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from cli.reading_output import Drawing, Reading, Table, model_record
from cli.wording import estimate, number, share

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from circuits.in_context.ablation import Ablation
    from circuits.in_context.study import Study
    from circuits.models.bridge import BridgeModel
    from cli.prompt_source import Prompts

RECORD = "in-context.json"
"""By which the folder is known."""

SHOWN = 6
"""Heads that the terminal lists."""

PICTURE = (
    "Four panels: by layer, what the query's forerunner knows of its text and of the answer; heads that merge; heads "
    "that retrieve; and accuracy without each edge, beside controls"
)


def reading_of(model: BridgeModel, prompts: Prompts, found: Study, draws: int, seed: int) -> Reading:
    named = f"{prompts.name} ({prompts.form})" if prompts.form else prompts.name
    kept = {
        "model": model_record(model),
        "prompts": {"task": prompts.name, "form": prompts.form, "n": found.n},
        "seed": seed,
        "draws": draws,
        "chance": found.chance,
        "solves": found.solves,
        "threshold": found.level.threshold,
        **asdict(found),
    }
    return Reading(
        RECORD,
        f"In-context learning of {model.name} on {named}",
        kept,
        tuple(words(found)),
        (_streams(found), _merged(found), _mergers(found), _retrievers(found), _ablations(found)),
        drawings=(Drawing("phases.png", PICTURE, partial(_draw, found)),),
    )


def _draw(found: Study) -> Figure:
    from cli.report.in_context import phases_picture

    return phases_picture(found)


def behind(layers: int) -> str:
    """Where the residual stream is read: how many layers lie behind it."""
    return f"layer {layers - 1}" if layers else "embedding"


def span_words(found: Study, layers: tuple[int, int]) -> str:
    """2, 1-3, or all."""
    first, last = layers
    if layers == (0, len(found.streams) - 2):
        return "all"
    return f"{first}" if first == last else f"{first}-{last}"


def _streams(found: Study) -> Table:
    rows = [
        (
            behind(each.layers),
            estimate(each.text.value),
            each.text.shuffled,
            estimate(each.answer.accuracy),
            each.answer.shuffled,
            each.nearest.value,
        )
        for each in found.streams
    ]
    columns = ("behind", "KA with text", "shuffled", "answer read", "guess", "nearest")
    return Table("1 Summarise: what s_q knows", columns, rows, (_streams_note(found),), name="summary")


def _streams_note(found: Study) -> str:
    return (
        f"KA: of the {found.neighbours} nearest of {found.n - 1} prompts, the share that s_q and its text's "
        "embeddings agree on. Answer read: by the nearest class mean, on judged prompts; guess: the same with "
        "classes shuffled. Nearest: share of prompts whose s_i most like s_q is of the answer's label, "
        f"{number(found.level.same)} by chance."
    )


def _merged(found: Study) -> Table:
    rows = [
        (f"layer {each.layer}", estimate(each.alignment.value), each.alignment.shuffled, each.label_alone)
        for each in found.merged
    ]
    columns = ("in", "KA of y with s", "shuffled", "label alone")
    note = (
        "y behind the layer against s before it, last example; label alone: y's embedding against the same s."
    )
    return Table("2 Merge: what labels take over from forerunners", columns, rows, (note,), name="merge")


def _mergers(found: Study) -> Table:
    rows = [
        (
            each.head,
            each.attention.value,
            each.attention.low,
            each.attention.high,
            each.previous,
            _yes(each.passes),
        )
        for each in found.mergers
    ]
    columns = ("head", "A[y_i, s_i]", "low", "high", "token before, elsewhere", "counts")
    note = f"Counts: more than 5 / n_t = {number(found.level.threshold, 3)}."
    return Table(
        "Heads that look from label to forerunner", columns, rows, (note,), lines=SHOWN, name="merging-heads"
    )


def _retrievers(found: Study) -> Table:
    rows = [
        (
            each.head,
            each.magnitude.value,
            each.random,
            estimate(each.correct),
            each.likelihood,
            "right labels" if each.passes_correct else _yes(each.passes),
        )
        for each in found.retrievers
    ]
    columns = ("head", "to labels", "others", "right - wrong", "right share", "counts")
    level = found.level
    note = (
        f"Attention of s_q; others: what as many other tokens get. Counts: more than {number(level.threshold, 3)} "
        f"(even attention gives {number(level.even, 3)}); right labels: and right - wrong above "
        f"{number(level.threshold / level.labels, 3)}. {level.same:.1%} of the labels are right."
    )
    return Table(
        "3 Retrieve: heads that look from s_q to labels",
        columns,
        rows,
        (note,),
        lines=SHOWN,
        name="retrieving-heads",
    )


def _yes(passes: bool) -> str:
    return "yes" if passes else ""


def _ablations(found: Study) -> Table:
    rows = [
        (
            each.edge,
            span_words(found, each.layers),
            estimate(each.accuracy),
            *(control.mean for control in each.controls.values()),
            estimate(each.controls["same queries"].lost),
        )
        for each in found.ablations
    ]
    columns = ("edge", "layers", "accuracy", "random", "queries", "lost more")
    note = (
        f"Accuracy over the labels with the edge forbidden; {estimate(found.accuracy)} with nothing forbidden. "
        "Random: with as many other entries forbidden; queries: others of the same queries; lost more: by how much "
        "the edge costs more than those."
    )
    return Table("Without an edge, in all heads", columns, rows, (note,), name="ablations")


def words(found: Study) -> Iterator[str]:
    """What is said below the tables, and on top of the report."""
    yield (
        f"Of its {number(found.level.labels, 0)} labels the right one is likeliest on {share(found.accuracy)} of "
        f"{found.n} prompts of {number(found.level.examples, 0)} examples; a guess is right on {found.chance:.1%}."
    )
    if not found.solves:
        yield "That is no better than a guess: what follows is how the model reads such prompts, not how it answers."
    yield from (_summarise(found), _merge(found), _retrieve(found))
    yield from (_without(each) for each in found.ablations if span_words(found, each.layers) == "all")


def _summarise(found: Study) -> str:
    text = max(found.streams, key=lambda each: each.text.value.value)
    read = max(found.streams, key=lambda each: each.answer.accuracy.value)
    return (
        f"Summarise: s_q is most like its text behind {behind(text.layers)}, KA {estimate(text.text.value)} "
        f"(shuffled {number(text.text.shuffled)}); the answer is read off it best behind {behind(read.layers)}, on "
        f"{share(read.answer.accuracy)} (shuffled {read.answer.shuffled:.1%})."
    )


def _merge(found: Study) -> str:
    best = max(found.merged, key=lambda each: each.alignment.value.value)
    heads = [each for each in found.mergers if each.passes]
    listed = ", ".join(
        f"{each.head} {number(each.attention.value)} (elsewhere {number(each.previous)})"
        for each in heads[:3]
    )
    return (
        f"Merge: y is most like s in layer {best.layer}, KA {estimate(best.alignment.value)} (shuffled "
        f"{number(best.alignment.shuffled)}, by the label alone {number(best.label_alone)}); {len(heads)} of "
        f"{len(found.mergers)} heads look from labels to forerunners{': ' + listed if listed else ''}."
    )


def _retrieve(found: Study) -> str:
    heads = [each for each in found.retrievers if each.passes]
    right = sorted((each for each in heads if each.passes_correct), key=lambda each: -each.correct.value)
    best = f"; first {right[0].head}, {right[0].likelihood:.1%} of it to right ones" if right else ""
    near = max(found.streams, key=lambda each: each.nearest.value)
    return (
        f"Retrieve: {len(heads)} of {len(found.retrievers)} heads look from s_q to labels, {len(right)} of them more "
        f"to right ones{best} ({found.level.same:.1%} of the labels are). Likeness of s_i to s_q alone finds a right "
        f"one on {share(near.nearest)} at best, behind {behind(near.layers)}."
    )


def _without(each: Ablation) -> str:
    controls = ", ".join(f"{c.mean:.1%} {name}" for name, c in each.controls.items())
    return f"Without {each.edge} in all layers {share(each.accuracy)} are right; without as many others {controls}."
