"""What `circuit answers` found: nodes by what they write, the set that answers, and the set on changed prompts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from cli.answer_nodes_tables import by_prompts, tabled, tables
from cli.reading_output import Drawing, Reading, model_record
from cli.wording import estimate, number, share

if TYPE_CHECKING:
    from circuits.answers.study import Answers
    from circuits.evaluation.faithfulness import Estimate
    from circuits.models.bridge import BridgeModel
    from cli.prompt_source import Prompts

RECORD = "answers.json"
"""By which the folder is known."""


def reading_of(model: BridgeModel, prompts: Prompts, found: Answers, seed: int) -> Reading:
    title = f"Answers of {model.name} to {prompts.name}"
    return Reading(
        RECORD,
        title,
        {
            "model": model_record(model),
            "prompts": {
                "task": prompts.name,
                "form": prompts.form,
                "corruption": prompts.corruption,
                "n": len(prompts.pairs),
            },
            "seed": seed,
        }
        | _kept(found),
        tuple(_words(found)),
        tables(found),
        {"nodes": list(_node_rows(found)), "judged": list(_judged(found))} | _cells(found),
        tuple(_drawings(title, found)),
    )


def _kept(found: Answers) -> dict[str, Any]:
    from circuits.answers import classes

    thresholds = ("LEVEL", "HALF", "EVEN", "ONE", "VISIBLE", "DIRECT")
    return {
        "labels": found.labels.names,
        "discovery": {"n": found.n, "answered": found.right, "net": found.own, "biases": found.biases},
        "thresholds": {name.lower(): getattr(classes, name) for name in thresholds},
        "attention_chance": found.looks.chance,
        "nodes": {row.pop("node"): row for row in _node_rows(found)},
        "set": {"nodes": found.chosen, "judged": found.judged},
        "mutations": found.changed,
    }


def _node_rows(found: Answers) -> Iterator[dict[str, Any]]:
    """One a node, in the order of the model."""
    heads, paid = itertools.count(), found.looks.attention | {"evenness": found.looks.evenness}
    for at, node in enumerate(found.nodes):
        row: dict[str, Any] = {"node": node.name, "class": node.kind, "in_set": node.in_set}
        for name, value in (("net", node.net), ("direct", node.direct), ("total", node.total)):
            row |= _columns(name, value)
        row |= {"p_direct": found.acts.p_direct[at], "p_total": found.acts.p_total[at]}
        head = next(heads) if node.name[0] == "a" else None
        for place in ("right", "labels", "evenness", "content", "end"):
            each = paid.get(place)
            row[f"looks_{place}"] = None if head is None or each is None else float(each[head])
        if (table := found.table) is not None:
            row |= {"knows": table.knows[at], "knows_chance": table.chance[at], "p_knows": table.p_values[at]}
            row["conditional_share"] = table.conditional_share[at]
        yield {name: value.item() if hasattr(value, "item") else value for name, value in row.items()}


def _cells(found: Answers) -> dict[str, list[dict[str, Any]]]:
    """The table of answers by labels, a cell a line."""
    if (table := found.table) is None:
        return {}
    names, conditional = found.labels.names, table.conditional
    return {
        "labels": [
            {
                "node": node.name,
                "answer": answer,
                "label": label,
                "net": float(table.cells[at, a, b]),
                "unconditional": float(table.unconditional[at, b]),
                "conditional": float(conditional[at, a, b]),
            }
            for at, node in enumerate(found.nodes)
            for a, answer in enumerate(names)
            for b, label in enumerate(names)
        ]
    }


def _judged(found: Answers) -> Iterator[dict[str, Any]]:
    """The set on judged prompts, and on changed ones, a line each."""
    for name, joint in by_prompts(found).items():
        row: dict[str, Any] = {"prompts": name, "n": joint.n_prompts, "chance": joint.chance}
        for part in ("accuracy", "net_clean", "net_corrupt", "accuracy_with", "recovered", "brought"):
            row |= _columns(part, getattr(joint, part))
        row |= {part: getattr(joint, part) for part in ("loss_clean", "loss_corrupt", "loss_with", "p_value")}
        low, middle, high = joint.random or (None, None, None)
        row |= {"random": middle, "random_low": low, "random_high": high}
        changed = found.changed.get(name)
        row |= _columns("survives", changed.survives if changed else None)
        yield row | {"survives_random": changed.random if changed else None}


def _columns(name: str, value: Estimate | None) -> dict[str, float | None]:
    parts = (None, None, None) if value is None else (value.value, value.low, value.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), parts, strict=True))


def _words(found: Answers) -> Iterator[str]:
    from circuits.answers.classes import ONE, chance_of_one_label
    from circuits.answers.labels import MOST

    judged, labels = found.judged, found.labels
    yield (
        f"{found.right} of {found.n} discovery prompts are answered rightly; their net logit is "
        f"{estimate(found.own)}, of which biases write {number(found.biases)}. On {judged.n_prompts} judged prompts "
        f"{share(judged.accuracy)} are, and {judged.chance:.1%} by who picks any label."
    )
    if judged.accuracy.low <= judged.chance:
        yield (
            "That is not clearly above chance: the model does not solve this, the prompts that nodes are read on are "
            "those of lucky guesses, and what is said of them explains no answer."
        )
    heads = sum(name[0] == "a" for name in found.chosen)
    recovered = (
        "there is no loss to recover"
        if judged.recovered is None
        else (
            f"put into the corrupted prompts they recover {estimate(judged.recovered)} of the loss "
            f"({number(judged.loss_corrupt)} to {number(judged.loss_with)} nats, {number(judged.loss_clean)} clean)"
        )
    )
    yield (
        f"{len(found.chosen)} nodes ({heads} heads) write 80% of all that is written for the right label: "
        f"{', '.join(found.chosen) or 'none'}; {recovered}."
    )
    if found.table is None:
        yield (
            f"Of {len(labels.names)} labels {int(labels.both.sum())} are right in some prompts and wrong in others. "
            f"A bias can be told from knowledge for those alone, of {MOST} labels at most, one right in each prompt: "
            "so nodes have no class by what they write."
        )
        return
    bound = len(labels.names) if labels.own.all() else round(float(labels.own.sum(1).mean()))
    yield (
        f"Classes are by the first rule that holds (docs/analyses/answers.md). Of random biases over {bound} labels "
        f"{chance_of_one_label(bound, 0):.0%} raise one as single-label asks ({ONE:.0%} of all that is raised)."
    )


def _drawings(title: str, found: Answers) -> Iterator[Drawing]:
    from cli.report.answers import Dot, answers_figure, labels_figure

    dots = [Dot(node.name, node.kind, node.in_set, node.direct, node.total) for node in found.nodes]
    yield Drawing(
        "effects.png",
        "Direct effect of every node against its total effect, in net logits of the right label",
        partial(answers_figure, [dot for dot in dots if dot.name != "input"], title),
    )
    if (table := found.table) is not None and (shown := tabled(found)):
        cells = {found.nodes[at].name: table.cells[at] for at in shown}
        yield Drawing(
            "labels.png",
            "Net logit that nodes write for each label when each is the right one",
            partial(labels_figure, cells, found.labels.names, title),
        )
