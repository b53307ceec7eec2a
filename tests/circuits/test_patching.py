"""Keep-masks, donors and outcomes: the pieces that every intervention is made of."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny_models import Hooked, prompt_pairs
from torch import Tensor

from circuits.batches import Batch, make_batches
from circuits.donors import (
    all_but_one,
    component_sites,
    first_difference,
    keep_masks,
    mean_donor,
    resample_donor,
    starts,
    zero_donor,
)
from circuits.errors import CircuitError
from circuits.graph import Graph
from circuits.methods.method import Problem
from circuits.metrics import METRICS, correct, logit_difference, metric_named, preferred
from circuits.model import Site
from circuits.models.bridge import BridgeModel
from circuits.patching import measure
from circuits.readout import Readout, in_prompt_order

MakeProblem = Callable[..., Problem]


@pytest.fixture(scope="module")
def batches(gpt2: BridgeModel) -> tuple[Batch, ...]:
    return make_batches(gpt2, prompt_pairs(8))


def test_keep_masks_follow_the_order_of_the_graph() -> None:
    graph = Graph(2, 2, 2)
    assert keep_masks(graph, [["m1", "a0.h1"]]).tolist() == [[False, True, False, False, False, True]]
    assert all_but_one(graph, ["a1.h0"]).tolist() == [[True, True, True, False, True, True]]
    assert [str(s.kind) + str(s.layer) for s in component_sites(graph)] == ["z0", "mlp0", "z1", "mlp1"]


def test_names_that_are_no_nodes_of_the_model_are_refused_all_at_once() -> None:
    graph = Graph(2, 2, 2)
    with pytest.raises(CircuitError, match=r"(?s)a2\.h0 is not in this model: .*'h7' is no node name"):
        keep_masks(graph, [["m1", "h7"], ["a2.h0"]])
    with pytest.raises(CircuitError, match="m2 is not in this model"):
        all_but_one(graph, ["m1", "m2"])
    assert torch.equal(keep_masks(graph, [["input", "m1", "logits"]]), keep_masks(graph, [["m1"]]))


def test_rows_are_grouped_by_where_they_leave_the_base_run() -> None:
    graph = Graph(2, 2, 2)
    circuits = [graph.components, (), ["a0.h0", "a0.h1"], ["a0.h0", "a0.h1", "m0", "m1", "a1.h1"]]
    keep = torch.cat([keep_masks(graph, circuits), all_but_one(graph, ["m0", "a0.h1"])])
    found = [([4, 2], 0, "mlp"), ([0], 0, "none"), ([1, 5], 0, "z"), ([3], 1, "z")]
    assert [(sorted(rows), layer, kind) for rows, layer, kind in starts(keep.view(6, 2, 3))] == [
        (sorted(rows), layer, kind) for rows, layer, kind in found
    ]


def test_a_row_sees_no_other_row(gpt2: BridgeModel, batches: tuple[Batch, ...]) -> None:
    """Rows with many components replaced beside rows with none."""
    batch, circuits = batches[0], [gpt2.graph.components, (), ("a0.h1", "m2"), gpt2.graph.heads]
    donor = resample_donor(batch.corrupt)
    together = measure(
        gpt2, batch, logit_difference, keep=keep_masks(gpt2.graph, circuits), donor=donor
    ).metric
    for row, circuit in enumerate(circuits):
        alone = measure(gpt2, batch, logit_difference, keep=keep_masks(gpt2.graph, [circuit]), donor=donor)
        torch.testing.assert_close(together[row], alone.metric[0], atol=1e-5, rtol=0)
    assert together.std(0).min() > 1e-3


def test_a_circuit_is_the_same_by_plain_hooks(
    family: str, tiny: Callable[[str], BridgeModel], plain: Callable[[str], Hooked], problem: MakeProblem
) -> None:
    """Many nodes at once, heads and MLPs, at some positions only."""
    model, by_hand = tiny(family), plain(family)
    batch = problem(model).batches[-1]
    kept = {"a0.h1", "a0.h2", "a1.h0", "m1", "a2.h3"}
    where = torch.zeros(batch.clean.shape, dtype=torch.bool)
    where[:, -4:] = True
    where[::2, -1] = False
    donor = by_hand.values(batch.corrupt)

    def change(place: tuple[str, int]) -> Callable[[Tensor], Tensor]:
        def edit(value: Tensor) -> Tensor:
            value = value.clone()
            if place[0] == "mlp":
                if f"m{place[1]}" not in kept:
                    value[where] = donor[place][where]
                return value
            for head in range(model.graph.n_heads):
                if f"a{place[1]}.h{head}" not in kept:
                    value[:, :, head][where] = donor[place][:, :, head][where]
            return value

        return edit

    logits = by_hand.logits(batch.clean, {place: change(place) for place in donor})
    theirs = logit_difference(logits, batch.answers, batch.distractors)
    (ours,) = measure(
        model,
        batch,
        logit_difference,
        keep=keep_masks(model.graph, [kept]),
        donor=resample_donor(batch.corrupt),
        where=where,
    ).metric
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    clean = logit_difference(model.run(batch.clean).logits, batch.answers, batch.distractors)
    assert (ours - clean).abs().max() > 1e-3


def test_the_mean_donor_is_the_mean_by_position(gpt2: BridgeModel, batches: tuple[Batch, ...]) -> None:
    """By hand: over clean and corrupt prompts that reach the position; past the longest, its last one."""
    donor, site = mean_donor(gpt2, batches), Site("z", 1)
    rows = [
        value
        for batch in batches
        for tokens in (batch.clean, batch.corrupt)
        for value in gpt2.run(tokens, capture=[site]).captured[site]
    ]
    longest = max(len(row) for row in rows)
    assert min(len(row) for row in rows) < longest
    given = donor.constant(site, (0, longest + 2), (4, 8), gpt2.device)
    for position in range(longest):
        mean = torch.stack([row[position] for row in rows if len(row) > position]).mean(0)
        torch.testing.assert_close(given[position], mean, atol=1e-5, rtol=0)
    assert torch.equal(given[-1], given[longest - 1])
    assert torch.equal(given[-2], given[longest - 1])


def test_the_first_difference_is_where_donors_begin_to_matter(batches: tuple[Batch, ...]) -> None:
    batch = batches[0]
    first = first_difference(batch.clean, resample_donor(batch.corrupt))
    assert torch.equal(batch.clean[:, :first], batch.corrupt[:, :first])
    assert (batch.clean[:, first] != batch.corrupt[:, first]).any()
    assert first_difference(batch.clean, resample_donor(batch.clean)) == batch.clean.shape[1]
    assert first_difference(batch.clean, zero_donor()) == 0


def test_outcomes_come_back_in_prompt_order(gpt2: BridgeModel) -> None:
    pairs = prompt_pairs(9)
    batches = make_batches(gpt2, pairs, batch_size=2)
    assert [i for batch in batches for i in batch.index] != list(range(9))
    parts = [Readout(b, logit_difference, True).of_all(gpt2.run(b.clean).logits[None]) for b in batches]
    together = in_prompt_order(batches, parts)
    for i, pair in enumerate(pairs):
        (one,) = make_batches(gpt2, [pair])
        alone = Readout(one, logit_difference, True).of_all(gpt2.run(one.clean).logits[None])
        assert together.metric[0, i] == pytest.approx(float(alone.metric[0, 0]), abs=1e-5)
        assert together.accurate[0, i] == alone.accurate[0, 0]
        assert together.preferred[0, i] == alone.preferred[0, 0]


LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.0, 3.0, 1.0, 5.0]])


def test_metrics_computed_by_hand() -> None:
    answers, distractors = ((0,), (1, 2)), ((2, 3), (3,))
    assert logit_difference(LOGITS, answers, distractors).tolist() == [2.5, -3.0]
    probabilities = LOGITS.softmax(-1)
    expected = [
        probabilities[0, 0] - probabilities[0, 2] - probabilities[0, 3],
        probabilities[1, 1] + probabilities[1, 2] - probabilities[1, 3],
    ]
    given = METRICS["probability-difference"](LOGITS, answers, distractors)
    torch.testing.assert_close(given, torch.stack(expected))
    assert preferred(LOGITS, answers, distractors).tolist() == [True, False]
    assert correct(LOGITS, answers).tolist() == [True, False]


@pytest.mark.parametrize("name", METRICS)
def test_metrics_do_not_depend_on_whether_rows_have_as_many_answers(name: str) -> None:
    """Rows of one length take a faster path than rows of several."""
    metric = metric_named(name)
    even = metric(LOGITS, ((0, 1), (1, 2)), ((2, 3), (3, 0)))
    for row in (0, 1):
        ragged = metric(LOGITS, tuple((((0, 1), (1, 2))[i] if i == row else (1,)) for i in (0, 1)),
                        tuple((((2, 3), (3, 0))[i] if i == row else (0,)) for i in (0, 1)))  # fmt: skip
        assert float(ragged[row]) == pytest.approx(float(even[row]), abs=1e-6)
