"""Digits exchanged before a head that is a successor by hand: all of them, and none by random directions."""

from __future__ import annotations

import torch
from linear_network import NoNorm
from torch import Tensor

from circuits.engine.weights import Affine, Layer, Weights
from circuits.roles.digit_arithmetic import Words, digit_features, exchange_digits, exchanges

DECADES, MONTHS = 4, 12
WIDTH = 10 + DECADES + 1
PLACES = tuple(range(1, 10 * DECADES))


def _vectors(places: tuple[int, ...], columns: tuple[int, ...]) -> Tensor:
    """One number for the digit, one for the decade or the class."""
    digits = torch.nn.functional.one_hot(torch.tensor(places) % 10, WIDTH)
    return (digits + torch.nn.functional.one_hot(torch.tensor(columns), WIDTH)).float()


NUMBERS, OTHERS = (
    _vectors(PLACES, tuple(10 + place // 10 for place in PLACES)),
    _vectors(tuple(range(1, 10)), (WIDTH - 1,) * 9),
)


def _weights(digits: Tensor) -> Weights:
    """One head that keeps the decade and maps digits by `digits`; tokens are numbers, then the others."""
    norm = NoNorm(torch.ones(WIDTH), None, 1e-5, False)
    keeps = torch.eye(WIDTH)
    keeps[:10, :10] = digits
    nothing = Affine(torch.zeros(WIDTH, WIDTH))
    layer = Layer(
        attention_norm=norm,
        query=nothing,
        key=nothing,
        value=Affine(torch.eye(WIDTH)),
        out=Affine(keeps),
        mlp_norm=norm,
        mlp_in=nothing,
        mlp_out=nothing,
        activation=torch.relu,
        scale=1.0,
    )
    return Weights(
        layers=(layer,),
        n_heads=1,
        n_kv_heads=1,
        d_model=WIDTH,
        d_head=WIDTH,
        parallel=False,
        longest=8,
        embed=lambda ids: ids,
        rotation=None,
        final_norm=norm,
        unembed=Affine(torch.cat([NUMBERS, OTHERS]).T.contiguous()),
    )


def _classes() -> dict[str, Words]:
    """Successors within a decade alone: a linear head carries nothing."""
    n = len(PLACES)
    pairs = tuple((i, i + 1) for i, place in enumerate(PLACES[:-1]) if place % 10 != 9)
    others = tuple((i, i + 1) for i in range(8))
    return {
        "others": Words(OTHERS, tuple(range(n, n + 9)), tuple(range(1, 10)), others),
        "numbers": Words(NUMBERS, tuple(range(n)), PLACES, pairs),
    }


def test_a_planted_successor_answers_for_every_exchanged_digit() -> None:
    found = exchange_digits(
        _weights(torch.eye(10).roll(1, 1)), _classes(), "numbers", ("a0.h0", 0, 0), seed=0
    )
    assert found is not None
    assert list(found.classes) == ["numbers", "others"]
    for moved in found.classes.values():
        assert moved.share == 1
        assert moved.random < 0.35
    assert 0.5 < found.k < 2


def test_a_random_map_of_digits_answers_by_chance() -> None:
    draw = torch.Generator().manual_seed(0)
    shares = []
    for _ in range(8):
        weights = _weights(torch.randn(10, 10, generator=draw))
        found = exchange_digits(weights, _classes(), "numbers", ("a0.h0", 0, 0), seed=0)
        assert found is not None
        shares.append(found.classes["others"].share)
    assert sum(shares) / len(shares) < 0.25


def test_exchanges_are_those_whose_other_word_has_a_successor() -> None:
    """Of three words in a row with successors for the first two, digit 3 becomes nothing and is no target."""
    words = Words(torch.zeros(3, 2), (5, 6, 7), (11, 12, 13), ((0, 1), (1, 2)))
    assert sorted(exchanges(words).tolist()) == [[0, 1, 2, 2], [1, 2, 1, 1], [2, 3, 1, 1], [2, 3, 2, 2]]


def test_features_are_means_of_digits_and_sum_to_nothing_where_each_is_as_frequent() -> None:
    features = digit_features(_classes()["numbers"]._replace(vectors=NUMBERS[9:], places=PLACES[9:]))
    assert features.sum(0).abs().max() < 1e-5
    assert torch.allclose(features[:, :10].diagonal(), torch.full((10,), 0.9))


def test_too_few_numbers_give_nothing() -> None:
    few = _classes()["numbers"]
    few = few._replace(tokens=few.tokens[:19])
    assert exchange_digits(_weights(torch.eye(10)), {"numbers": few}, "numbers", ("a0.h0", 0, 0), 0) is None
    assert exchange_digits(_weights(torch.eye(10)), {}, "", ("a0.h0", 0, 0), 0) is None
