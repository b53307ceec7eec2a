"""The SAE method on a model of random tensors whose planted heads alone tell positives from negatives."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fake_model import FakeModel, fake_problem

from circuits import sae
from circuits.errors import CircuitError, PromptError
from circuits.head_vectors import collect, head_outputs
from circuits.judgement import Area, Judgement, verdict
from circuits.methods import METHODS
from circuits.methods.sae import METHOD
from circuits.model import Model
from circuits.scores import Scores

PLANTED = frozenset({"a0.h1", "a1.h2"})
SMALL = {"features": 40, "epochs": 60, "trials": 3}


def _score(n_pairs: int = 40, *, seed: int = 0, model: FakeModel | None = None, **options: object) -> Scores:
    problem = fake_problem(n_pairs, seed=seed, references={"planted": PLANTED})
    result = METHOD.score(
        model or FakeModel(planted=PLANTED), problem, METHOD.configure({**SMALL, **options})
    )
    assert isinstance(result, Scores)
    return result


def _details(scores: Scores) -> dict[str, Any]:
    """As a run folder would give them back."""
    found: dict[str, Any] = json.loads(json.dumps(scores.details, allow_nan=False))
    return found


def test_the_registry_finds_it_and_the_fake_is_a_model() -> None:
    assert METHODS.load("sae") is METHOD
    assert isinstance(FakeModel(), Model)


@pytest.mark.parametrize("level", ["node", "pair"])
def test_planted_heads_rank_first(level: str) -> None:
    scores = _score(level=level)
    assert set(scores.ranking()[:2]) == PLANTED
    assert scores.unit == "trial"
    assert scores.samples.shape == (3, 8)
    assert (scores.samples >= 0).all()


def test_details_are_ready_for_json_and_name_every_control() -> None:
    details = _details(_score())
    judged = details["references"]["planted"]
    assert judged["levels"]["node"]["mean"] > 0.9
    assert len(judged["levels"]["pair"]["trials"]) == 3
    assert (
        set(judged["controls"])
        == set(details["controls"])
        == {
            "untrained autoencoder",
            "random projection",
            "k-means codes",
            "code diversity",
            "shuffled labels",
            "mean difference",
            "linear probe",
        }
    )
    assert set(judged["best_f1"]["node"]) == {"value", "threshold"}
    assert details["counts"]["positives"] == details["counts"]["negatives"] == 40
    assert details["counts"]["activation_bytes"] == 80 * 8 * 32 * 4
    assert details["options"]["features"] == 40
    assert any("3 of the paper's 10 trials" in note for note in details["notes"])
    assert details["verdict"][0].startswith("planted: AUROC")


def test_without_references_there_is_no_auroc_but_still_a_verdict() -> None:
    problem = fake_problem(20)
    details = _details(METHOD.score(FakeModel(planted=PLANTED), problem, METHOD.configure(SMALL)))
    assert details["references"] == {}
    assert details["verdict"][0].startswith("No reference circuit")


def test_references_never_take_part_in_scoring() -> None:
    plain = METHOD.score(FakeModel(planted=PLANTED), fake_problem(40), METHOD.configure(SMALL))
    assert np.array_equal(plain.samples, _score().samples)


def test_a_seed_means_one_result_and_more_trials_keep_the_first() -> None:
    first, again, more, other = _score(), _score(), _score(trials=5), _score(seed=1)
    assert first.samples.tobytes() == again.samples.tobytes()
    assert np.array_equal(more.samples[:3], first.samples)
    assert not np.array_equal(first.samples, other.samples)
    for name, tensor in first.artifacts["sae"].items():
        assert tensor.tobytes() == again.artifacts["sae"][name].tobytes()


def test_the_table_of_codes_is_that_of_the_first_trial() -> None:
    """A head's count of codes on positives alone is its score, and each of its prompts has one code."""
    scores = _score()
    table = pd.DataFrame(scores.tables["codes"])
    alone = table[table["negatives"] == 0].groupby("head").size()
    assert alone.reindex(scores.components, fill_value=0).tolist() == scores.samples[0].tolist()
    prompts = table.groupby("head")[["positives", "negatives"]].sum()
    assert (prompts == 40).all(axis=None)


def test_artifacts_hold_the_first_trials_autoencoder() -> None:
    model = FakeModel(planted=PLANTED)
    trained = sae.from_tensors(_score(model=model).artifacts["sae"])
    assert trained.encoder.shape == (40, 32)
    assert torch.allclose(trained.encoder.norm(dim=-1), torch.ones(40), atol=1e-5)


def test_links_are_pairs_that_can_feed_each_other() -> None:
    links = _score().links
    assert set(links) == {(f"a0.h{i}", f"a1.h{j}") for i in range(4) for j in range(4)}
    assert max(links, key=lambda pair: links[pair]) == ("a0.h1", "a1.h2")


def test_progress_is_called_for_every_trial() -> None:
    seen: list[tuple[str, int, int]] = []
    problem = fake_problem(10, progress=lambda what, done, total: seen.append((what, done, total)))
    METHOD.score(FakeModel(), problem, METHOD.configure(SMALL))
    assert seen == [("sae trials", i, 3) for i in range(4)]


@pytest.mark.parametrize("position", ["mean", "last"])
def test_head_vectors_are_what_heads_write_without_the_bias(position: str) -> None:
    model = FakeModel()
    tokens = torch.tensor([[1, 2, 3], [3, 3, 41]])
    found = head_outputs(model, tokens, position)  # type: ignore[arg-type]
    for layer in range(2):
        for head in range(4):
            written = model.values[layer][tokens][:, :, head] @ model.writers[layer, head]
            pooled = written.mean(1) if position == "mean" else written[:, -1]
            assert torch.allclose(found[:, 4 * layer + head], pooled, atol=1e-5)


def test_collection_keeps_the_order_of_prompts_for_any_batch_size() -> None:
    model = FakeModel()
    wide, narrow = (collect(model, fake_problem(23, batch_size=b).batches, "mean") for b in (23, 4))
    assert torch.allclose(wide.x, narrow.x, atol=1e-6)
    assert wide.positive.tolist() == [True] * 23 + [False] * 23
    reversed_batches = fake_problem(23, batch_size=4).batches[::-1]
    assert torch.equal(collect(model, reversed_batches, "mean").x, narrow.x)
    first_negative = fake_problem(23).batches[0].pairs[0].negative
    alone = head_outputs(model, torch.tensor([first_negative]), "mean")
    assert torch.allclose(wide.x[23], alone[0], atol=1e-6)


def test_too_few_prompts_and_overflow_are_named() -> None:
    with pytest.raises(PromptError, match="needs at least 2"):
        _score(1)
    model = FakeModel()
    model.values[0, 1, 0] = float("inf")
    with pytest.raises(CircuitError, match="overflow"):
        _score(model=model)


def test_wrong_options_are_all_named() -> None:
    with pytest.raises(CircuitError, match=r"sae\.position.*sae\.trials"):
        METHOD.configure({"position": "first", "trials": 0})


def _judged(controls: dict[str, Area]) -> dict[str, Judgement]:
    return {"wang": Judgement(26, 0, {"node": Area(0.8, 0.05, (0.8,))}, controls, {}, {})}


def test_the_verdict_names_controls_within_one_sd() -> None:
    near, far = Area(0.76, 0.0, (0.76,)), Area(0.7, 0.1, (0.7,))
    (line,) = verdict("node", _judged({"near": near, "far": far}), {})
    assert "near 0.76" in line
    assert "far" not in line
    (line,) = verdict("node", _judged({"far": far}), {})
    assert "No control comes within one sd" in line


def test_a_reference_of_all_heads_cannot_judge() -> None:
    references = {"all": frozenset(FakeModel().graph.heads), "none": frozenset({"a9.h9"})}
    problem = fake_problem(10, references=references)
    details = _details(METHOD.score(FakeModel(), problem, METHOD.configure(SMALL)))
    assert details["references"]["all"]["levels"] == {}
    assert details["references"]["none"]["missing"] == 1
    assert details["verdict"][0].startswith("No reference circuit")
