"""Observable propagation: exact where nothing divides or bends, and held to what prompts say elsewhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from linear_network import network, one_prompt
from role_network import RoleModel, role_evidence
from tiny_models import prompt_pairs

from circuits.batches import make_batches
from circuits.engine.forward import steps
from circuits.errors import CircuitError
from circuits.models.bridge import BridgeModel
from circuits.roles.attention import pattern
from circuits.weight_reading.heads import require_weights
from circuits.weight_reading.observables import (
    Observable,
    Reader,
    coupling,
    directions,
    parse_observable,
)
from circuits.weight_reading.observed import boundary, couplings, fit, mlps


def _reader(model: BridgeModel | RoleModel) -> Reader:
    weights = model.weights
    assert weights is not None
    return Reader.of(weights, model.graph, range(2, weights.vocab_size - 1))


def test_without_norms_attention_times_feature_is_what_a_head_adds() -> None:
    """The hand-written network has no norm: sum over positions of attention * (x . y) is the head's whole share."""
    evidence = role_evidence()
    model, (batch,) = evidence.model, evidence.batches
    reader = _reader(RoleModel())
    n = directions(evidence.weights, [Observable((1,), (2,))])
    for depth, step in enumerate(steps(evidence.weights, evidence.weights.embed(batch.clean))):
        looks = pattern(evidence.weights, depth, step.before)[:, :, -1].double()
        writer = evidence.weights.layers[depth].out.weight.double().view(4, -1, model.d_model)
        for head in range(4):
            (y,) = reader.follow((f"a{depth}.h{head}",), n)
            foretold = (looks[:, head] * (step.before.double() @ y)).sum(1)
            exact = step.z[:, -1, head].double() @ writer[head] @ n[0]
            torch.testing.assert_close(foretold, exact, atol=1e-6, rtol=0)


def test_the_copying_head_ranks_first_and_reads_its_own_tokens() -> None:
    """a1.h1 copies, a1.h3 copies negated, a1.h2 writes the next letter: as long; all else is nothing to logits."""
    reader = _reader(RoleModel())
    n = directions(reader.weights, [Observable((5,), (9,))])
    routes = reader.paths(n, 2, 4)
    assert {route.heads[-1] for route in routes[:3]} == {"a1.h1", "a1.h2", "a1.h3"}
    assert [route.norm for route in routes[3:8]] == pytest.approx([0.0] * 5, abs=1e-9)
    copies, follows = (reader.raises(reader.follow((head,), n)[0]) for head in ("a1.h1", "a1.h2"))
    assert (int(copies.argmax()), int(copies.argmin())) == (5, 9)
    assert (int(follows.argmax()), int(follows.argmin())) == (4, 8)


def test_feature_vectors_are_the_gradient(gpt2: BridgeModel) -> None:
    """Through norms: the gradient of n . head output by x, times what the norms divide by, where x stands alone."""
    weights = require_weights(gpt2, "a test")
    reader = _reader(gpt2)
    n = directions(weights, [Observable((3,), (4,))])
    layer = weights.layers[1]
    z = torch.randn(1, 32, requires_grad=True)
    value = z @ layer.value.weight[:, 16:24] @ layer.out.weight[16:24]
    contrast = weights.unembed.weight[:, [3]] - weights.unembed.weight[:, [4]]
    raised = (value - value.mean()) * weights.final_norm.gain @ contrast
    (gradient,) = torch.autograd.grad(raised.sum(), z)
    folded = gradient[0] * layer.attention_norm.gain
    (y,) = reader.follow(("a1.h2",), n)
    torch.testing.assert_close(y.float(), folded - folded.mean(), atol=1e-5, rtol=1e-4)


def test_a_path_is_passed_head_by_head(gpt2: BridgeModel) -> None:
    reader = _reader(gpt2)
    n = directions(reader.weights, [Observable((3,), (4,)), Observable((5,), (4,))])
    two = next(route for route in reader.paths(n, 2, 6) if len(route.heads) == 2)
    (first, last) = two.heads
    torch.testing.assert_close(two.vectors, reader.follow((first,), reader.follow((last,), n)))
    assert two.norm == pytest.approx(float(two.vectors.norm(dim=-1).mean()))
    assert gpt2.graph.feeds(first, last)
    assert 0 <= two.reached <= 1


def test_random_weights_are_no_larger_than_chance(gpt2: BridgeModel) -> None:
    reader = _reader(gpt2)
    n = directions(reader.weights, [Observable((a,), (b,)) for a in range(2, 8) for b in range(8, 14)])
    ratios = [route.norm / route.chance for route in reader.paths(n, 1, 12)]
    assert sum(ratios) / len(ratios) == pytest.approx(1, abs=0.15)


def test_an_observable_that_is_a_multiple_is_coupled_by_the_factor(gpt2: BridgeModel) -> None:
    reader = _reader(gpt2)
    one = directions(reader.weights, [Observable((3,), (4,))])
    found = coupling(reader, "a1.h2", torch.cat([one, -2.5 * one]))
    assert (found.coefficient, found.cosine) == pytest.approx((-2.5, -1.0))
    assert 0 < found.random < 0.6
    batches = make_batches(gpt2, prompt_pairs(6))
    seen = couplings(reader, batches, ["a1.h2"], torch.cat([one, -2.5 * one]))["a1.h2"]
    assert seen.own == pytest.approx((-2.5, 1.0))
    assert seen.tokens == 3 * 14 + 3 * 13
    assert 0 < seen.random < 0.9


def test_a_linear_mlp_is_foretold_exactly() -> None:
    weights = network([[(0, 1, 2.0)], [(1, 2, -3.0), (0, 1, 1.0)]], [0.0, 1.0, 4.0, 0.0])
    readouts = [one_prompt(clean, corrupt).batch for clean, corrupt in ((3, 1), (5, 2), (2, 7))]
    batches = [replace(batch, index=(i,)) for i, batch in enumerate(readouts)]
    first, second = mlps(weights, batches)
    assert first.own == pytest.approx((1.0, 1.0))
    assert second.own == pytest.approx((1.0, 1.0))
    assert first.change == pytest.approx(2 * (2 + 3 - 5) / 3)


def test_the_boundary_is_where_the_value_is_zero() -> None:
    """The turn nearest to the middle; the middle where there is none."""
    roots = torch.tensor([0.3, 0.77, 2.0])
    t, found = boundary(lambda t: t - roots, 3, torch.device("cpu"))
    torch.testing.assert_close(t, torch.tensor([0.3, 0.77, 0.5]), atol=1e-6, rtol=0)
    assert found.tolist() == [True, True, False]
    t, _ = boundary(lambda t: (t - 0.1) * (t - 0.6), 1, torch.device("cpu"))
    assert float(t) == pytest.approx(0.6, abs=1e-6)


def test_gradients_foretell_better_than_those_of_other_prompts(gpt2: BridgeModel) -> None:
    with torch.inference_mode():
        found = mlps(require_weights(gpt2, "a test"), make_batches(gpt2, prompt_pairs(12)))
    assert [bent.prompts for bent in found] == [12, 12, 12]
    assert all(bent.own.r_squared > bent.shuffled for bent in found)


def test_nothing_is_fitted_to_what_does_not_vary() -> None:
    ones, line = torch.ones(5).double(), torch.arange(5).double()
    assert fit(ones, line) == (0.0, 0.0)
    assert fit(line, 2 * line + 1) == pytest.approx((2.0, 1.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Mary", "'Mary' is no observable"),
        ("Mary/", "'Mary/' is no observable"),
        ("Mary/John/Tom", "is no observable"),
        ("Mary/Zoe", "'Zoe' of 'Mary/Zoe' is not one token that tiny-gpt2 knows"),
        ("Mary,Tom/Mary", "holds Mary on both sides"),
        ("Mary,/John", "'' of 'Mary,/John' is not one token"),
    ],
)
def test_what_is_no_observable_is_named(text: str, message: str, gpt2: BridgeModel) -> None:
    with pytest.raises(CircuitError, match=message):
        parse_observable(text, gpt2)


def test_words_become_tokens(gpt2: BridgeModel) -> None:
    found = parse_observable("Mary, Tom/John", gpt2)
    assert found.spelled(gpt2) == "Mary,Tom/John"
    n = directions(require_weights(gpt2, "a test"), [found, Observable(found.answers[:1], found.distractors)])
    assert n.shape == (2, gpt2.d_model)
    assert n.sum(1).abs().max() < 1e-6
