"""What our patching costs beside TransformerLens's, in one process, turn by turn.

    python tests/benchmarks/against_transformer_lens.py [--rounds 3] [WORD ...]

Every row: CPU seconds of both (one thread, no gradients where none are needed), the median of the ratios, and the
largest difference of the results. TransformerLens runs one whole forward pass a cell, so a few of its cells are run
and multiplied; ours is run whole, base runs included. Seconds differ from machine to machine: quote the ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import pandas as pd
import torch
from benchmarks.shapes import Prompts, write_shape
from tiny_models import edges_by_name
from torch import Tensor

from circuits.batches import Batch
from circuits.donors import all_but_one, resample_donor
from circuits.engine import products
from circuits.engine.portable import PortableRun
from circuits.metrics import logit_difference
from circuits.models.bridge import BridgeModel, load_model
from circuits.patching import base_run
from circuits.readout import Readout

LENGTH, PAIRS, HEAD = 16, 16, 3
"""Tokens a prompt, prompts, and the head of each layer whose effects are compared."""


@dataclass(frozen=True)
class Row:
    """ours, theirs: one turn; CPU seconds of the whole work, and results for the cells that both compute."""

    name: str
    least: float
    ours: Callable[[], tuple[float, Tensor]]
    theirs: Callable[[], tuple[float, Tensor]]


def cpu(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of one call, and what it returns."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def median_cpu(work: Callable[[], Any], times: int) -> float:
    return statistics.median(cpu(work)[0] for _ in range(times))


class Pair:
    """One shape, loaded by us and by TransformerLens as it ships."""

    def __init__(self, name: str, folder: Path) -> None:
        from transformer_lens.model_bridge import TransformerBridge

        directory = write_shape(name, folder)
        self.model: BridgeModel = load_model(str(directory))
        torch.set_num_threads(1)
        self.bridge = TransformerBridge.boot_transformers(str(directory), device="cpu").eval()
        self.layers = tuple(range(self.model.graph.n_layers))
        self.some = self.layers[:: len(self.layers) // 3 - 1]

    def batch(self, first: int) -> Batch:
        return Prompts(PAIRS, LENGTH, first).batch(self.model.vocab_size)

    def sweep(self, batch: Batch, layers: Sequence[int], places: Sequence[Tensor | None]) -> Tensor:
        """Effects of every head of `layers`: [place, layer, head, prompt]."""
        run = base_run(self.model, batch.clean, resample_donor(batch.corrupt))
        readout = Readout(batch, logit_difference)
        unpatched = run.unpatched(readout).metric
        effects = [
            [run.measure(self.one_by_one(layer), readout, where).metric - unpatched for layer in layers]
            for where in places
        ]
        return torch.stack([torch.stack(by_layer) for by_layer in effects])

    def one_by_one(self, layer: int) -> Tensor:
        """A row for every head of a layer."""
        graph = self.model.graph
        return all_but_one(graph, [f"a{layer}.h{head}" for head in range(graph.n_heads)])

    def patched(self, batch: Batch, cells: Sequence[tuple[int, ...]], n_cells: int) -> tuple[float, Tensor]:
        """TransformerLens's mean effects for cells (layer, head) or (layer, position, head).

        The CPU seconds are what `n_cells` of them would take: base runs once, the cells' own time multiplied.
        """
        from transformer_lens import patching

        by_position = len(cells[0]) == 3
        setter = (
            patching.layer_pos_head_vector_patch_setter
            if by_position
            else patching.layer_head_vector_patch_setter
        )
        table = pd.DataFrame(cells, columns=["layer", "pos", "head"] if by_position else ["layer", "head"])
        names = [f"blocks.{layer}.attn.hook_z" for layer in {cell[0] for cell in cells}]

        def metric(logits: Tensor) -> Tensor:
            return logit_difference(logits[:, -1], batch.answers, batch.distractors).mean()

        with torch.inference_mode():
            before, (_, cache) = cpu(lambda: self.bridge.run_with_cache(batch.corrupt, names_filter=names))
            each, values = cpu(
                lambda: patching.generic_activation_patch(
                    self.bridge, batch.clean, cache, metric, setter, "z", index_df=table
                )
            )
            behind, unpatched = cpu(lambda: metric(self.bridge(batch.clean)))
        return before + behind + each / len(cells) * n_cells, values - unpatched


def all_positions(pair: Pair, first: int, least: float) -> Row:
    """Every head of the model, all positions at once."""
    batch, cells = pair.batch(first), [(layer, HEAD) for layer in pair.some]

    def ours() -> tuple[float, Tensor]:
        seconds, effects = cpu(lambda: pair.sweep(batch, pair.layers, [None]))
        return seconds, effects[0, list(pair.some), HEAD].mean(-1)

    def theirs() -> tuple[float, Tensor]:
        return pair.patched(batch, cells, len(pair.model.graph.heads))

    return Row(f"all heads, all positions, first difference at {first}", least, ours, theirs)


def by_position(pair: Pair, first: int, least: float) -> Row:
    """Every head of some layers, one position at a time."""
    batch, compared = pair.batch(first), (LENGTH - 4, LENGTH - 1)
    cells = [(layer, p, HEAD) for layer in pair.some for p in compared]
    places = [torch.eye(LENGTH, dtype=torch.bool)[p].expand(PAIRS, -1) for p in range(LENGTH)]

    def ours() -> tuple[float, Tensor]:
        seconds, effects = cpu(lambda: pair.sweep(batch, pair.some, places))
        return seconds, effects[list(compared)][:, :, HEAD].mean(-1).T.flatten()

    def theirs() -> tuple[float, Tensor]:
        return pair.patched(batch, cells, len(pair.some) * pair.model.graph.n_heads * LENGTH)

    return Row(
        f"heads of {len(pair.some)} layers by position, first difference at {first}", least, ours, theirs
    )


def whole_forwards(pair: Pair, first: int, least: float) -> Row:
    """Every head of the model, beside as many whole forward passes of the same model."""
    batch = pair.batch(first)

    def ours() -> tuple[float, Tensor]:
        seconds, effects = cpu(lambda: pair.sweep(batch, pair.layers, [None]))
        return seconds, effects[0, pair.some[0]]

    def theirs() -> tuple[float, Tensor]:
        run = PortableRun(pair.model, batch.clean, resample_donor(batch.corrupt))
        readout = Readout(batch, logit_difference)
        effects = run.measure(pair.one_by_one(pair.some[0]), readout).metric - run.unpatched(readout).metric
        return cpu(lambda: pair.model.run(batch.clean))[0] * len(pair.model.graph.heads), effects

    return Row(f"GQA: all heads beside whole forwards, first difference at {first}", least, ours, theirs)


def attribution(pair: Pair, first: int, least: float, n: int = 8) -> Row:
    """AtP of every head and MLP by denoising; TransformerLens takes prompts one by one, so a few of them are run."""
    from circuits.methods import METHODS
    from circuits.methods.method import Problem

    batch, some = with_one_answer(Prompts(n, LENGTH, first).batch(pair.model.vocab_size)), range(2)
    (answer,), (wrong,) = batch.answers[0], batch.distractors[0]
    method, problem = METHODS.load("attribution-patching"), Problem((batch,), logit_difference)
    options = method.configure({"direction": "denoising"})

    def ours() -> tuple[float, Tensor]:
        seconds, scores = cpu(lambda: method.score(pair.model, problem, options))
        return seconds, torch.tensor(scores.samples[list(some)].mean(0))

    def theirs() -> tuple[float, Tensor]:
        from transformer_lens.tools.analysis import attribution_patch

        rows = list(some)
        seconds, found = cpu(
            lambda: attribution_patch(
                pair.bridge,
                batch.clean[rows],
                batch.corrupt[rows],
                lambda logits: (logits[:, -1, answer] - logits[:, -1, wrong]).sum(),
            )
        )
        sums = dict.fromkeys(pair.model.graph.components, 0.0)
        for node, value in found.node_scores.items():
            name = f"m{node.layer}" if node.kind == "mlp_out" else f"a{node.layer}.h{node.head}"
            if name in sums:
                sums[name] += float(value)
        return seconds / len(rows) * n, torch.tensor(list(sums.values()))

    return Row(f"AtP, all heads and MLPs, {n} prompts, first difference at {first}", least, ours, theirs)


def edge_attribution(pair: Pair, first: int, least: float, n: int = 64) -> Row:
    """EAP of every edge by denoising; TransformerLens takes prompts one by one, so two of them are run."""
    from circuits.methods import METHODS
    from circuits.methods.method import Problem

    batch, rows = with_one_answer(Prompts(n, LENGTH, first).batch(pair.model.vocab_size)), [0, 1]
    (answer,), (wrong,) = batch.answers[0], batch.distractors[0]
    method, problem = METHODS.load("eap"), Problem((batch,), logit_difference)
    options = method.configure({"direction": "denoising"})

    def ours() -> tuple[float, Tensor]:
        seconds, scores = cpu(lambda: method.score(pair.model, problem, options))
        return seconds, torch.tensor(scores.edges.samples[rows].mean(0))

    def theirs() -> tuple[float, Tensor]:
        from transformer_lens.tools.analysis import attribution_patch
        from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig

        seconds, found = cpu(
            lambda: attribution_patch(
                pair.bridge,
                batch.clean[rows],
                batch.corrupt[rows],
                lambda logits: (logits[:, -1, answer] - logits[:, -1, wrong]).sum(),
                EdgeAttributionConfig(granularity="edge"),
            )
        )
        sums = edges_by_name(found.edge_scores)
        return seconds / len(rows) * n, torch.tensor([sums[edge] for edge in pair.model.graph.places])

    return Row(f"EAP, all edges, {n} prompts, first difference at {first}", least, ours, theirs)


def with_one_answer(batch: Batch) -> Batch:
    """The same prompts, all with the first one's answer and distractor."""
    pairs = tuple(
        replace(pair, answers=batch.answers[0], distractors=batch.distractors[0]) for pair in batch.pairs
    )
    return replace(batch, pairs=pairs)


def direct(pair: Pair, least: float, n: int = 64) -> Row:
    """Direct logit attribution of every head, given what a forward pass leaves; forward passes are not counted."""
    from circuits.engine.forward import steps
    from circuits.methods.logit_attribution import _along, _direction, unembedding_of

    weights, batch = pair.model.weights, Prompts(n, LENGTH, 1).batch(pair.model.vocab_size)
    assert weights is not None
    readout = Readout(batch, logit_difference)
    with torch.inference_mode():
        taken = [
            (step.z[:, -1].clone(), step.after[:, -1].clone())
            for step in steps(weights, weights.embed(batch.clean), answer_alone=True)
        ]

    @torch.inference_mode()
    def attribute() -> Tensor:
        unembedding = unembedding_of(weights, readout.tokens)
        direction = _direction(unembedding.weight.T, readout.renumbered)
        heads = [
            _along(direction, z, layer.out.weight.view(weights.n_heads, weights.d_head, -1), after)[0]
            for layer, (z, after) in zip(weights.layers, taken, strict=True)
        ]
        return torch.cat(heads, 1) / unembedding.scale(taken[-1][1])[:, None]

    def stacked(cache: Any) -> Tensor:
        results = cache.stack_head_results(layer=-1, pos_slice=-1)
        norm = pair.bridge.ln_final.original_component
        w = pair.bridge.W_U
        answers, wrong = (
            torch.stack([w[:, ids[0]] for ids in side]) for side in (batch.answers, batch.distractors)
        )
        direction = (answers - wrong) * norm.weight
        centred = results - results.mean(-1, keepdim=True)
        scale = taken[-1][1].var(-1, unbiased=False).add(norm.eps).sqrt()
        return (centred * direction).sum(-1).T / scale[:, None]

    @torch.inference_mode()
    def theirs() -> tuple[float, Tensor]:
        # A new cache each time, for it keeps what it has stacked.
        names = [f"blocks.{layer}.attn.hook_z" for layer in pair.layers]
        _, cache = pair.bridge.run_with_cache(batch.clean, names_filter=names)
        return cpu(lambda: stacked(cache))

    return Row(f"DLA, all heads, {n} prompts", least, lambda: cpu(attribute), theirs)


def show(row: Row, rounds: int) -> None:
    """Runs both turn by turn and prints the row."""
    ratios, seconds, gap = [], [], 0.0
    for _ in range(rounds):
        (a, ours), (b, theirs) = row.ours(), row.theirs()
        ratios.append(b / a)
        seconds.append((a, b))
        gap = max(gap, float((ours - theirs).abs().max()))
    a, b = (statistics.median(s[i] for s in seconds) for i in (0, 1))
    print(
        f"{row.name:62} {a:8.2f} {b:9.1f} {statistics.median(ratios):7.1f}x  at least {row.least:g}x"
        f"   largest difference {gap:.0e}",
        flush=True,
    )


def show_rate(pair: Pair, rounds: int) -> None:
    """The share of the machine's rate of matrix products that the sweep of all heads reaches."""
    batch = pair.batch(10)

    def sweep() -> Tensor:
        return pair.sweep(batch, pair.layers, [None])

    gflop, seconds = counted_gflop(sweep), median_cpu(sweep, rounds)
    plain, best = product_rates()
    print(
        f"all heads, first difference at 10: {gflop:.0f} GFLOP in {seconds:.2f} s = {gflop / seconds:.0f} GFLOP/s, "
        f"{gflop / seconds / plain:.0%} of torch's own product ({plain:.0f}), "
        f"{gflop / seconds / best:.0%} of the fastest one ({best:.0f})"
    )


def counted_gflop(work: Callable[[], object]) -> float:
    """Counted by torch, while every product is one that it sees."""
    from torch.utils.flop_counter import FlopCounterMode

    suits = products._suits_onednn
    products._suits_onednn = lambda x, weight: False
    try:
        with FlopCounterMode(display=False) as counter:
            work()
    finally:
        products._suits_onednn = suits
    return counter.get_total_flops() / 1e9


def product_rates() -> tuple[float, float]:
    """GFLOP a second of torch's own fp32 product, and of the one that the engine takes, at its usual shape."""
    x, weight, bias = torch.randn(1152, 768), torch.randn(768, 3072), torch.randn(3072)
    gflop = 2 * 1152 * 768 * 3072 / 1e9
    with torch.inference_mode():
        rates = []
        for work in (lambda: torch.addmm(bias, x, weight), lambda: products.product(x, weight, bias)):
            work()
            rates.append(gflop / median_cpu(work, 9))
    return rates[0], rates[1]


def main() -> None:
    """Prints every row whose name holds all the words that are given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="words that a row's name must hold")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "circuit-benchmarks")
    arguments = parser.parse_args()
    small, llama = Pair("gpt2-small", arguments.folder), Pair("llama-gqa", arguments.folder)
    rows = [
        all_positions(small, 10, 10),
        all_positions(small, 1, 4),
        by_position(small, 10, 50),
        by_position(small, 1, 8),
        whole_forwards(llama, 10, 4),
        whole_forwards(llama, 1, 4),
        attribution(small, 10, 3),
        attribution(small, 1, 3),
        edge_attribution(small, 10, 20),
        edge_attribution(small, 1, 20),
        direct(small, 20),
    ]
    print(f"{'one thread, CPU seconds, medians':62} {'ours':>8} {'theirs':>9}   ratio")
    for row in rows:
        if all(word in row.name for word in arguments.words):
            show(row, arguments.rounds)
    if not arguments.words:
        show_rate(small, arguments.rounds)


if __name__ == "__main__":
    main()
