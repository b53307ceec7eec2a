"""What `circuit answers` found: nodes by what they write, the set that answers, and the set on changed prompts."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from cli.reading_output import Drawing, Reading, Table, model_record
from cli.wording import estimate, number, p_value, share
from tasks.mutations import MUTATIONS

if TYPE_CHECKING:
    from circuits.answers.joint import Joint
    from circuits.answers.study import Answers, NodeReading
    from circuits.models.bridge import BridgeModel
    from cli.prompt_source import Prompts

RECORD = "answers.json"
"""By which the folder is known."""

SHOWN, NARROW = 14, 6
NODES = (
    "*: in the set. In logits of the right label less the mean over the labels, on prompts that are answered "
    "rightly. net: what the node writes at the last token, last norm frozen; with the biases nets sum to the whole. "
    "direct: what the last residual loses where the node writes as on the corrupted prompt; total: what the answer "
    "loses where it puts that out at all tokens."
)
PLACES = {"labels": "the labels", "content": "what the prompt is about", "end": "what all prompts end in"}
SET = (
    "The set's outputs at the last token put into the corrupted prompt. recovered: of the loss, -log p(right label) "
    "among the labels, if that is clearly lower on the clean prompt; random: the median of 25 sets of as many heads "
    "and MLPs, with 95% of them; p: that one of those does as well."
)
SURVIVES = (
    "brings: what the set adds to the right label's net logit. survives: that in what it adds unchanged, if that is "
    "clearly above nothing; random: what random sets bring, in the same, on average."
)


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
        (_nodes(found), *_labels(found), *_judged(found)),
        {"nodes": list(_node_rows(found))} | _cells(found),
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
    heads = iter(range(len(found.looks.end)))
    for at, node in enumerate(found.nodes):
        row: dict[str, Any] = {"node": node.name, "class": node.kind, "in_set": node.in_set}
        for name, value in (("net", node.net), ("direct", node.direct), ("total", node.total)):
            row |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        row |= {"p_direct": found.acts.p_direct[at], "p_total": found.acts.p_total[at]}
        head = next(heads) if node.name[0] == "a" else None
        for place in ("right", "labels", "evenness", "end", "content"):
            paid = getattr(found.looks, place)
            row[f"looks_{place}"] = None if head is None or paid is None else float(paid[head])
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


def _nodes(found: Answers) -> Table:
    """Those with the largest effects, of either kind."""
    of = {row["node"]: row for row in _node_rows(found)}
    places = [place for place in PLACES if place in found.looks.chance]
    where = ", ".join(f"{PLACES[place]} ({number(found.looks.chance[place])})" for place in places)
    looks = (
        f"{', '.join(places)}: attention of the last token on {where}; in brackets what even attention gives."
    )
    rows = [
        (
            node.name + "*" * node.in_set,
            node.kind,
            number(node.net.value),
            estimate(node.direct),
            estimate(node.total),
            *(_paid(of[node.name][f"looks_{place}"]) for place in places),
        )
        for node in sorted(found.nodes, key=_size, reverse=True)
    ]
    columns = ("node", "class", "net", "direct", "total", *places)
    return Table(
        "Nodes by the larger of their effects",
        columns,
        rows,
        (NODES, looks),
        lines=SHOWN,
        numeric=columns[2:],
        folding=(),
    )


def _paid(value: float | None) -> str:
    return "" if value is None else number(value)


def _size(node: NodeReading) -> float:
    return max(abs(node.direct.value), abs(node.total.value))


def _labels(found: Answers) -> list[Table]:
    """What nodes know, and what they raise whatever is right: those of the set, and those that raise one label."""
    if (table := found.table) is None:
        return []
    names = found.labels.names
    shown = _tabled(found)
    few = len(names) <= NARROW
    rows = [
        (
            found.nodes[at].name,
            f"{number(table.knows[at])} ({number(table.chance[at])})",
            p_value(float(table.p_values[at])),
            float(table.conditional_share[at]),
            *((number(x) for x in table.unconditional[at]) if few else (_most(found, at),)),
        )
        for at in shown
    ]
    biases = tuple(f"bias {name}" for name in names) if few else ("largest bias",)
    columns = ("node", "knows (chance)", "p", "conditional share", *biases)
    return [
        Table(
            "What the set's nodes know of the answer, and their biases",
            columns,
            rows,
            lines=SHOWN,
            numeric=columns[1:],
            folding=(),
        )
    ]


def _most(found: Answers, at: int) -> str:
    import numpy as np

    assert found.table is not None
    bias = found.table.unconditional[at]
    return f"{found.labels.names[int(np.nanargmax(bias))]} {number(float(np.nanmax(bias)))}"


def _judged(found: Answers) -> list[Table]:
    columns = ("prompts", "accuracy", "net", "recovered", "random", "p")
    changed = {name: changed.joint for name, changed in found.changed.items()}
    rows = [_row(name, joint) for name, joint in {"as they are": found.judged, **changed}.items()]
    title = "The set on judged prompts" + ", and on changed ones" * bool(changed)
    judged = Table(title, columns, rows, (SET,), name="judged", numeric=columns[1:], folding=())
    return [judged, *_survives(found)]


def _row(name: str, joint: Joint) -> tuple[str, ...]:
    band = joint.random
    return (
        name,
        estimate(joint.accuracy),
        estimate(joint.net_clean),
        "" if joint.recovered is None else estimate(joint.recovered),
        "" if band is None else "{1} ({0} to {2})".format(*map(number, band)),
        "" if joint.p_value is None else p_value(joint.p_value),
    )


def _survives(found: Answers) -> list[Table]:
    if not found.changed:
        return []
    columns = ("prompts", "what they are", "brings", "survives", "random")
    rows = [("as they are", "", estimate(found.judged.brought), "", "")]
    for name, changed in found.changed.items():
        survives = "" if changed.survives is None else estimate(changed.survives)
        meaning, brought = MUTATIONS[name].meaning, changed.joint.brought
        rows.append(
            (
                name,
                meaning,
                estimate(brought),
                survives,
                number(changed.random) if changed.random is not None else "",
            )
        )
    title = "What of the set's effect survives"
    return [Table(title, columns, rows, (SURVIVES,), name="survives", numeric=columns[2:])]


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
    if (table := found.table) is not None and (shown := _tabled(found)):
        cells = {found.nodes[at].name: table.cells[at] for at in shown}
        yield Drawing(
            "labels.png",
            "Net logit that nodes write for each label when each is the right one",
            partial(labels_figure, cells, found.labels.names, title),
        )


def _tabled(found: Answers) -> list[int]:
    """Nodes of the set, and those that raise one label, who knows most first."""
    assert found.table is not None
    knows = found.table.knows
    shown = [at for at, node in enumerate(found.nodes) if node.in_set or node.kind == "single-label"]
    return sorted(shown, key=lambda at: -knows[at])
