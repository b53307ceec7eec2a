"""Our patching and attribution equal TransformerLens's own where it covers the case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import edges_by_name, prompt_pairs
from torch import Tensor

from circuits.batches import Batch, make_batches
from circuits.methods import activation_patching, eap, logit_attribution
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.models.bridge import BridgeModel


@pytest.fixture(scope="module")
def bridge(directory: Callable[[str], Path]) -> Any:
    """TransformerLens's own model of the same files, loaded without our adapter."""
    from transformer_lens.model_bridge import TransformerBridge

    model: Any = TransformerBridge.boot_transformers(str(directory("tiny-gpt2")), device="cpu")
    return model.eval()


@pytest.fixture(scope="module")
def batch(gpt2: BridgeModel) -> Batch:
    """One length, so that one sweep of theirs covers all prompts."""
    (only,) = make_batches(gpt2, prompt_pairs(6, templates=1))
    return only


def _their_metric(batch: Batch) -> Callable[[Tensor], Tensor]:
    return lambda logits: logit_difference(logits[:, -1], batch.answers, batch.distractors).mean()


def _ours(gpt2: BridgeModel, batch: Batch, **options: object) -> Any:
    method = activation_patching.METHOD
    return method.score(gpt2, Problem((batch,), logit_difference), method.configure(options))


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_every_head_over_all_positions(gpt2: BridgeModel, bridge: Any, batch: Batch, direction: str) -> None:
    from transformer_lens.patching import get_act_patch_attn_head_out_all_pos

    base, donor = (batch.clean, batch.corrupt)[:: 1 if direction == "noising" else -1]
    metric = _their_metric(batch)
    with torch.inference_mode():
        _, cache = bridge.run_with_cache(donor)
        unpatched = metric(bridge(base))
        theirs = get_act_patch_attn_head_out_all_pos(bridge, base, cache, metric) - unpatched
    sign = -1 if direction == "noising" else 1
    scores = _ours(gpt2, batch, direction=direction)
    for node in map(gpt2.graph.node, gpt2.graph.heads):
        assert scores.of(node.name) == pytest.approx(sign * float(theirs[node.layer, node.index]), abs=1e-4)
    assert theirs.abs().max() > 0.05


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_every_head_at_every_position(gpt2: BridgeModel, bridge: Any, batch: Batch, direction: str) -> None:
    from transformer_lens.patching import get_act_patch_attn_head_out_by_pos

    base, donor = (batch.clean, batch.corrupt)[:: 1 if direction == "noising" else -1]
    metric = _their_metric(batch)
    with torch.inference_mode():
        _, cache = bridge.run_with_cache(donor)
        unpatched = metric(bridge(base))
        theirs = get_act_patch_attn_head_out_by_pos(bridge, base, cache, metric) - unpatched
    sign = -1 if direction == "noising" else 1
    scores = _ours(gpt2, batch, direction=direction, positions="every")
    assert list(scores.by_position) == [str(i) for i in range(batch.clean.shape[1])]
    for node in map(gpt2.graph.node, gpt2.graph.heads):
        column = scores.components.index(node.name)
        ours = [float(values[column]) for values in scores.by_position.values()]
        np.testing.assert_allclose(ours, sign * theirs[node.layer, :, node.index].numpy(), atol=1e-4)
    assert theirs.abs().max() > 0.02


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_every_mlp_at_every_position(gpt2: BridgeModel, bridge: Any, batch: Batch, direction: str) -> None:
    from transformer_lens.patching import get_act_patch_mlp_out

    base, donor = (batch.clean, batch.corrupt)[:: 1 if direction == "noising" else -1]
    metric = _their_metric(batch)
    with torch.inference_mode():
        _, cache = bridge.run_with_cache(donor)
        theirs = get_act_patch_mlp_out(bridge, base, cache, metric) - metric(bridge(base))
    sign = -1 if direction == "noising" else 1
    scores = _ours(gpt2, batch, direction=direction, positions="every")
    for layer in range(gpt2.graph.n_layers):
        column = scores.components.index(f"m{layer}")
        ours = [float(values[column]) for values in scores.by_position.values()]
        np.testing.assert_allclose(ours, sign * theirs[layer].numpy(), atol=1e-4)
    assert theirs.abs().max() > 0.02


def test_direct_logit_attribution(gpt2: BridgeModel, bridge: Any, batch: Batch) -> None:
    """Theirs from the cache: each write through the frozen last norm, against the difference of two columns."""
    with torch.inference_mode():
        _, cache = bridge.run_with_cache(batch.clean)
        norm = bridge.ln_final.original_component
        # TransformerLens divides by the norm's scale but leaves its gain to the unembedding.
        columns = bridge.W_U * norm.weight[:, None]
        answer, distractor = (
            torch.tensor([ids[0] for ids in side]) for side in (batch.answers, batch.distractors)
        )
        direction = (columns[:, answer] - columns[:, distractor]).T
        direction = direction - direction.mean(-1, keepdim=True)
        scale = cache["ln_final.hook_scale"][:, -1]
        heads = cache.stack_head_results(layer=-1, pos_slice=-1) / scale
        mlps = torch.stack([cache[f"blocks.{i}.hook_mlp_out"][:, -1] for i in range(3)]) / scale
        theirs = {
            **dict(zip(gpt2.graph.heads, (heads * direction).sum(-1), strict=True)),
            **{f"m{i}": (write * direction).sum(-1) for i, write in enumerate(mlps)},
            "input": (cache["blocks.0.hook_resid_pre"][:, -1] / scale * direction).sum(-1),
        }
    parts = logit_attribution.attribute(gpt2, batch, batch.clean)
    for column, name in enumerate((*gpt2.graph.components, "input")):
        torch.testing.assert_close(parts[:, column], theirs[name], atol=1e-4, rtol=0)
    assert parts.abs().max() > 0.5


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_every_edge_to_first_order(gpt2: BridgeModel, bridge: Any, batch: Batch, direction: str) -> None:
    """Theirs is denoising: noising is the same with the prompts' places changed, and the other sign."""
    from transformer_lens.tools.analysis import attribution_patch
    from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig

    config = EdgeAttributionConfig(granularity="edge")
    ours = eap.METHOD.score(
        gpt2, Problem((batch,), logit_difference), eap.METHOD.configure({"direction": direction})
    )
    assert ours.edges is not None
    for row in range(len(batch)):
        sides, one = (batch.clean[row : row + 1], batch.corrupt[row : row + 1]), batch.of_rows([row])
        if direction == "noising":
            sides = sides[::-1]
        theirs = edges_by_name(attribution_patch(bridge, *sides, _their_metric(one), config).edge_scores)
        sign = -1 if direction == "noising" else 1
        expected = [sign * theirs[edge] for edge in ours.edges.components]
        assert len(theirs) == len(expected)
        np.testing.assert_allclose(ours.edges.samples[batch.index[row]], expected, atol=1e-4)
