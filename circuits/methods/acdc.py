"""ACDC: cut one edge after another, from the logits down, and leave out each that the rest can do without.

The one idea (Conmy et al. 2023, arXiv 2304.14997, algorithm 1): readers in reverse topological order, each edge into
them in turn: cut it on top of all cuts so far, and keep it cut where that changes the metric by less than a
threshold. A node that no longer feeds anything loses its own in-edges untested: nothing depends on them.

Each decision rests on the last, but nearly all can be foreseen, so many hypotheses share a forward pass: row i cuts
edge i beside all edges before it that are expected to go. Rows up to the first surprise are the very hypotheses that
one at a time would test; those behind it are asked again, and what they saw is what is expected of them. Same
circuit, few forwards. A test of whole groups at once, halved where it fails, needs fewer rows still, but is no
longer the algorithm: effects of opposite sign may hide each other in a group. Conmy et al.'s code declares parallel
hypotheses, and has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from circuits.batches import n_prompts
from circuits.circuit import edge_circuit, ends
from circuits.edge_patches import EdgeBench
from circuits.edge_scores import edge_scores
from circuits.engine.cuts import Cut
from circuits.graph import LOGITS, Graph
from circuits.methods.method import Method, Options, Problem
from circuits.model import Model
from circuits.patches import ReplacementOptions
from circuits.scores import Scores


class AcdcOptions(Options):
    threshold: float = Field(
        0.01, ge=0, allow_inf_nan=False, description="an edge whose cut changes the metric by less stays cut"
    )
    metric_change: Literal["kl", "drop", "absolute"] = Field(
        "kl",
        description="kl: rise of the last logits' KL divergence from the model's own, in nats; drop: of the run's "
        "metric; absolute: its change either way",
    )
    order: Literal["graph", "weakest-first"] = Field(
        "graph",
        description="of edges into the same layer; weakest-first: by the effect of each alone, a row more",
    )
    at_once: int = Field(
        64, ge=1, description="hypotheses a forward pass; 1: one at a time, with the same result"
    )
    ablation: Literal["resample", "mean", "zero"] = Field(
        "resample", description="what a cut edge carries: the other prompt's, the mean over prompts, or zero"
    )


def score(model: Model, problem: Problem, options: AcdcOptions) -> Scores:
    """An edge's score is the change that its cut made when it was tested: positive where it supports the behaviour,
    or (kl) where the rest falls short without it; 0 where it was cut untested.

    circuit: what is left standing. details: kept_edges, the same; forwards, rows: passes over the prompts, and
    hypotheses that they held.
    Raises ModelError where the engine does not cover the model.
    """
    swapped = ReplacementOptions(direction="noising", ablation=options.ablation)
    bench = EdgeBench(model, problem, swapped, METHOD.name, closeness=options.metric_change == "kl")
    done = len(model.graph.places)
    search = Search(model.graph, bench.measure, options)
    for n_decided in search.run():
        problem.progress(METHOD.name, n_decided, done)
    rule = f"edges whose cut changed the metric by {options.threshold:g} or more"
    circuit = edge_circuit(model.graph, search.kept, METHOD.name, rule)
    samples = np.zeros((n_prompts(problem.batches), len(model.graph.sources), len(model.graph.readers)))
    for edge, change in search.changes.items():
        samples[:, *model.graph.places[edge]] = change
    details = {
        "options": options.model_dump(),
        "unit": "change of the metric by the cut when it was tested",
        "kept_edges": list(circuit.kept),
        "n_untested": done - len(search.changes),
        "forwards": search.forwards,
        "rows": search.rows,
        "prompt_passes": search.rows * n_prompts(problem.batches),
    }
    return replace(edge_scores(METHOD.name, model.graph, samples, details=details), circuit=circuit)


Measure = Callable[[Cut], Float[np.ndarray, "row prompt"]]


class Search:
    """The algorithm over any measure. changes: edge -> what its cut changed; kept: edges that stand."""

    def __init__(self, graph: Graph, measure: Measure, options: AcdcOptions) -> None:
        self.graph, self.options, self._measure = graph, options, measure
        self.cut = torch.zeros(len(graph.sources), len(graph.readers), dtype=torch.bool)
        self.rows, self.forwards = 0, 0
        self.changes: dict[str, Float[np.ndarray, "prompt"]] = {}
        self.kept: set[str] = set()
        self.now = self.measure([self.cut])[0]

    def measure(self, masks: Sequence[Bool[Tensor, "source reader"]]) -> Float[np.ndarray, "row prompt"]:
        """One forward pass of some hypotheses."""
        self.rows, self.forwards = self.rows + len(masks), self.forwards + 1
        return self._measure(torch.stack(list(masks)))

    def run(self) -> Iterator[int]:
        """Decides all edges; how many are decided, after each forward pass."""
        n_decided = 0
        for edges in self._stages():
            dead = [edge for edge in edges if not any(map(self._feeds, self._readers(edge)))]
            for edge in dead:
                self.cut[self.graph.places[edge]] = True
            n_decided += len(dead)
            untested = set(dead)
            for n_more in self._decide([edge for edge in edges if edge not in untested]):
                n_decided += n_more
                yield n_decided

    def _stages(self) -> list[list[str]]:
        """Edges by where they enter, last first; no reader of a stage feeds another of it."""
        by_stage: dict[tuple[int, bool], list[str]] = {}
        for edge in self.graph.places:
            target = self.graph.node(ends(edge)[1])
            by_stage.setdefault((target.layer, target.kind == "mlp"), []).append(edge)
        return [by_stage[stage] for stage in sorted(by_stage, reverse=True)]

    def _readers(self, edge: str) -> tuple[str, ...]:
        """The nodes that read what the edge carries: all heads of a group where it enters their keys or values."""
        target = self.graph.node(ends(edge)[1])
        group = self.graph.n_heads // self.graph.n_kv_heads if edge.endswith(("<k>", "<v>")) else 1
        return tuple(replace(target, index=target.index + more).name for more in range(group))

    def _feeds(self, node: str) -> bool:
        """Whether anything still reads what the node writes."""
        return node == LOGITS or any(edge.startswith(f"{node}->") for edge in self.kept)

    def _decide(self, edges: list[str]) -> Iterator[int]:
        """Decides edges in turn, foreseen where that can be; how many, after each forward pass."""
        waiting, expected = (
            self._ordered(edges) if self.options.order == "weakest-first" else (edges, set[str]())
        )
        while waiting:
            some = waiting[: self.options.at_once]
            values = self.measure(self._hypotheses(some, expected))
            n = self._take(some, values, expected)
            waiting = waiting[n:]
            yield n

    def _ordered(self, edges: list[str]) -> tuple[list[str], set[str]]:
        """Edges by the effect of each alone, and those that it lets expect to stay."""
        changes: dict[str, float] = {}
        for start in range(0, len(edges), self.options.at_once):
            some = edges[start : start + self.options.at_once]
            values = self.measure([self._with(self.cut, edge) for edge in some])
            changes |= dict(zip(some, (self.now - values).mean(1).tolist(), strict=True))
        stays = {edge for edge, change in changes.items() if self._matters(change)}
        return sorted(edges, key=lambda edge: abs(changes[edge])), stays

    def _matters(self, change: float) -> bool:
        return (abs(change) if self.options.metric_change == "absolute" else change) >= self.options.threshold

    def _with(self, cut: Bool[Tensor, "source reader"], edge: str) -> Bool[Tensor, "source reader"]:
        more = cut.clone()
        more[self.graph.places[edge]] = True
        return more

    def _hypotheses(self, edges: list[str], expected: set[str]) -> list[Bool[Tensor, "source reader"]]:
        """A row an edge: it is cut, and so are those before it that are not expected to stay."""
        rows, cut = [], self.cut
        for edge in edges:
            rows.append(self._with(cut, edge))
            cut = cut if edge in expected else rows[-1]
        return rows

    def _take(self, edges: list[str], values: Float[np.ndarray, "row prompt"], expected: set[str]) -> int:
        """Decides edges up to the first surprise; how many. Of the others, what their rows saw is now expected."""
        chain, n_decided, surprised = self.now, 0, False
        for edge, value in zip(edges, values, strict=True):
            expected_to_stay, stays = edge in expected, self._matters(float((chain - value).mean()))
            if surprised:
                (expected.add if stays else expected.discard)(edge)
            else:
                self._settle(edge, value, stays)
                n_decided, surprised = n_decided + 1, stays != expected_to_stay
            chain = chain if expected_to_stay else value
        return n_decided

    def _settle(self, edge: str, value: Float[np.ndarray, "prompt"], stays: bool) -> None:
        self.changes[edge] = self.now - value
        if stays:
            self.kept.add(edge)
        else:
            self.cut[self.graph.places[edge]] = True
            self.now = value


METHOD = Method(
    name="acdc",
    summary="exact greedy pruning of edges from the logits down: what changes too little stays cut",
    paper="Conmy et al. 2023, arXiv 2304.14997",
    options=AcdcOptions,
    score=score,
    granularity="edge",
)
