"""Each control on data where what it should find, or not find, is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from circuits import controls, sae
from circuits.codes import node_scores, pair_head_scores
from circuits.statistics import auroc

POSITIVE = np.arange(60) < 30


def _clusters(head_shift: dict[int, float], heads: int = 5, d_model: int = 16) -> Tensor:
    """Noise; in the heads named positives lie in another place."""
    x = torch.randn(60, heads, d_model, generator=torch.Generator().manual_seed(0))
    for head, shift in head_shift.items():
        x[:30, head, :2] += shift
    return x


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_mean_difference_is_the_distance_of_class_means() -> None:
    x = torch.zeros(60, 2, 3)
    x[:30, 1] = torch.tensor([3.0, 0.0, 4.0])
    assert controls.mean_difference(x, POSITIVE).tolist() == [0.0, 5.0]


def test_the_probe_finds_what_is_linearly_there_and_nothing_in_noise() -> None:
    accuracy = controls.probe_accuracy(_clusters({2: 4.0}), POSITIVE)
    assert accuracy.argmax() == 2
    assert accuracy[2] > 0.95
    assert np.delete(accuracy, 2).max() < 0.8


def test_the_probe_works_with_two_examples_a_class() -> None:
    x = _clusters({0: 9.0})[[0, 1, 58, 59]]
    assert controls.probe_accuracy(x, np.array([True, True, False, False])).shape == (5,)


def test_code_diversity_counts_codes_of_positives() -> None:
    codes = np.array([[1, 1], [2, 1], [3, 5]])
    assert controls.code_diversity(codes, np.array([True, True, False])).tolist() == [2, 1]


@pytest.mark.parametrize("score", [node_scores, pair_head_scores])
def test_codes_without_training_find_a_head_that_clusters(score: controls.HeadScore) -> None:
    x = _clusters({3: 6.0}, d_model=8)
    x[:, [0, 1, 2, 4]] = x[:, [0, 1, 2, 4]].mean(0) + 0.01 * x[:, [0, 1, 2, 4]]
    start = sae.untrained(8, 40, _generator())
    rows = torch.arange(20, 40)
    found = [
        controls.untrained_autoencoder(x, POSITIVE, score, start),
        controls.random_projection(x, POSITIVE, score, 40, _generator()),
        controls.k_means(x, POSITIVE, score, rows, 10, np.random.default_rng(0)),
    ]
    assert [scores.argmax() for scores in found] == [3, 3, 3]


def test_k_means_takes_fewer_centres_where_vectors_are_few_and_repeats_itself() -> None:
    x = _clusters({1: 5.0})
    x[:, 0] = 0
    first, second = (
        controls.k_means(x, POSITIVE, node_scores, torch.tensor([0, 59]), 200, np.random.default_rng(2))
        for _ in range(2)
    )
    assert np.array_equal(first, second)
    assert first[0] == 0


def test_shuffled_labels_find_a_random_reference_at_chance() -> None:
    rng = np.random.default_rng(0)
    real, shuffled = [], []
    for _ in range(60):
        codes = rng.integers(0, 30, (60, 40))
        reference = rng.permutation(np.arange(40) < 10)
        # As varied as the others, but even on positives and odd on negatives: real labels find these heads.
        codes[:, reference] = codes[:, reference] // 2 * 2 + ~POSITIVE[:, None]
        real.append(auroc(node_scores(codes, POSITIVE), reference))
        scores = controls.shuffled_labels(codes, POSITIVE, node_scores, rng)
        shuffled.append(auroc(scores, reference))
    assert np.mean(np.array(real, dtype=float)) > 0.95
    assert np.mean(np.array(shuffled, dtype=float)) == pytest.approx(0.5, abs=0.05)


def test_shuffled_labels_lose_a_real_difference() -> None:
    codes = np.random.default_rng(1).integers(0, 10, (60, 6))
    codes[:30, 2] += 10
    real = node_scores(codes, POSITIVE)
    shuffled = controls.shuffled_labels(codes, POSITIVE, node_scores, np.random.default_rng(0))
    assert real.argmax() == 2
    assert real[2] > 2 * shuffled[2]
