"""Subspaces: an illusion is caught and a genuine one is not, and what is patched is what hooks would patch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from subspace_network import DORMANT, GENUINE, HIDDEN, OneLayer, signs
from tiny_models import prompt_pairs
from torch import Tensor

from circuits.batches import make_batches
from circuits.engine.weights import Weights
from circuits.errors import CircuitError
from circuits.halves import Halves
from circuits.models.bridge import BridgeModel, load_model
from circuits.subspaces.alignment import Alignment, Prompted, align, judge, prompted
from circuits.subspaces.directions import main_gradients, orthonormal, random_frames
from circuits.subspaces.place import place_named
from circuits.subspaces.readers import likely_readers, require_readers, row_space
from circuits.subspaces.swaps import Swap, nothing, require_counterfactual, said, swaps, taken, whole
from circuits.subspaces.training import Recipe, learn

QUICK = Recipe(epochs=80, rate=0.1)
HERE = place_named("mlp_post.0/END", 1)


def _prompts(weights: Weights) -> Prompted:
    return Prompted(*(swaps(OneLayer(weights), [signs(n)], HERE) for n in (8, 6)), Halves((), ()), "prompts")


def _judged(weights: Weights, *direction: float) -> Alignment:
    frame = torch.zeros(HIDDEN, 1)
    frame[: len(direction), 0] = torch.tensor(direction)
    return judge(_prompts(weights), orthonormal(frame), row_space(weights, HERE, (), ()))


def test_the_dormant_pathway_is_an_illusion_by_hand() -> None:
    found = _judged(DORMANT, 1.0, 1.0)
    fldd = {name: effect.fldd.value for name, effect in found.effects.items()}
    # x = 1, h = (1, 0): along (1, 1) / sqrt 2 the patch adds -1 to both, so the logit is 1 + 2 (-1) = -1.
    assert fldd["learned"] == pytest.approx(200)
    assert found.effects["learned"].accuracy.value == 1
    assert [fldd[name] for name in ("seen part", "unseen part", "whole site")] == pytest.approx([0, 0, 0])
    assert found.split.seen == pytest.approx(0.5)
    assert found.split.chance == pytest.approx(1 / HIDDEN)
    assert found.split.kept is not None
    assert found.split.kept.value == pytest.approx(0, abs=1e-6)
    assert found.verdict == "illusion"


def test_what_is_differing_and_read_is_genuine_by_hand() -> None:
    found = _judged(GENUINE, 1.0)
    fldd = {name: effect.fldd.value for name, effect in found.effects.items()}
    # The logit is x + h_1 = 2, and -1 of 1 comes with the source's h_1.
    assert [fldd[n] for n in ("learned", "seen part", "whole site")] == pytest.approx([100] * 3)
    assert fldd["unseen part"] == 0
    assert found.verdict == "genuine"
    assert _judged(GENUINE, 0.0, 1.0).verdict == "no effect"


def test_the_search_falls_for_the_dormant_pathway_and_the_split_tells() -> None:
    found = align(OneLayer(DORMANT), _prompts(DORMANT), 1, recipe=QUICK)
    assert found.effects["learned"].fldd.value > 150
    assert found.effects["whole site"].fldd.value == pytest.approx(0)
    assert abs(float(found.frame[0] * found.frame[1])) > 0.4
    assert found.verdict == "illusion"


def test_the_search_finds_the_one_genuine_direction() -> None:
    found = align(OneLayer(GENUINE), _prompts(GENUINE), 1, recipe=QUICK)
    assert abs(float(found.frame[0])) > 0.99
    assert found.verdict == "genuine"


def _hooked(model: BridgeModel, swap: Swap, tokens: Tensor, sources: Tensor, kind: str, layer: int) -> Tensor:
    """Last logits with the source's value at the columns, through hooks."""
    from circuits.model import Site

    site = {
        "resid_post": Site("final") if layer + 1 == model.graph.n_layers else Site("input", layer + 1),
        "resid_pre": Site("input", layer),
        "attn_out": Site("z", layer),
        "mlp_out": Site("mlp", layer),
    }[kind]
    given, rows = model.run(sources, capture=[site]).captured[site], torch.arange(len(tokens))

    def edit(value: Tensor) -> Tensor:
        value = value.clone()
        value[rows, swap.columns] = given[rows, swap.columns]
        return value

    return model.run(tokens, edit={site: edit}).logits


def test_the_whole_site_is_what_hooks_patch(tiny: Callable[[str], BridgeModel], covered: str) -> None:
    model = tiny(covered)
    (batch,) = make_batches(model, prompt_pairs(3, templates=1))
    for at in ("resid_pre.1/S2", "resid_post.0/S2", "attn_out.1/S2", "mlp_out.1/S2", "resid_post.2"):
        place = place_named(at, model.graph.n_layers)
        one, two = swaps(model, [batch], place)
        for swap, runs in ((one, (batch.clean, batch.corrupt)), (two, (batch.corrupt, batch.clean))):
            own = swap.logits((swap.value + whole(swap))[None])[0]
            hooked = _hooked(model, swap, *runs, place.kind, place.layer)
            torch.testing.assert_close(own, hooked, atol=2e-4, rtol=1e-4)


def test_activations_and_what_they_write_are_one_patch_and_a_full_frame_is_the_whole_site(
    gpt2: BridgeModel,
) -> None:
    batches = make_batches(gpt2, prompt_pairs(6))
    inside, outside = (
        swaps(gpt2, batches, place_named(f"{kind}.1/S2", 3)) for kind in ("mlp_post", "mlp_out")
    )
    everything = taken(torch.eye(inside[0].value.shape[1]))
    one, two = said(inside, [whole, everything, nothing]), said(outside, [whole])
    assert one.difference[0] == pytest.approx(two.difference[0], abs=1e-4)
    assert one.difference[1] == pytest.approx(one.difference[0], abs=1e-4)
    own = [gpt2.run(b.clean).logits for b in batches]
    assert torch.cat([s.unpatched for s in inside if s.of_clean]).allclose(torch.cat(own), atol=1e-4)
    assert abs(one.difference[2] - one.difference[0]).max() > 1e-3


def test_gradients_are_those_of_finite_differences(gpt2: BridgeModel) -> None:
    (swap, _) = swaps(gpt2, make_batches(gpt2, prompt_pairs(1)), place_named("resid_mid.1/S2", 3))
    frame = main_gradients([swap], 1)
    (other,) = random_frames(len(frame), 1, 1, 0)
    step = 1e-2

    def slope(direction: Tensor) -> float:
        ends = [swap.logits((swap.value + way * direction.T)[None])[0, 0] for way in (step, -step)]
        up, down = (float(end[swap.right[0][0]] - end[swap.counterfactual[0][0]]) for end in ends)
        return (up - down) / (2 * step)

    assert slope(other) / slope(frame) == pytest.approx(float((other * frame).sum()), abs=0.02)


def test_the_planted_inhibition_is_genuine_and_its_reader_is_found() -> None:
    from cli.prompt_source import sample_task
    from tasks import TASKS

    model = load_model("planted-ioi")
    pairs = sample_task(model, TASKS.load("ioi"), form=None, corruption=None, n=32, seed=0).pairs
    place = place_named("resid_post.1/END", 3)
    prompts = prompted(model, pairs, place, 0)
    assert prompts.new == "templates"
    movers = {"a2.h1<q>", "a2.h3<q>"}
    assert movers <= set(likely_readers(prompts.learned, model.graph))
    found = align(model, prompts, 4, recipe=Recipe(epochs=4, rate=0.05))
    fldd = found.effects["learned"].fldd.value
    assert fldd > 80 > 20 > max(each for each, _ in found.random)
    assert found.verdict == "genuine"


def test_frames_are_orthonormal_and_seeded(gpt2: BridgeModel) -> None:
    some = swaps(gpt2, make_batches(gpt2, prompt_pairs(4)), place_named("resid_post.0", 3))
    one, again, other = (learn(some, 3, seed, Recipe(epochs=2)) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other, atol=0.1)
    torch.testing.assert_close(one.T @ one, torch.eye(3), atol=1e-5, rtol=0)


def test_mistakes_are_named(gpt2: BridgeModel) -> None:
    batches = make_batches(gpt2, prompt_pairs(4))
    with pytest.raises(CircuitError, match="there is no layer 7"):
        place_named("resid_post.7/END", 3)
    with pytest.raises(CircuitError, match=r"no kind of site 'resid_past'. Did you mean 'resid_post'"):
        place_named("resid_past.1", 3)
    with pytest.raises(CircuitError, match="is no site"):
        place_named("layer 3", 3)
    with pytest.raises(CircuitError, match="names NOBODY"):
        swaps(gpt2, batches, place_named("resid_post.1/NOBODY", 3))
    with pytest.raises(CircuitError, match="only the last token is read"):
        swaps(gpt2, batches, place_named("resid_post.2/S2", 3))
    some = swaps(gpt2, batches, place_named("resid_post.1", 3))
    with pytest.raises(CircuitError, match=r"33 dimensions does not fit in resid_post.1, which has 32"):
        learn(some, 33)
    with pytest.raises(CircuitError, match=r"a0.h1 reads before"):
        require_readers(["a0.h1"], place_named("resid_post.1", 3), gpt2.graph)
    with pytest.raises(CircuitError, match="3 layers x 4 heads"):
        require_readers(["a5.h1"], place_named("resid_post.1", 3), gpt2.graph)
    with pytest.raises(CircuitError, match="Choose a corruption that flips"):
        require_counterfactual(some)


def test_readers_that_see_one_direction_alone_test_nothing() -> None:
    """Brought to unit length, the seen part of any direction is then the same."""
    found = judge(_prompts(GENUINE), torch.eye(HIDDEN)[:, :1], torch.eye(HIDDEN)[:, :1])
    assert found.effects["seen part"].fldd.value == pytest.approx(100)
    assert [fldd for fldd, _ in found.split.random] == pytest.approx([100] * 20)
    assert found.verdict == "untested"


def test_what_others_read_is_not_called_an_illusion() -> None:
    found = judge(_prompts(GENUINE), torch.eye(HIDDEN)[:, :1], torch.eye(HIDDEN)[:, 1:4])
    assert found.effects["seen part"].fldd.value == 0
    assert found.effects["unseen part"].fldd.value == pytest.approx(100)
    assert found.verdict == "other readers"


def test_without_readers_nothing_is_split() -> None:
    found = judge(_prompts(GENUINE), torch.eye(HIDDEN)[:, :1], torch.zeros(HIDDEN, 0))
    assert "seen part" not in found.effects
    assert found.verdict == "untested"
