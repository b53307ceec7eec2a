"""Agreement of head scores with exact patching: held to scipy and scikit-learn, and to what must come out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from circuits.comparison.agreement import head_agreement

HEADS = [f"a{layer}.h{head}" for layer in range(4) for head in range(8)]


def scores(seed: int) -> dict[str, float]:
    return dict(
        zip(HEADS, np.random.default_rng(seed).normal(size=len(HEADS)).round(1).tolist(), strict=True)
    )


def test_figures_are_those_of_the_libraries() -> None:
    exact, other, circuit = scores(0), scores(1), HEADS[3:9]
    found = head_agreement(exact, other, circuit)
    sizes = [[abs(side[head]) for head in HEADS] for side in (exact, other)]
    assert found.rank is not None
    assert found.area is not None
    assert found.rank.value == pytest.approx(stats.spearmanr(*sizes).statistic)
    assert found.area.value == pytest.approx(roc_auc_score([h in circuit for h in HEADS], sizes[1]))
    assert found.rank.low < found.rank.value < found.rank.high
    assert found.area.low < found.area.value < found.area.high


def test_a_score_agrees_with_itself_and_with_its_opposite_sign() -> None:
    exact = scores(0)
    largest = sorted(HEADS, key=lambda head: -abs(exact[head]))[:4]
    found = head_agreement(exact, {head: -value for head, value in exact.items()}, largest)
    assert found.rank is not None
    assert found.area is not None
    assert (found.rank.value, found.area.value) == (pytest.approx(1), 1)
    assert found.rank.low == pytest.approx(1)


def test_chance_lies_within_the_interval_of_unrelated_scores() -> None:
    """95% of the time: of 40 pairs of unrelated scores no more than 6 may miss it."""
    missed = 0
    for seed in range(40):
        found = head_agreement(scores(2 * seed), scores(2 * seed + 1), HEADS[:8], seed)
        assert found.rank is not None
        missed += not found.rank.low <= 0 <= found.rank.high
    assert missed <= 6


def test_what_says_nothing_is_none_and_too_few_heads_are_refused() -> None:
    exact = scores(0)
    found = head_agreement(exact, dict.fromkeys(HEADS, 1.0), ())
    assert found.rank is None
    assert found.area is None
    with pytest.raises(ValueError, match="2 heads are scored by both"):
        head_agreement(exact, dict.fromkeys(HEADS[:2], 1.0), ())
