"""Behaviour: each figure by another route, prompt by prompt through the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from tiny_models import prompt_pairs

from circuits.batches import make_batches
from circuits.behaviour import behaviour, prefers_answer
from circuits.evaluation.faithfulness import baseline
from circuits.metrics import logit_difference
from circuits.models.bridge import BridgeModel
from circuits.statistics import wilson_interval

PAIRS = prompt_pairs(12)


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (0, 40), (7, 9), (20, 40), (40, 40)])
def test_wilson_as_in_scipy(hits: int, n: int) -> None:
    theirs = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert np.allclose(wilson_interval(hits, n), (theirs.low, theirs.high), atol=1e-12)


def test_no_share_of_nothing() -> None:
    with pytest.raises(ValueError, match="no samples"):
        wilson_interval(0, 0)


def test_every_figure_prompt_by_prompt(gpt2: BridgeModel) -> None:
    found = behaviour(gpt2, PAIRS, range(100, 112), batch_size=5)
    failing = {failure.index: failure for failure in found.failures}
    differences, preferred, correct = [], [], []
    for i, pair in enumerate(PAIRS):
        tokens = gpt2.tokenize(pair.clean)[0]
        right, wrong = (gpt2.tokenize(pair.clean + word)[0][-1] for word in pair.answers + pair.distractors)
        logits = gpt2.run(torch.tensor([tokens])).logits[0].double()
        differences.append(float(logits[right] - logits[wrong]))
        preferred.append(bool(logits[right] > logits[wrong]))
        order = logits.argsort(descending=True).tolist()
        correct.append(order[0] == right)
        assert (100 + i in failing) == (not (preferred[-1] and correct[-1]))
        if 100 + i in failing:
            failure, chance = failing[100 + i], logits.softmax(-1)
            assert failure.preferred == preferred[-1]
            assert failure.rank == order.index(right) + 1
            assert failure.difference == pytest.approx(differences[-1], abs=1e-4)
            assert failure.answer == pytest.approx(float(chance[right]), abs=1e-5)
            assert failure.says[0][0] == gpt2.token_string(order[0])
            assert failure.says[0][1] == pytest.approx(float(chance[order[0]]), abs=1e-5)
    whole = found.whole
    assert whole.clean.value == pytest.approx(np.mean(differences), abs=1e-4)
    assert (whole.preferred.value, whole.correct.value) == (np.mean(preferred), np.mean(correct))
    assert prefers_answer(gpt2, PAIRS, batch_size=5).tolist() == preferred
    assert found.failures, "a model of random weights fails"
    assert [f.difference for f in found.failures if not f.preferred] == sorted(
        f.difference for f in found.failures if not f.preferred
    )


def test_the_whole_is_what_a_run_calls_its_baseline(gpt2: BridgeModel) -> None:
    found = behaviour(gpt2, PAIRS, seed=3)
    before = baseline(gpt2, make_batches(gpt2, PAIRS), logit_difference, seed=3)
    assert found.whole.clean.value == pytest.approx(before.metric_clean.value, abs=1e-5)
    assert found.whole.clean.low == pytest.approx(before.metric_clean.low, abs=1e-5)
    assert found.whole.corrupt.value == pytest.approx(before.metric_corrupt.value, abs=1e-5)
    assert found.whole.preferred.value == before.preferred.value
    assert sum(figures.n for figures in found.by_template.values()) == 12
    weighted = sum(figures.n * figures.clean.value for figures in found.by_template.values())
    assert weighted / 12 == pytest.approx(found.whole.clean.value)
