"""Transfer: each cell is the verdict of that circuit on those prompts; known circuits are faithful at home."""

from __future__ import annotations

import pytest
from tiny_models import prompt_pairs

from circuits.batches import make_batches
from circuits.circuit import Circuit
from circuits.evaluation.faithfulness import bench, judge
from circuits.evaluation.recorded import Recorded
from circuits.evaluation.run_evaluation import PromptSet
from circuits.evaluation.transfer import Place, Traveller, specificity, transfer
from circuits.metrics import logit_difference
from circuits.models.bridge import BridgeModel, load_model
from circuits.models.builtin_models import card
from circuits.models.source import find_model
from circuits.prompts import PromptPair
from cli.prompt_source import sample_task
from tasks import TASKS


def _prompts(task: str, pairs: tuple[PromptPair, ...]) -> PromptSet:
    names = tuple(f"prompt {i + 1}" for i in range(len(pairs)))
    return PromptSet(task, pairs, names, "logit-difference", task)


@pytest.mark.parametrize("ablation", ["resample", "mean"])
def test_every_cell_is_the_verdict_of_that_circuit_there(gpt2: BridgeModel, ablation: str) -> None:
    pairs, some, all_ = prompt_pairs(12), ("a0.h1", "m0", "a2.h0"), gpt2.graph.components
    heads = gpt2.graph.heads
    travellers = (
        Traveller("x", "here", Recorded(Circuit(some, "m", "by hand"), None, all_)),
        Traveller("y", "there", Recorded(Circuit(some[:1], "m", "by hand"), None, heads)),
    )
    places = (
        Place("here", gpt2, _prompts("here", pairs[:6])),
        Place("there", gpt2, _prompts("there", pairs[6:])),
    )
    found = transfer(travellers, places, ablation=ablation, seed=3, batch_size=4)  # type: ignore[arg-type]
    assert [(j.circuit, j.place, j.at_home, j.size) for j in found] == [
        ("x", "here", True, 3),
        ("x", "there", False, 3),
        ("y", "here", False, 1),
        ("y", "there", True, 1),
    ]
    batches = make_batches(gpt2, pairs[6:])
    alone = bench(gpt2, batches, logit_difference, ablation, played=heads, means_from=batches)  # type: ignore[arg-type]
    verdict = judge(alone, travellers[1].recorded.circuit, seed=3)
    assert found[3].verdict.faithfulness.value == pytest.approx(verdict.faithfulness.value, abs=1e-5)
    assert found[3].verdict.random.median == pytest.approx(verdict.random.median, abs=1e-5)
    away = found[0].verdict.faithfulness.value - found[1].verdict.faithfulness.value
    assert specificity(found, "x") == pytest.approx(away)
    assert specificity(found[:1], "x") is None


def test_circuits_that_training_kept_apart_are_faithful_at_home_alone() -> None:
    model, tasks = load_model(find_model("strict-4l")), ("ioi", "arithmetic", "factual-recall")
    drawn = {
        task: sample_task(model, TASKS.load(task), form=None, corruption=None, n=24, seed=1) for task in tasks
    }
    travellers = []
    for task in tasks:
        heads = card("strict-4l").circuits[task].heads
        kept = tuple(c for c in model.graph.components if c in heads)
        travellers.append(
            Traveller(task, task, Recorded(Circuit(kept, "card", "known"), None, model.graph.heads))
        )
    places = [Place(task, model, _prompts(task, prompts.pairs)) for task, prompts in drawn.items()]
    found = {(j.circuit, j.place): j.verdict for j in transfer(travellers, places, seed=0)}
    for task in tasks:
        assert found[task, task].faithfulness.value > 0.85
        assert found[task, task].random.p_value <= 1 / 26
        assert all(found[task, other].faithfulness.value < 0.75 for other in tasks if other != task)
