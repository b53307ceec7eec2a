"""Exact edge patches: a plain way to the same numbers, and what cutting many edges must amount to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from circuits.batches import Batch
from circuits.donors import Donor, mean_donor, resample_donor, zero_donor
from circuits.engine.cuts import cut_masks, kept_masks, legal_edges
from circuits.engine.edges import EdgeRun
from circuits.engine.exact import ExactRun
from circuits.engine.forward import Attention, mlp
from circuits.engine.inputs import InputPatches, part_names
from circuits.engine.weights import Weights
from circuits.errors import CircuitError
from circuits.graph import Graph
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.model import Site
from circuits.models.bridge import BridgeModel
from circuits.readout import Readout

Tiny = Callable[[str], BridgeModel]
MakeProblem = Callable[..., Problem]


def _donor(kind: str, model: BridgeModel, batch: Batch) -> Donor:
    if kind == "resample":
        return resample_donor(batch.corrupt)
    return mean_donor(model, (batch,)) if kind == "mean" else zero_donor()


def _edges(model: BridgeModel, batch: Batch, donor: Donor, memory: int = 2**28) -> EdgeRun:
    assert model.weights is not None
    return EdgeRun(ExactRun(model.weights, batch.clean, donor, memory), model.graph)


def _random_cuts(graph: Graph, n: int, seed: int = 0) -> Tensor:
    """Rows that cut from few edges to nearly all."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.linspace(0.01, 0.95, n)[:, None, None]
    return (
        torch.rand(n, len(graph.sources), len(graph.readers), generator=generator) < shares
    ) & legal_edges(graph)


def _plainly(
    weights: Weights,
    tokens: Tensor,
    graph: Graph,
    given: list[Tensor] | None = None,
    cut: Tensor | None = None,
) -> tuple[list[Tensor], Tensor]:
    """What every source writes, and what the logits read at the last position, where each reader sums up for itself
    what it reads: no cached run, no shared rows, nothing left out."""
    place = {name: i for i, name in enumerate(graph.readers)}
    wrote, biases = [weights.embed(tokens)], [torch.zeros(())]

    def read(name: str) -> Tensor:
        here = list(wrote)
        if given is not None and cut is not None:
            here = [given[i] if cut[i, place[name]] else own for i, own in enumerate(wrote)]
        return sum(here) + sum(biases)

    rotation = weights.rotation(tokens.shape[1]) if weights.rotation else None
    for depth, layer in enumerate(weights.layers):
        at, heads = Attention(weights, depth, rotation), []
        out = layer.out.weight.view(weights.n_heads, weights.d_head, -1)
        for head in range(weights.n_heads):
            leader = head - head % (weights.n_heads // weights.n_kv_heads)
            inputs = (f"a{depth}.h{head}<q>", f"a{depth}.h{leader}<k>", f"a{depth}.h{leader}<v>")
            q, k, v = (at.project(layer.attention_norm(read(n))[None], 0)[i] for i, n in enumerate(inputs))
            heads.append(at.mix(at.pattern(q, k, None), v, None)[0, :, :, head] @ out[head])
        bias = [] if layer.out.bias is None else [layer.out.bias]
        if weights.parallel:
            written = mlp(layer, read(f"m{depth}"))
            wrote, biases = [*wrote, *heads, written], biases + bias
        else:
            wrote, biases = wrote + heads, biases + bias
            wrote.append(mlp(layer, read(f"m{depth}")))
    return wrote, read("logits")[:, -1]


def _given(kind: str, model: BridgeModel, batch: Batch) -> list[Tensor]:
    assert model.weights is not None
    weights, graph = model.weights, model.graph
    own = _plainly(weights, batch.clean, graph)[0]
    if kind == "resample":
        return _plainly(weights, batch.corrupt, graph)[0]
    if kind == "zero":
        return [torch.zeros_like(write) for write in own]
    both = [_plainly(weights, side, graph)[0] for side in (batch.clean, batch.corrupt)]
    return [
        torch.cat(pair).mean(0, keepdim=True).expand(len(batch), -1, -1) for pair in zip(*both, strict=True)
    ]


@pytest.mark.parametrize("kind", ["resample", "mean", pytest.param("zero", marks=pytest.mark.slow)])
def test_any_cuts_give_what_reading_every_sum_by_itself_gives(
    covered: str, kind: str, tiny: Tiny, problem: MakeProblem
) -> None:
    model = tiny(covered)
    assert model.weights is not None
    batch = problem(model, 4).batches[-1]
    cut, readout = _random_cuts(model.graph, 7), Readout(batch, logit_difference)
    donor = _donor(kind, model, batch)
    given = _given(kind, model, batch)
    with torch.no_grad():
        finals = [_plainly(model.weights, batch.clean, model.graph, given, row)[1] for row in cut]
    expected = readout.of_residual(model.weights, torch.stack(finals)).metric
    for memory in (2**28, 2**12):  # the second holds one prompt and one row at a time
        found = _edges(model, batch, donor, memory).measure(cut, readout).metric
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert (expected - expected[:1]).abs().max() > 0.05


@pytest.mark.parametrize("kind", ["resample", "mean", "zero"])
def test_patching_nodes_is_cutting_all_their_out_edges(
    covered: str, kind: str, tiny: Tiny, problem: MakeProblem
) -> None:
    model = tiny(covered)
    generator = torch.Generator().manual_seed(1)
    for batch in problem(model).batches:
        donor, readout = _donor(kind, model, batch), Readout(batch, logit_difference)
        n = len(model.graph.components)
        out = torch.cat([torch.eye(n, dtype=torch.bool), torch.rand(4, n, generator=generator) < 0.5])
        run = _edges(model, batch, donor)
        cut = torch.zeros(len(out), 1 + n, len(model.graph.readers), dtype=torch.bool)
        cut[:, 1:] = out[:, :, None] & legal_edges(model.graph)[1:]
        expected = run.run.measure(~out, readout).metric
        torch.testing.assert_close(run.measure(cut, readout).metric, expected, atol=2e-5, rtol=0)


def test_nothing_cut_is_clean_and_everything_cut_is_corrupt(
    covered: str, tiny: Tiny, problem: MakeProblem
) -> None:
    model = tiny(covered)
    for batch in problem(model).batches:
        readout = Readout(batch, logit_difference)
        found = _edges(model, batch, resample_donor(batch.corrupt)).measure(
            kept_masks(model.graph, [model.graph.places, ()]), readout
        )
        clean, corrupt = (
            readout.of_all(model.run(side).logits[None]).metric[0] for side in (batch.clean, batch.corrupt)
        )
        torch.testing.assert_close(found.metric, torch.stack([clean, corrupt]), atol=2e-5, rtol=0)


def test_cutting_all_that_an_input_reads_patches_it(covered: str, tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny(covered)
    batch = problem(model).batches[0]
    run, readout = _edges(model, batch, resample_donor(batch.corrupt)), Readout(batch, logit_difference)
    patched = dict(zip(part_names(model.graph), InputPatches(run.run).measure(readout).metric, strict=True))
    readers = [reader for reader in model.graph.readers if "<" in reader]
    into = [[edge for edge in model.graph.places if edge.endswith(f"->{reader}")] for reader in readers]
    found = run.measure(cut_masks(model.graph, into), readout).metric
    torch.testing.assert_close(found, torch.stack([patched[reader] for reader in readers]), atol=2e-5, rtol=0)


def test_accuracy_and_prompts_come_back_in_their_places(tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-gpt2")
    batch = problem(model).batches[0]
    readout = Readout(batch, logit_difference, accuracy=True)
    cut = torch.stack([legal_edges(model.graph), torch.zeros_like(legal_edges(model.graph))])
    found = _edges(model, batch, resample_donor(batch.corrupt), memory=1).measure(cut, readout)
    for row, side in zip((0, 1), (batch.corrupt, batch.clean), strict=True):
        expected = readout.of_all(model.run(side).logits[None])
        assert torch.equal(found.accurate[row], expected.accurate[0])
        assert torch.equal(found.preferred[row], expected.preferred[0])


def test_means_hold_the_mean_embedding(tiny: Tiny, problem: MakeProblem) -> None:
    model = tiny("tiny-llama")
    batch = problem(model).batches[0]
    means = mean_donor(model, (batch,)).means
    assert means is not None
    assert model.weights is not None
    embedded = model.weights.embed(torch.cat([batch.clean, batch.corrupt])).mean(0)
    torch.testing.assert_close(means[Site("input", 0)], embedded, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("edge", "says"),
    [
        ("m0", "no edge name"),
        ("a0.h0->a9.h0<q>", "a9.h0 is not in this model"),
        ("m2->a0.h0<q>", "m2 does not write before a0.h0 reads"),
        ("m0->a1.h1<k>", "a1.h1 reads at a1.h1<q>"),
        ("m0->a1.h0", "a1.h0 reads at a1.h0<q>, a1.h0<k>, a1.h0<v>"),
    ],
)
def test_an_edge_that_the_model_lacks_is_named(edge: str, says: str) -> None:
    with pytest.raises(CircuitError, match="(?s)" + says.replace("(", r"\(")):
        cut_masks(Graph(3, 4, 2), [["input->m0", edge]])


def test_places_are_rows_and_columns_of_the_edge_matrix() -> None:
    graph = Graph(2, 4, 2)
    assert list(graph.places) == list(graph.edges())
    for edge, (row, column) in graph.places.items():
        assert edge == f"{graph.sources[row]}->{graph.readers[column]}"
    assert len(Graph(12, 12, 12).readers) == 445
    assert int(legal_edges(graph).sum()) == len(graph.places)
