"""Which circuits are known for a task in a model: from the model's own card, and from papers.

The one idea: a circuit is known for the prompts that it was built, trained or published for, and for no others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuits.models.bridge import BridgeModel
    from tasks.task import Task

Heads = dict[str, frozenset[str]]


def known_circuits(task: Task, model: BridgeModel, form: str, corruption: str) -> tuple[Heads, Heads]:
    """Source -> heads of each known circuit; and, where its edges are known, its heads that write to the logits."""
    from circuits.models.builtin_models import card

    known: Heads = {}
    direct: Heads = {}
    circuit = card(model.name).circuits.get(task.name) if model.builtin else None
    if circuit and circuit.holds_for(form, corruption):
        known[f"{model.name} card"] = circuit.heads
        writers = circuit.heads & {edge.removesuffix("->logits") for edge in circuit.edges}
        if writers:
            direct[f"{model.name} card, heads that write to the logits"] = writers
    reference = task.references.get(model.name)
    if reference and (not reference.forms or form in reference.forms):
        known[reference.source] = reference.heads
    return known, direct
