"""What every exact edge method asks: which edges, which runs, and the metric with some of them cut.

The one idea: an intervention on edges is a row of a mask (circuits.engine.edges), so a method is the rows that it
asks for; base runs are made once and serve all of them, and what comes back is checked once, here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.batches import Batch, by_prompt
from circuits.donors import Donor
from circuits.engine.cuts import Cut, cut_masks
from circuits.engine.edges import EdgeRun
from circuits.engine.exact import ExactRun
from circuits.errors import CircuitError, ModelError
from circuits.graph import Graph
from circuits.methods.method import Problem
from circuits.metrics import Closeness
from circuits.model import Model
from circuits.patches import ReplacementOptions, swap
from circuits.patching import engine_weights, require_engine
from circuits.readout import Readout

MASK_BYTES = 2**26
"""Of cut masks that are held at once: rows of all edges of a large model would take gigabytes."""


def fitting_edges(graph: Graph, patterns: str) -> tuple[str, ...]:
    """Edges that fit any of some comma-separated names or patterns (`a0.*->*`), in the order of the graph.

    Raises CircuitError for one that fits none.
    """
    wanted = set(_fitting(patterns, graph.places, graph, "edge"))
    return tuple(edge for edge in graph.places if edge in wanted)


def fitting_readers(graph: Graph, patterns: str) -> tuple[str, ...]:
    """The same of inputs (`a9.h6<q>`, `m4`, `logits`); the name of a head stands for all of its inputs."""
    by_name = {name: [name] for name in graph.readers}
    for head in graph.heads:
        by_name[head] = list(graph.inputs(head))
    wanted = {r for name in _fitting(patterns, by_name, graph, "receiver") for r in by_name[name]}
    return tuple(reader for reader in graph.readers if reader in wanted)


def _fitting(patterns: str, names: Iterable[str], graph: Graph, kind: str) -> Iterator[str]:
    for pattern in (part.strip() for part in patterns.split(",")):
        # Brackets stand for nothing in names, so only * and ? are special.
        fits = [name for name in names if fnmatchcase(name, pattern.replace("[", "[[]"))]
        if not fits and kind == "edge" and "*" not in pattern and "?" not in pattern:
            graph.require_edges([pattern])
        if not fits:
            examples = {
                "edge": "a0.h1->m1, a0.*->* or *->logits",
                "receiver": "logits, m1, a1.h0<q> or a1.*<v>",
            }
            raise CircuitError(
                f"{pattern!r} fits no {kind} of this model, which has {graph.n_layers} layers x {graph.n_heads} "
                f"heads. Write names or patterns such as {examples[kind]}."
            )
        yield from fits


def exact_run(model: Model, tokens: Int[Tensor, "prompt pos"], donor: Donor) -> ExactRun:
    """A base run of the engine. Raises ModelError where it does not cover the model."""
    weights = engine_weights(model, tokens.shape[1])
    if weights is None:
        raise ModelError(f"Edges of {model.name} cannot be cut exactly: {model.path}.")
    return ExactRun(weights, tokens, donor, model.memory)


class EdgeBench:
    """The prompts of a problem, run once, ready for any rows of cuts. Values are in the order of the prompt set.

    closeness: read how near the last logits stay to the run's own (circuits.metrics.Closeness), not the metric.
    """

    def __init__(
        self,
        model: Model,
        problem: Problem,
        options: ReplacementOptions,
        what: str,
        *,
        closeness: bool = False,
    ) -> None:
        require_engine(model, problem.batches, what)
        self.model, self.graph, self.batches, self.what = model, model.graph, problem.batches, what
        swapped = swap(model, problem, options)
        self.runs = [EdgeRun(exact_run(model, *swapped(batch)), model.graph) for batch in problem.batches]
        self.readouts = [
            Readout(batch, Closeness(_own_logits(run)) if closeness else problem.metric)
            for run, batch in zip(self.runs, problem.batches, strict=True)
        ]

    def unpatched(self) -> Float[np.ndarray, "prompt"]:
        """With nothing cut."""
        nothing = torch.zeros(1, len(self.graph.sources), len(self.graph.readers), dtype=torch.bool)
        return np.asarray(self.measure(nothing)[0])

    def measure(self, cut: Cut) -> Float[np.ndarray, "row prompt"]:
        """Every row on every prompt. Raises CircuitError for the first prompt on which the metric is no number."""
        parts = []
        for run, readout in zip(self.runs, self.readouts, strict=True):
            parts.append(run.measure(cut, readout).metric)
            require_finite(self.model, self.what, parts[-1], readout.batch)
        return np.asarray(by_prompt(self.batches, torch.cat(parts, 1)).double().numpy())


def require_finite(model: Model, what: str, metric: Float[Tensor, "row prompt"], batch: Batch) -> None:
    """Raises CircuitError naming the first prompt on which the metric is no number."""
    bad = (~metric.isfinite()).any(0).nonzero()
    if len(bad):
        row = int(bad[0])
        text = " ".join(repr(model.token_string(t)) for t in batch.clean[row].tolist())
        raise CircuitError(
            f"{what}: the metric is no finite number on prompt {batch.index[row] + 1} ({text}). "
            "Its activations overflow: load the model with --dtype float32, or leave the prompt out."
        )


def _own_logits(run: EdgeRun) -> Float[Tensor, "prompt vocab"]:
    with torch.inference_mode():
        return run.weights.logits(run.run.base.after[:, -1])


def cut_effects(
    model: Model, problem: Problem, options: ReplacementOptions, what: str, cuts: Sequence[Sequence[str]]
) -> Float[np.ndarray, "prompt cut"]:
    """The exact effect of cutting each set of edges: positive where they support the behaviour.

    Noising: metric of the run itself minus that with edges cut; denoising: with edges restored minus the run's.
    Cost: a forward pass a set and prompt, from the first cut up.
    """
    bench = EdgeBench(model, problem, options, what)
    sign = 1.0 if options.direction == "denoising" else -1.0
    at_once = max(1, MASK_BYTES // (len(model.graph.sources) * len(model.graph.readers)))
    unpatched, parts = bench.unpatched(), []
    for start in range(0, len(cuts), at_once):
        some = cuts[start : start + at_once]
        parts.append(sign * (bench.measure(cut_masks(model.graph, some)) - unpatched))
        problem.progress(what, start + len(some), len(cuts))
    return np.concatenate(parts).T
