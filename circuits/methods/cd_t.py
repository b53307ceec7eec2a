"""CD-T: contextual decomposition finds what feeds the logits, then what feeds that, until the circuit does it alone.

The one idea: a head's part of the logits, carried up by contextual decomposition (circuits.engine.contextual), says
what it contributes along all paths, for about one forward pass and with no gradient; its part of what other heads put
out says what feeds them. From the logits down: the most relevant heads join the circuit and are the next targets;
it ends when the circuit alone reaches the model's own metric, and those leave without which the metric rises.

Source: Hsu et al. 2024 (arXiv 2407.00886), section 3 and algorithm 1; relevance to heads as their code has it,
|part| / (|part| + |rest|) in the L1 norm. Ours, where the paper leaves room: the circuit is that of the step whose
metric comes nearest to the model's; heads leave at the end, since movers alone, with nothing that tells them where
to look, may do harm, and only for a rise of more than the tolerance; a score is that of the step in which a head
stands out most, over the largest of that step; it has a sign where that step is the first.
Cost: a forward pass of parts a source and step, from the source's layer up to the highest target; and a pass a head
of the circuit and step to see which may leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from circuits.batches import Batch, by_prompt, n_prompts
from circuits.circuit import Circuit
from circuits.donors import Donor, keep_masks, mean_donor, resample_donor, zero_donor
from circuits.engine.contextual import Decomposition, Parts
from circuits.engine.forward import Outputs, Trace, trace
from circuits.engine.weights import Weights
from circuits.graph import LOGITS, Graph, Node
from circuits.memory import in_chunks
from circuits.methods.method import Method, Options, Problem
from circuits.metrics import Tokens
from circuits.model import Model, Site
from circuits.patching import base_run, engine_weights, require_engine
from circuits.readout import Readout, in_prompt_order
from circuits.rehearsal import rehearsed
from circuits.scores import Scores
from circuits.work import Workload


class CdTOptions(Options):
    ablation: Literal["mean", "resample", "zero"] = Field(
        "mean",
        description="what a head's part is counted from, and what replaces heads outside the circuit: the mean over "
        "corrupted prompts by position, the other prompt's output, or zero",
    )
    share: float = Field(
        0.05, gt=0, le=1, description="of all components, rounded, that a step adds; one at least"
    )
    steps: int = Field(6, ge=1, description="most steps from the logits down; the first asks for the logits")
    tolerance: float = Field(
        0.05, ge=0, le=1, description="of the model's metric: how near is near enough, and how much a rise is"
    )
    targets: Literal["outputs", "inputs"] = Field(
        "outputs",
        description="where heads are read that others feed: at what they put out; or at q, k and v, since what "
        "changes a pattern alone has no part of the output",
    )
    by_layer: bool = Field(True, description="divide relevance by the mean size over the source's layer")
    sign_rule: bool = Field(
        True, description="where part and rest have opposite signs the larger takes the sum"
    )
    components: Literal["heads", "all"] = Field("heads", description="all: MLPs are sources and targets too")


def score(model: Model, problem: Problem, options: CdTOptions) -> Scores:
    """Relevance as a share of the largest in the step where a component stands out most. Towards the logits it is
    the answer's lead in its part of them, in logits whatever the metric: positive where it supports the behaviour.
    Towards other heads it is a share of what they put out, which has no sign.

    circuit: the search's. details: steps, each with targets, what joined, what left and the circuit's metric;
    relevance_to_logits, in logits, of every component.
    Raises ModelError where the engine does not cover the model.
    """
    require_engine(model, problem.batches, METHOD.name)
    ground = _Ground(model, problem, options)
    steps = tuple(_search(ground))
    best = min(steps, key=lambda step: abs(step.metric - ground.own))
    circuit, metric = _without_harmful(ground, best)
    kept = tuple(name for name in ground.sources if name in circuit)
    rule = f"search of CD-T, {options.share:g} of components a step, step {steps.index(best) + 1} of {len(steps)}"
    details: dict[str, object] = {
        "options": options.model_dump(),
        "unit": "share of the largest relevance of its step",
        "metric": ground.own,
        "metric_of_none": ground.metric_of([()])[0],
        "metric_of_circuit": metric,
        "steps": [step.record(ground.sources) for step in steps],
        "left": [name for name in best.circuit if name not in circuit],
        "relevance_to_logits": dict(zip(ground.sources, steps[0].found.mean(0).tolist(), strict=True)),
        "decompositions": sum(step.n_sources for step in steps),
        "notes": list(_notes(steps, best, kept, metric, ground.own)),
    }
    samples = _samples(steps)
    return Scores(
        METHOD.name, ground.sources, samples, details=details, circuit=Circuit(kept, METHOD.name, rule)
    )


@dataclass(frozen=True)
class Step:
    """found: relevance to the targets, signed where they are the logits. sizes: what was ranked."""

    targets: tuple[str, ...]
    n_sources: int
    found: Float[np.ndarray, "prompt source"]
    sizes: Float[np.ndarray, "source"]
    joined: tuple[str, ...]
    circuit: tuple[str, ...]
    metric: float

    def record(self, sources: Sequence[str]) -> dict[str, object]:
        relevance = dict(zip(sources, self.found.mean(0).tolist(), strict=True))
        return {
            "targets": list(self.targets),
            "n_sources": self.n_sources,
            "joined": {name: relevance[name] for name in self.joined},
            "circuit": list(self.circuit),
            "metric": self.metric,
        }


class _Ground:
    """What all steps share: plain runs, references, and runs in which circuits are tried. own: the model's metric."""

    def __init__(self, model: Model, problem: Problem, options: CdTOptions) -> None:
        self.model, self.graph, self.problem, self.options = model, model.graph, problem, options
        self.sources = self.graph.heads if options.components == "heads" else self.graph.components
        self.donor = _donor(model, problem, options)
        self.own = self.metric_of([self.sources])[0]
        self.near = options.tolerance * abs(self.own)

    def metric_of(self, circuits: Sequence[Sequence[str]]) -> list[float]:
        """Of the model with every source outside a circuit replaced, for each."""
        others = set(self.graph.components) - set(self.sources)
        keep, parts = keep_masks(self.graph, ([*circuit, *others] for circuit in circuits)), []
        for batch in self.problem.batches:
            run = base_run(self.model, batch.clean, self.donor(batch))
            parts.append(run.measure(keep, Readout(batch, self.problem.metric)))
        return [float(x) for x in in_prompt_order(self.problem.batches, parts).metric.double().mean(1)]

    def relevance(self, targets: Sequence[str], what: str) -> tuple[Float[np.ndarray, "prompt source"], int]:
        """Of all sources, 0 for those that feed no target; and how many do."""
        wanted = [i for i, name in enumerate(self.sources) if any(self.graph.feeds(name, t) for t in targets)]
        nodes, parts = [self.graph.node(self.sources[i]) for i in wanted], []
        for done, batch in enumerate(self.problem.batches):
            parts.append(_relevance(self.model, batch, self.donor(batch), nodes, targets, self.options))
            self.problem.progress(what, done + 1, len(self.problem.batches))
        found = np.zeros((n_prompts(self.problem.batches), len(self.sources)))
        found[:, wanted] = by_prompt(self.problem.batches, torch.cat(parts, 1)).double().numpy().T
        return found, len(wanted)


def _donor(model: Model, problem: Problem, options: CdTOptions) -> Callable[[Batch], Donor]:
    if options.ablation == "resample":
        return lambda batch: resample_donor(batch.corrupt)
    constant = (
        mean_donor(model, problem.batches, corrupt_alone=True) if options.ablation == "mean" else zero_donor()
    )
    return lambda batch: constant


def _search(ground: _Ground) -> Iterator[Step]:
    """From the logits down: until the circuit's metric is near the model's, nothing joins, or steps run out."""
    targets: tuple[str, ...] = (LOGITS,)
    circuit: tuple[str, ...] = ()
    options, most = ground.options, max(1, round(ground.options.share * len(ground.sources)))
    for n in range(options.steps):
        found, n_sources = ground.relevance(targets, f"{METHOD.name}, step {n + 1}")
        sizes = _sizes(found, ground)
        new = [
            i for i in np.argsort(-sizes, kind="stable") if ground.sources[i] not in circuit and sizes[i] > 0
        ]
        joined = tuple(ground.sources[i] for i in new[:most])
        circuit = (*circuit, *joined)
        metric = ground.metric_of([circuit])[0]
        yield Step(targets, n_sources, found, sizes, joined, circuit, metric)
        targets = joined
        if abs(metric - ground.own) < ground.near or not any(
            ground.graph.feeds(source, target) for source in ground.sources for target in targets
        ):
            return


def _sizes(found: Float[np.ndarray, "prompt source"], ground: _Ground) -> Float[np.ndarray, "source"]:
    """What is ranked: sizes of means, over those of the source's layer where so asked."""
    sizes = np.abs(found.mean(0))
    if not ground.options.by_layer:
        return np.asarray(sizes)
    layers = np.array([ground.graph.node(name).layer for name in ground.sources])
    means = np.array([sizes[layers == layer].mean() for layer in layers])
    return np.asarray(np.divide(sizes, means, out=np.zeros_like(sizes), where=means > 0))


def _without_harmful(ground: _Ground, step: Step) -> tuple[tuple[str, ...], float]:
    """Drops, one after another, the component without which the metric rises most, while it rises enough."""
    circuit, metric = step.circuit, step.metric
    while circuit:
        rests = [tuple(name for name in circuit if name != gone) for gone in circuit]
        metrics = ground.metric_of(rests)
        best = int(np.argmax(metrics))
        if metrics[best] - metric <= ground.near:
            break
        circuit, metric = rests[best], metrics[best]
    return circuit, metric


def _samples(steps: Sequence[Step]) -> Float[np.ndarray, "prompt source"]:
    """Of each source the step where it stands out most, so that its mean is its share of that step's largest."""
    shares = np.array([step.sizes / (step.sizes.max() or 1.0) for step in steps])
    samples = np.zeros_like(steps[0].found)
    for source, n in enumerate(shares.argmax(0)):
        mean = abs(steps[n].found[:, source].mean())
        if mean > 0:
            samples[:, source] = steps[n].found[:, source] / mean * shares[n, source]
    return samples


def _relevance(
    model: Model,
    batch: Batch,
    donor: Donor,
    nodes: Sequence[Node],
    targets: Sequence[str],
    options: CdTOptions,
) -> Float[Tensor, "source prompt"]:
    weights = engine_weights(model, batch.clean.shape[1])
    assert weights is not None, "require_engine was asked"
    with torch.inference_mode():
        base = trace(weights, weights.embed(batch.clean))
        given = _given(weights, batch, donor, base)

        def work(rows: slice) -> Tensor:
            parts = Decomposition(weights, base, given, nodes[rows], options.sign_rule)
            if targets == (LOGITS,):
                return _lead(parts, batch).cpu()
            return _fed(parts, model.graph, targets, options.targets).cpu()

        return torch.cat(in_chunks(len(nodes), max(1, model.memory // row_bytes(weights, base)), work))


def _given(weights: Weights, batch: Batch, donor: Donor, base: Trace) -> Outputs:
    """The reference of every component."""
    if donor.tokens is not None:
        return trace(weights, weights.embed(donor.tokens)).outputs()
    columns, device = (0, batch.clean.shape[1]), batch.clean.device

    def constant(kind: Literal["z", "mlp"], shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        layers = range(len(weights.layers))
        return tuple(
            donor.constant(Site(kind, n), columns, shape, device)[None].expand(
                len(batch), *[-1] * (1 + len(shape))
            )
            for n in layers
        )

    return Outputs(constant("z", (weights.n_heads, weights.d_head)), constant("mlp", (weights.d_model,)))


def row_bytes(weights: Weights, base: Trace) -> int:
    """What one source holds at the widest place of a layer: streams, patterns, and hidden activations thrice."""
    prompts, columns, width = base.after.shape
    hidden = max(layer.mlp_in.weight.shape[1] for layer in weights.layers)
    return 4 * prompts * columns * (12 * width + 4 * hidden + 3 * weights.n_heads * columns)


def _lead(parts: Decomposition, batch: Batch) -> Float[Tensor, "source prompt"]:
    """The parts' logits of the answers over those of the distractors."""
    *_, final = parts.climb()
    assert isinstance(final, Tensor)
    readout = Readout(batch, lambda logits, answers, distractors: logits[..., 0])
    logits = parts.logits(final, readout.tokens)
    answers, distractors = readout.renumbered
    return _mean(logits, answers) - _mean(logits, distractors)


def _mean(logits: Float[Tensor, "source prompt token"], tokens: Tokens) -> Float[Tensor, "source prompt"]:
    """Over the tokens of each prompt; 0 where there are none."""
    columns = [
        logits[:, n, list(ids)].mean(-1) if ids else logits.new_zeros(len(logits))
        for n, ids in enumerate(tokens)
    ]
    return torch.stack(columns, 1)


def _fed(
    parts: Decomposition, graph: Graph, targets: Sequence[str], read: Literal["outputs", "inputs"]
) -> Float[Tensor, "source prompt"]:
    """Shares of what the targets put out, or read, that are the sources', summed over the targets."""
    nodes = [graph.node(name) for name in targets]
    found = parts.base.after.new_zeros(len(parts.sources), len(parts.base.after))
    for at in parts.climb(until=max(node.layer for node in nodes)):
        assert isinstance(at, Parts)
        for node in nodes:
            if node.layer == at.layer:
                for part, whole in _places(at, node, graph, read):
                    found[: len(part)] += l1_share(part, whole)
    return found


def _places(at: Parts, node: Node, graph: Graph, read: str) -> Iterator[tuple[Tensor, Tensor]]:
    if node.kind == "mlp":
        yield at.mlp
    elif read == "outputs":
        yield at.z[0][:, :, :, node.index], at.z[1][:, :, node.index]
    else:
        groups = graph.n_heads // graph.n_kv_heads
        for (part, whole), head in zip(at.reads, (node.index, *[node.index // groups] * 2), strict=True):
            yield part[:, :, :, head], whole[:, :, head]


def l1_share(
    part: Float[Tensor, "source prompt column width"], whole: Float[Tensor, "prompt column width"]
) -> Float[Tensor, "source prompt"]:
    """|part| / (|part| + |rest|), summed over columns and widths; 0 where both are nothing."""
    mine, rest = part.abs().sum((-1, -2)), (whole - part).abs().sum((-1, -2))
    return mine / (mine + rest).clamp_min(torch.finfo(torch.float32).tiny)


def _notes(
    steps: Sequence[Step], best: Step, kept: Sequence[str], metric: float, own: float
) -> Iterator[str]:
    for n, step in enumerate(steps, start=1):
        yield (
            f"Step {n}, towards {', '.join(step.targets)}: {', '.join(step.joined) or 'nothing'} joined. The circuit "
            f"of {len(step.circuit)} alone has metric {step.metric:.3g} of {own:.3g}."
        )
    left = [name for name in best.circuit if name not in kept]
    if left:
        yield f"Without {', '.join(left)} the metric rises, so they leave: {len(kept)} remain, with {metric:.3g}."


def work(model: Model, problem: Problem, options: CdTOptions) -> Workload:
    """Told by trying: how far the search goes may differ on few prompts."""
    sources = model.graph.heads if options.components == "heads" else model.graph.components
    return rehearsed(score, model, problem, options, sources)


METHOD = Method(
    name="cd-t",
    summary="contextual decomposition: what feeds the logits, then what feeds that, with no gradient",
    paper="Hsu et al. 2024, arXiv 2407.00886",
    options=CdTOptions,
    score=score,
    work=work,
)
