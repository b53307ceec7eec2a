"""Progress measures of induction, on a network by hand whose two looks have any sharpness, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from by_hand import matrix
from linear_network import NoNorm
from role_network import WORDS, RoleModel
from torch import Tensor

from circuits.engine.weights import Layer, Weights
from circuits.errors import CircuitError
from circuits.graph import Graph
from circuits.over_training.induction_progress import (
    MEANING,
    InductionProgress,
    induction_progress,
    sequences,
)
from circuits.roles.role import Evidence

N, PLACES, READ_OUT = len(WORDS), 20, 30.0
TOKEN, PLACE, BEFORE, SAID = 0, N, N + PLACES, 2 * N + PLACES
WIDTH = 3 * N + PLACES
D_HEAD = max(N, PLACES)


def _layer(query: int, key: int, n: int, logit: float, writes: int, shift: int = 0) -> Layer:
    """One head that matches block `query` with block `key`, moved by `shift`, and writes what token it sees."""
    norm = NoNorm(torch.ones(WIDTH), None, 1e-5, False)
    return Layer(
        attention_norm=norm,
        query=matrix(WIDTH, D_HEAD, [(query + i, i, logit) for i in range(n)]),
        key=matrix(WIDTH, D_HEAD, [(key + i, i + shift, 1.0) for i in range(n - shift)]),
        value=matrix(WIDTH, D_HEAD, [(TOKEN + i, i, 1.0) for i in range(N)]),
        out=matrix(D_HEAD, WIDTH, [(i, writes + i, 1.0) for i in range(N)]),
        mlp_norm=norm,
        mlp_in=matrix(WIDTH, 1, []),
        mlp_out=matrix(1, WIDTH, []),
        activation=torch.relu,
        scale=1.0,
    )


class TwoLooks(RoleModel):
    """Reddy's two-parameter model: the logit of the previous place, that of a matching item, and a read-out."""

    name, graph, d_model = "two-looks", Graph(2, 1, 1), WIDTH

    def __init__(self, previous: float, match: float, longest: int = PLACES) -> None:
        positions = torch.nn.functional.pad(torch.eye(PLACES), (PLACE, WIDTH - PLACE - PLACES))

        def embed(ids: Tensor) -> Tensor:
            return torch.nn.functional.one_hot(ids, WIDTH).float() + positions[: ids.shape[1]]

        self.weights = Weights(
            layers=(
                _layer(PLACE, PLACE, PLACES, previous, BEFORE, shift=1),
                _layer(TOKEN, BEFORE, N, match, SAID),
            ),
            n_heads=1,
            n_kv_heads=1,
            d_model=WIDTH,
            d_head=D_HEAD,
            parallel=False,
            longest=longest,
            embed=embed,
            rotation=None,
            final_norm=NoNorm(torch.ones(WIDTH), None, 1e-5, False),
            unembed=matrix(WIDTH, N, [(SAID + i, i, READ_OUT) for i in range(N)]),
            positions=positions,
        )


def measured(previous: float, match: float) -> InductionProgress:
    return induction_progress(Evidence(TwoLooks(previous, match)), 64)


def value(found: InductionProgress, name: str) -> float:
    return found.measures[name].found.value


def by_hand(row: list[int], asked: int, previous: float, match: float) -> tuple[float, float, float, bool]:
    """TILA2, TLA2, CLA and whether it is right, place by place, as the paper writes its model."""
    end = len(row) - 1
    before = np.zeros((len(row), N))
    for i in range(len(row)):
        weights = [math.exp(previous) if j == i - 1 else 1.0 for j in range(i + 1)]
        for j, weight in enumerate(weights):
            before[i, row[j]] += weight / sum(weights)
    looks = np.exp([match * before[j, row[end]] for j in range(len(row))])
    looks /= looks.sum()
    said = np.zeros(N)
    for j, weight in enumerate(looks):
        said[row[j]] += weight
    shares = np.exp(READ_OUT * said) / np.exp(READ_OUT * said).sum()
    labels = range(2, end, 2)
    right = row[2 + 2 * asked]
    best = max(labels, key=lambda j: shares[row[j]])
    return (
        looks[2 + 2 * asked],
        sum(looks[j] for j in labels),
        sum(shares[row[j]] for j in labels),
        row[best] == right,
    )


@pytest.mark.parametrize("previous", [0.0, 1.0, 3.0, 30.0])
def test_the_label_looks_at_its_item_as_the_closed_form_says(previous: float) -> None:
    """e^b / (e^b + m), m the other places that a label sees."""
    expected = np.mean([math.exp(previous) / (math.exp(previous) + m) for m in range(2, 17, 2)])
    assert value(measured(previous, 0.0), "ILA1") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("match", [0.0, 2.0, 5.0])
def test_the_target_looks_at_the_matching_label_as_the_closed_form_says(match: float) -> None:
    found, exp = measured(40.0, match), math.exp(match)
    assert value(found, "TILA2") == pytest.approx(exp / (exp + 17), rel=1e-5)
    assert value(found, "TLA2") == pytest.approx((exp + 7) / (exp + 17), rel=1e-5)


@pytest.mark.parametrize(("previous", "match"), [(1.0, 4.0), (2.0, 9.0), (4.0, 6.0)])
def test_all_figures_are_those_of_the_model_written_out(previous: float, match: float) -> None:
    evidence = Evidence(TwoLooks(previous, match))
    drawn = sequences(evidence, 64)
    rows = [
        by_hand(row, asked, previous, match)
        for row, asked in zip(drawn.tokens[32:].tolist(), drawn.asked[32:].tolist(), strict=True)
    ]
    found = induction_progress(evidence, 64)
    for name, expected in zip(("TILA2", "TLA2", "CLA", "ICA"), np.mean(rows, 0), strict=True):
        assert value(found, name) == pytest.approx(expected, rel=1e-4), name


def test_sharp_looks_are_always_right_and_blunt_ones_as_often_as_chance() -> None:
    sharp, blunt = measured(40.0, 40.0), measured(0.0, 0.0)
    assert value(sharp, "ICA") == 1
    assert value(sharp, "CLA") > 0.99
    assert (sharp.first, sharp.second) == ("a0.h0", "a1.h0")
    for name in ("ILA1", "TILA2", "TLA2", "ICA"):
        assert value(blunt, name) == pytest.approx(blunt.measures[name].chance, abs=1e-5), name
    assert set(sharp.measures) == set(MEANING)


def test_one_look_alone_is_seen_as_one() -> None:
    """A blunt match leaves the answer a guess; behind a blunt first look the order still leaks."""
    guessing, leaking = measured(40.0, 0.0), measured(0.0, 40.0)
    assert (value(guessing, "ILA1"), value(guessing, "ICA")) == pytest.approx((1.0, 1 / 8), abs=1e-5)
    assert value(leaking, "TILA2") < 0.2
    assert value(leaking, "ICA") > 0.9


def test_sequences_hold_no_token_twice_but_the_target() -> None:
    drawn = sequences(Evidence(TwoLooks(1.0, 1.0)), 32)
    for row, asked in zip(drawn.tokens.tolist(), drawn.asked.tolist(), strict=True):
        assert len(set(row)) == len(row) - 1
        assert row[-1] == row[int(drawn.items[asked])]
    assert len(set(drawn.asked.tolist())) > 4


def test_a_model_without_room_or_without_two_layers_is_told() -> None:
    with pytest.raises(CircuitError, match="room for 4 tokens"):
        induction_progress(Evidence(TwoLooks(1.0, 1.0, longest=5)))
    flat = TwoLooks(1.0, 1.0)
    flat.graph = Graph(1, 1, 1)
    with pytest.raises(CircuitError, match="two-looks has one"):
        induction_progress(Evidence(flat))
