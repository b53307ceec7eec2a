"""The tables of `circuit answers`, each narrow enough for a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.reading_output import Table
from cli.wording import estimate, number, p_value
from tasks.mutations import MUTATIONS

if TYPE_CHECKING:
    import numpy as np

    from circuits.answers.joint import Joint
    from circuits.answers.study import Answers, NodeReading

SHOWN, NARROW = 14, 4
NODES = (
    "*: in the set. In logits of the right label less the mean over the labels, on prompts that are answered "
    "rightly. net: what the node writes at the last token, last norm frozen; with the biases nets sum to the whole. "
    "direct: what the last residual loses where the node writes as on the corrupted prompt; total: what the answer "
    "loses where it puts that out at all tokens."
)
LABELS = (
    "knows: what the node adds to the right label beyond what it adds to that label whatever is right (its bias); in "
    "brackets what 95% of draws of any label as the right one stay below, p by Holm over nodes. share: of what is no "
    "bias, in the mean square of what is written."
)
SET = (
    "The set's outputs at the last token put into the corrupted prompt. recovered: of the loss, -log p(right label) "
    "among the labels, if that is clearly lower on the clean prompt; random: the median of 25 sets of as many heads "
    "and MLPs, with 95% of them; p: that one of those does as well."
)
SURVIVES = (
    "brings: what the set adds to the right label's net logit. survives: that in what it adds unchanged, if that is "
    "clearly above nothing; random: what random sets bring, in the same, on average."
)
PLACES = {
    "right": "on the right label",
    "labels": "on all labels",
    "content": "on what the prompt is about",
    "end": "on what all prompts end in",
}


def tables(found: Answers) -> tuple[Table, ...]:
    return (_nodes(found), _looks(found), *_labels(found), *_changed(found), _set(found), *_survives(found))


def _by_size(found: Answers) -> list[NodeReading]:
    """Those with the largest effects first, of either kind."""
    return sorted(found.nodes, key=lambda n: -max(abs(n.direct.value), abs(n.total.value)))


def _nodes(found: Answers) -> Table:
    columns = ("node", "class", "net", "direct", "total")
    rows = [
        (
            node.name + "*" * node.in_set,
            node.kind,
            number(node.net.value),
            estimate(node.direct),
            estimate(node.total),
        )
        for node in _by_size(found)
    ]
    title = "Nodes by the larger of their effects"
    return Table(title, columns, rows, (NODES,), lines=SHOWN, numeric=columns[2:], folding=())


def _looks(found: Answers) -> Table:
    """Heads in the same order, below what even attention gives."""
    seen = found.looks.attention
    heads = [node.name for node in found.nodes if node.name[0] == "a"]
    even = ("even attention", *(number(found.looks.chance[name]) for name in seen))
    rows = [
        (node.name, *(number(float(paid[heads.index(node.name)])) for paid in seen.values()))
        for node in _by_size(found)
        if node.name in heads
    ]
    note = "; ".join(f"{name}: {PLACES[name]}" for name in seen) + "."
    title = "Where the last token looks by these heads"
    return Table(title, ("head", *seen), [even, *rows], (note,), lines=SHOWN // 2, numeric=tuple(seen))


def tabled(found: Answers) -> list[int]:
    """Nodes of the set, and those that raise one label, who knows most first; none where there is no table."""
    if (table := found.table) is None:
        return []
    shown = [at for at, node in enumerate(found.nodes) if node.in_set or node.kind == "single-label"]
    return sorted(shown, key=lambda at: -table.knows[at])


def _labels(found: Answers) -> list[Table]:
    """What nodes know, and what they raise whatever is right."""
    if (table := found.table) is None:
        return []
    names, few = found.labels.names, len(found.labels.names) <= NARROW
    rows = [
        (
            found.nodes[at].name,
            f"{number(table.knows[at])} ({number(table.chance[at])})",
            p_value(float(table.p_values[at])),
            number(float(table.conditional_share[at])),
            *(map(number, table.unconditional[at]) if few else (_largest(names, table.unconditional[at]),)),
        )
        for at in tabled(found)
    ]
    biases = tuple(f"bias {name}" for name in names) if few else ("largest bias",)
    columns = ("node", "knows (chance)", "p", "share", *biases)
    title = "What the set's nodes know, and their biases"
    return [Table(title, columns, rows, (LABELS,), lines=SHOWN, numeric=columns[1:], folding=())]


def _largest(names: tuple[str, ...], bias: np.ndarray) -> str:
    import numpy as np

    return f"{names[int(np.nanargmax(bias))]} {number(float(np.nanmax(bias)))}"


def by_prompts(found: Answers) -> dict[str, Joint]:
    """The judged prompts as they are, then under each mutation."""
    return {"as they are": found.judged} | {name: each.joint for name, each in found.changed.items()}


def _changed(found: Answers) -> list[Table]:
    """How the model itself does on changed prompts."""
    if not found.changed:
        return []
    columns = ("prompts", "what changes", "accuracy", "net")
    meanings = {"as they are": ""} | {name: MUTATIONS[name].meaning for name in found.changed}
    rows = [
        (name, meanings[name], estimate(each.accuracy), estimate(each.net_clean))
        for name, each in by_prompts(found).items()
    ]
    note = f"accuracy: among the labels; {number(found.judged.chance)} by who picks any."
    title = "Judged prompts, as they are and changed"
    return [Table(title, columns, rows, (note,), numeric=columns[2:], folding=columns[1:2])]


def _set(found: Answers) -> Table:
    columns = ("prompts", "recovered", "random", "p")
    rows = [
        (
            name,
            "" if each.recovered is None else estimate(each.recovered),
            "" if each.random is None else "{1} ({0} to {2})".format(*map(number, each.random)),
            "" if each.p_value is None else p_value(each.p_value),
        )
        for name, each in by_prompts(found).items()
    ]
    return Table(
        "What the set does on judged prompts", columns, rows, (SET,), numeric=columns[1:], folding=()
    )


def _survives(found: Answers) -> list[Table]:
    if not found.changed:
        return []
    columns = ("prompts", "brings", "survives", "random")
    rows = [("as they are", estimate(found.judged.brought), "", "")]
    rows += [
        (
            name,
            estimate(each.joint.brought),
            "" if each.survives is None else estimate(each.survives),
            "" if each.random is None else number(each.random),
        )
        for name, each in found.changed.items()
    ]
    title = "What of the set's effect survives"
    return [Table(title, columns, rows, (SURVIVES,), numeric=columns[1:], folding=())]
