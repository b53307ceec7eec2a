"""Which circuits are known for a task in a model: from the model's own card, and from papers.

The one idea: a circuit is known for the prompts that it was built, trained or published for, and for no others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from circuits.models.bridge import BridgeModel
    from tasks.task import Task


class Known(NamedTuple):
    """Source -> members of each known circuit. direct: where edges are known, the heads that write to the logits."""

    heads: dict[str, frozenset[str]]
    direct: dict[str, frozenset[str]]
    edges: dict[str, frozenset[str]]


def known_circuits(task: Task, model: BridgeModel, form: str, corruption: str) -> Known:
    """Every circuit that is known for these prompts in this model."""
    from circuits.models.builtin_models import card
    from cli.task_files import source_of

    known = Known({}, {}, {})
    # A user's own task may have the name of one that the model was built for.
    circuit = card(model.name).circuits.get(task.name) if model.builtin and not source_of(task) else None
    if circuit and circuit.holds_for(form, corruption):
        source = f"{model.name} card"
        known.heads[source] = circuit.heads
        edges = circuit.edges.get(corruption, frozenset())
        if edges:
            known.edges[source] = edges
            writers = circuit.heads & {edge.removesuffix("->logits") for edge in edges}
            known.direct[f"{source}, heads that write to the logits"] = writers
    reference = task.references.get(model.name)
    if reference and (not reference.forms or form in reference.forms):
        known.heads[reference.source] = reference.heads
    return known
