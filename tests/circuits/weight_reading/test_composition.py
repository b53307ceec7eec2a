"""Composition scores: closed forms are the dense products, planted channels are found, and cutting one is exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tiny_models import prompt_pairs

from circuits.batches import make_batches
from circuits.errors import CircuitError
from circuits.interventions.effect import random_components
from circuits.interventions.intervention import Channels, Scale, edits
from circuits.models.bridge import BridgeModel, load_model
from circuits.weight_reading.channels import Channel, n_components, parse_channels, scaling
from circuits.weight_reading.composition import composition, scores
from circuits.weight_reading.heads import Thin, read_ov, read_qk, require_weights, thin

Tiny = Callable[[str], BridgeModel]


def _dense(model: BridgeModel, layer: int, head: int) -> tuple[torch.Tensor, torch.Tensor]:
    """OV and QK of a head as whole matrices, norm by norm: no factor, no decomposition."""
    weights = require_weights(model, "a test")
    part, width = weights.layers[layer], weights.d_head
    group = head // (weights.n_heads // weights.n_kv_heads)
    q, k, v = (
        each.weight.double()[:, index * width :][:, :width]
        for each, index in ((part.query, head), (part.key, group), (part.value, group))
    )
    out = part.out.weight.double()[head * width :][:width]
    centre = torch.eye(weights.d_model, dtype=torch.float64)
    centre = centre - 1 / weights.d_model if part.attention_norm.centres else centre
    gain = centre @ torch.diag(part.attention_norm.gain.double())
    return gain @ v @ out @ centre, gain @ q @ k.T @ gain.T


def _score(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a @ b).norm() / (a.norm() * b.norm()))


def test_closed_forms_are_the_dense_products(gpt2: BridgeModel) -> None:
    found = composition(require_weights(gpt2, "a test"), gpt2.graph)
    assert found.modes == ("q", "k", "v")
    for source, target in (("a0.h1", "a1.h2"), ("a0.h3", "a2.h0"), ("a1.h0", "a2.h3")):
        one, two = gpt2.graph.node(source), gpt2.graph.node(target)
        (a, _), (ov, qk) = _dense(gpt2, one.layer, one.index), _dense(gpt2, two.layer, two.index)
        s, t = found.heads.index(source), found.heads.index(target)
        for m, b in enumerate((qk, qk.T, ov)):
            assert found.whole[s, t, m] == pytest.approx(_score(a, b), rel=1e-9)
            _, _, right = torch.linalg.svd(a)
            for i in range(n_components(require_weights(gpt2, "a test"))):
                assert found.parts[s, i, t, m] == pytest.approx(_score(right[i][None], b), rel=1e-6)


def test_heads_of_a_group_share_values(tiny: Tiny) -> None:
    """Llama: grouped heads, RMS norm, queries and keys turned by position all over, so values alone are read."""
    model = tiny("tiny-llama")
    weights = require_weights(model, "a test")
    assert read_qk(weights, 1) is None
    found = composition(weights, model.graph)
    assert found.modes == ("v",)
    a, b = _dense(model, 0, 3)[0], _dense(model, 2, 2)[0]
    assert found.whole[3, 10, 0] == pytest.approx(_score(a, b), rel=1e-9)


def test_of_partly_rotated_keys_the_rest_is_read(tiny: Tiny) -> None:
    model = tiny("tiny-neox")
    weights = require_weights(model, "a test")
    turned = weights.rotation(1)[0].shape[-1]  # type: ignore[misc]
    qk = read_qk(weights, 1)
    assert qk is not None
    assert 0 < turned < weights.d_head
    assert int((qk.size[0] > 1e-9).sum()) == weights.d_head - turned


def test_a_reader_of_one_direction_hears_that_component_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    writer = thin(*(torch.randn(1, *shape, generator=generator) for shape in ((12, 4), (4, 12))))
    reads = writer.right[:, :1].mT @ torch.randn(1, 1, 12, generator=generator).double()
    left, size, right = torch.linalg.svd(reads)
    heard = scores(writer, Thin(left, size, right))[0, :, 0]
    torch.testing.assert_close(heard, torch.tensor([1.0, 0, 0, 0]).double(), atol=1e-9, rtol=0)


def test_random_directions_score_as_chance_says(gpt2: BridgeModel) -> None:
    """E[score^2] = 1 / (d - 1) where the mean is taken off: tiny-gpt2's own weights are random."""
    found = composition(require_weights(gpt2, "a test"), gpt2.graph)
    squares = np.nanmean(found.parts**2)
    assert squares == pytest.approx(1 / (gpt2.d_model - 1), rel=0.15)
    assert found.chance.component_mean**2 == pytest.approx(1 / (gpt2.d_model - 1), rel=0.1)
    assert found.chance.best_mean > found.chance.component_mean
    assert found.chance.best_max >= np.nanmax(found.best) * 0.7


def test_the_planted_channels_are_the_strongest() -> None:
    """Duplicate token -> S-inhibition by value, S-inhibition -> name movers by query; nothing else above chance."""
    model = load_model("planted-ioi")
    found = composition(require_weights(model, "a test"), model.graph)
    whole = {
        (found.heads[s], found.heads[t], found.modes[m]): found.whole[s, t, m]
        for s, t, m in np.argwhere(found.whole > found.chance.whole_max)
    }
    assert whole.keys() >= {("a0.h2", "a1.h4", "v"), ("a1.h4", "a2.h1", "q"), ("a1.h4", "a2.h3", "q")}
    first = next(found.links())
    assert (first.source, first.target, first.mode, first.near) == ("a1.h4", "a2.h1", "q", True)
    assert first.score > found.chance.best_max
    assert all(link.target == "a1.h4" for link in found.links(["a1.h4"], ["v"]) if link.source == "a0.h2")


# Channels


def test_a_cut_channel_is_the_projected_weight(gpt2: BridgeModel) -> None:
    """z @ scaling @ W_O = z W_O (I - (1 - f) v v^T), up to what the norm behind takes off."""
    weights = require_weights(gpt2, "a test")
    writer = weights.layers[1].out.weight.double().view(4, 8, -1)[2]
    z = torch.randn(5, 8, dtype=torch.float64)
    v = read_ov(weights, 1).right[2, [0, 3]]
    for factor in (0.0, 2.5):
        ours = z @ scaling(weights, gpt2.graph, "a1.h2", (0, 3), factor) @ writer
        theirs = z @ writer @ (torch.eye(32) - (1 - factor) * v.T @ v)
        apart = ours - theirs
        torch.testing.assert_close(apart, apart.mean(-1, keepdim=True).expand_as(apart), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama"])
def test_all_channels_cut_is_the_head_knocked_out(name: str, tiny: Tiny) -> None:
    model = tiny(name)
    (batch,) = make_batches(model, prompt_pairs(4, templates=1))

    def logits(*interventions: Channels | Scale) -> torch.Tensor:
        return model.run(batch.clean, edit=edits(model, batch, interventions)).logits

    whole = Channels(tuple(Channel("a1.h2", i) for i in range(8)))
    torch.testing.assert_close(logits(whole), logits(Scale(("a1.h2",))), atol=1e-4, rtol=0)
    torch.testing.assert_close(logits(Channels((Channel("a1.h2", 0),), 1.0)), logits(), atol=1e-4, rtol=0)
    assert (logits(Channels((Channel("a1.h2", 0),))) - logits()).abs().max() > 1e-3


def test_controls_are_other_components_of_the_same_heads(gpt2: BridgeModel) -> None:
    cut = Channels((Channel("a1.h2", 0), Channel("a0.h1", 3), Channel("a0.h1", 4)))
    drawn = random_components(gpt2, cut, 20, 0)
    assert len({one.channels for one in drawn}) == 20
    for one in drawn:
        assert not set(one.channels) & set(cut.channels)
        assert sorted(channel.head for channel in one.channels) == ["a0.h1", "a0.h1", "a1.h2"]
    most = Channels(tuple(Channel("a1.h2", i) for i in range(5)))
    assert random_components(gpt2, most, 20, 0) == []


def test_bad_channels_are_named_all_at_once(gpt2: BridgeModel) -> None:
    with pytest.raises(CircuitError) as error:
        parse_channels(["a1.h2", "a9.h0:1", "m1:0", "a1.h2:8", "a1.h2:x"], gpt2.graph, 8)
    message = str(error.value)
    assert "'a1.h2' names no channel" in message
    assert "a9.h0 is not in this model" in message
    assert "m1 is no head" in message
    assert "a1.h2:8: heads have 8 components here, 0 to 7" in message
    assert "'a1.h2:x' names no channel" in message


def test_a_model_that_the_engine_does_not_serve_is_refused(tiny: Tiny) -> None:
    with pytest.raises(CircuitError, match="does not serve tiny-phi"):
        require_weights(tiny("tiny-phi"), "Composition")
