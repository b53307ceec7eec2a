"""Low rank: full rank is the model, the last column is what hooks give, and a planted rank is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import prompt_pairs

from circuits.batches import make_batches
from circuits.engine.forward import trace
from circuits.engine.weights import Affine, Weights
from circuits.metrics import logit_difference
from circuits.model import Site
from circuits.models.bridge import BridgeModel
from circuits.weight_reading.heads import require_weights
from circuits.weight_reading.low_rank import (
    PARTS,
    fit_spaces,
    inside,
    largest,
    logits_with,
    loss,
    measure_ranks,
    principal,
    random_spaces,
)

Tiny = Callable[[str], BridgeModel]


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama", "tiny-qwen3", "tiny-neox"])
def test_what_is_inside_makes_the_output_and_the_logits(name: str, tiny: Tiny) -> None:
    model = tiny(name)
    weights = require_weights(model, "a test")
    (batch,) = make_batches(model, prompt_pairs(5, templates=1))
    base = trace(weights, weights.embed(batch.clean))
    z = inside(weights, base, 1, 3).output(weights.layers[1].scale)
    torch.testing.assert_close(z, base.z[1][:, -1, 3], atol=1e-5, rtol=0)
    changed = torch.stack([z, 2 * z + 1])

    def edit(passing: torch.Tensor) -> torch.Tensor:
        passing = passing.clone()
        passing[:, -1, 3] = 2 * z + 1
        return passing

    ours = logits_with(weights, base, 1, 3, changed)
    torch.testing.assert_close(ours[0], model.run(batch.clean).logits, atol=1e-4, rtol=0)
    theirs = model.run(batch.clean, edit={Site("z", 1): edit}).logits
    torch.testing.assert_close(ours[1], theirs, atol=1e-4, rtol=0)
    assert (ours[1] - ours[0]).abs().max() > 1e-3


def _of_rank(weights: Weights, rank: int) -> Weights:
    """The same model, but values of a1.h2 (dimensions 16 to 23) vary in so many dimensions, and loudly."""
    layer = weights.layers[1]
    value, bias = layer.value.weight.clone(), layer.value.bias
    left, size, right = torch.linalg.svd(value[:, 16:24], full_matrices=False)
    value[:, 16:24] = 6 * left[:, :rank] * size[:rank] @ right[:rank]
    changed = replace(layer, value=Affine(value, bias), joint=None)
    return replace(weights, layers=(weights.layers[0], changed, weights.layers[2]))


@pytest.mark.parametrize("rank", [1, 3])
def test_a_planted_rank_is_found(rank: int, gpt2: BridgeModel) -> None:
    weights = _of_rank(require_weights(gpt2, "a test"), rank)
    pairs = prompt_pairs(24)
    fitting, judged = make_batches(gpt2, pairs[:12]), make_batches(gpt2, pairs[12:])
    spaces = fit_spaces(weights, fitting, 1, 2)
    found = measure_ranks(weights, judged, logit_difference, ("a1.h2", 1, 2), spaces, part="v")
    np.testing.assert_allclose(found.loss[rank:], found.loss[-1], atol=1e-5)
    assert abs(found.loss[rank - 1] - found.loss[-1]) > 1e-4
    assert abs(found.random_loss[rank] - found.loss[-1]) > 1e-4
    if found.enough is not None:
        assert found.enough <= rank < found.random  # type: ignore[operator]


def test_all_parts_agree_at_full_rank_and_no_queries_at_none(gpt2: BridgeModel) -> None:
    weights = require_weights(gpt2, "a test")
    batches = make_batches(gpt2, prompt_pairs(8))
    spaces = fit_spaces(weights, batches, 2, 0)
    each = {
        part: measure_ranks(weights, batches, logit_difference, ("a2.h0", 2, 0), spaces, part=part, draws=1)
        for part in PARTS
    }
    ends = [ranks.loss[-1] for ranks in each.values()]
    assert ends == pytest.approx([ends[0]] * 4, abs=1e-5)
    # With values at their mean nothing else is seen, so all three at rank 0 are the values alone.
    assert each["all"].loss[0] == pytest.approx(each["v"].loss[0], abs=1e-5)
    assert len(each["q"].loss) == weights.d_head + 1


def test_principal_directions_come_by_variance() -> None:
    samples = (
        torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 3.0, 1.0, 0.0])
        + 5
    )
    space = principal(samples)
    assert [int(i) for i in space.directions.abs().argmax(0)[:3]] == [1, 2, 0]
    torch.testing.assert_close(space.nearest(samples, 3), samples, atol=1e-4, rtol=0)
    torch.testing.assert_close(space.nearest(samples, 0), space.mean.expand_as(samples))
    drawn = random_spaces({"q": space}, 0)["q"].directions
    torch.testing.assert_close(drawn.T @ drawn, torch.eye(4), atol=1e-5, rtol=0)


def test_the_loss_of_several_answers_is_of_all_together() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25]]]))
    assert loss(logits, ((0, 1),)).exp().item() == pytest.approx(1 / 0.75)


def test_the_head_that_matters_is_the_one_made_loud(gpt2: BridgeModel) -> None:
    weights = _of_rank(require_weights(gpt2, "a test"), 8)
    heads = [(name, gpt2.graph.node(name).layer, gpt2.graph.node(name).index) for name in gpt2.graph.heads]
    batches = make_batches(gpt2, prompt_pairs(8))
    assert largest(weights, batches, logit_difference, heads, 2)[0][0] == "a1.h2"
