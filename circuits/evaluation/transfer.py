"""Transfer: what circuits do on each other's tasks, beside random circuits of their sizes.

The one idea: overlap says that two tasks use the same components, not that these do the same work; a circuit that was
found on one task is therefore judged on the prompts of another. A large circuit does well on many tasks, so each
figure stands beside random circuits of the same size on the same prompts.
Sources: the cross-task matrix of Hanna et al. 2024 (arXiv 2403.17806), section 5; size-matched controls after Li &
Subramani 2026 (arXiv 2605.08348).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from circuits.batches import make_batches
from circuits.evaluation.faithfulness import Ablation, Bench, Verdict, bench, edge_bench, judge
from circuits.evaluation.recorded import Recorded
from circuits.evaluation.run_evaluation import PromptSet
from circuits.metrics import metric_named
from circuits.model import Model
from circuits.patching import require_engine
from circuits.progress import Progress, silent

N_RANDOM = 25


@dataclass(frozen=True)
class Traveller:
    """A circuit, by the name of its run. home: the name of the place whose task it was found on."""

    name: str
    home: str
    recorded: Recorded


@dataclass(frozen=True)
class Place:
    """Prompts to judge on, and the model to judge in. prompts: none that a traveller from here was found on."""

    name: str
    model: Model
    prompts: PromptSet


@dataclass(frozen=True)
class Journey:
    """What one circuit does at one place."""

    circuit: str
    place: str
    at_home: bool
    size: int
    verdict: Verdict


def transfer(
    travellers: Sequence[Traveller],
    places: Sequence[Place],
    *,
    ablation: Ablation = "resample",
    seed: int = 0,
    batch_size: int = 64,
    progress: Progress = silent,
) -> tuple[Journey, ...]:
    """Every circuit at every place, row by row.

    Raises CircuitError where a circuit does not fit a model, ModelError where edges are asked of a model that the
    engine does not cover, PromptError for prompts that a model cannot read.
    """

    @cache  # circuits of the same components share a bench, and with it both ends of its scale
    def at(place: int, played: tuple[str, ...], edges: bool) -> Bench:
        model, prompts = places[place].model, places[place].prompts
        batches = make_batches(model, prompts.pairs, batch_size=batch_size, names=prompts.names)
        means = make_batches(model, prompts.means_from or prompts.pairs) if ablation == "mean" else ()
        found = bench(model, batches, metric_named(prompts.metric), ablation, played=played, means_from=means)
        if edges:
            require_engine(model, batches, "Judging a circuit of edges")
        return edge_bench(found, played) if edges else found

    journeys = []
    for traveller in travellers:
        circuit = traveller.recorded.circuit
        for i, there in enumerate(places):
            stage = at(i, traveller.recorded.played, traveller.recorded.edges)
            verdict = judge(stage, circuit, seed=seed, n_random=N_RANDOM)
            home = traveller.home == there.name
            journeys.append(Journey(traveller.name, there.name, home, len(circuit.kept), verdict))
            progress("transfer", len(journeys), len(travellers) * len(places))
    return tuple(journeys)


def specificity(journeys: Sequence[Journey], circuit: str) -> float | None:
    """How much more faithful a circuit is at home than elsewhere on average; None where it went nowhere."""
    mine = [journey for journey in journeys if journey.circuit == circuit]
    home = [j.verdict.faithfulness.value for j in mine if j.at_home]
    away = [j.verdict.faithfulness.value for j in mine if not j.at_home]
    return sum(home) / len(home) - sum(away) / len(away) if home and away else None
