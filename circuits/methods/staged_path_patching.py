"""Staged path patching: from the logits backwards, stage by stage, each asking who feeds what the last one found.

The one idea: the first stage scores paths to the logits and keeps the largest share of heads; each later one scores
paths to one input (q, k or v) of the heads that the stage before kept, and keeps the largest share of those. The
circuit is all that any stage kept. Effects are divided by the largest of their stage, so that stages count alike.

Sources: Merullo et al. 2023 (arXiv 2310.08744), Figure 3: "union of the top 2% most important heads (per path
patching stage)"; how many stages they took, and which, they do not print. Wang et al. 2022 (arXiv 2211.00593),
section 3, from whom the default comes: name movers; by their queries S-inhibition; by its values duplicate token and
induction; by their keys previous token.
Cost: that of path-patching, once a stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field

from circuits.circuit import Circuit
from circuits.graph import LOGITS, Graph
from circuits.methods.method import Method, Options, Problem
from circuits.methods.path_patching import Paths, path_effects
from circuits.model import Model
from circuits.patching import require_engine
from circuits.rehearsal import rehearsed
from circuits.scores import Scores
from circuits.work import Workload


class StagedPathPatchingOptions(Options):
    stages: str = Field(
        "logits,q,v,k",
        pattern="^logits(, ?[qkv])*$",
        description="logits, then inputs of the heads that the stage before kept: q, k or v, comma-separated",
    )
    share: float = Field(
        0.02, gt=0, le=1, description="of all senders, rounded, that a stage keeps; one at least"
    )
    least: float = Field(
        0.01,
        ge=0,
        le=1,
        description="no stage keeps what has less than this share of its largest effect; 0: share alone decides",
    )
    position: Literal["by-stage", "last", "all"] = Field(
        "by-stage",
        description="where senders are patched: at the last token up to the first stage of keys or values, which "
        "are read at other tokens too, and everywhere from there on; last: in all stages, as Merullo et al. do",
    )
    freeze_mlps: bool = Field(False, description="also hold MLPs to the clean run: direct paths alone")
    components: Literal["heads", "all"] = Field("heads", description="all: MLPs are senders too")


@dataclass(frozen=True)
class Stage:
    """What one stage saw. name: its word in the option; kept: the largest senders, largest first.

    samples: of every sender, as shares of the whole effect.
    """

    name: str
    paths: Paths
    senders: tuple[str, ...]
    samples: Float[np.ndarray, "prompt sender"]
    whole: float
    kept: tuple[str, ...]

    @property
    def effects(self) -> dict[str, float]:
        return dict(zip(self.senders, self.samples.mean(0).tolist(), strict=True))

    @property
    def largest(self) -> float:
        return max(map(abs, self.effects.values()))

    def record(self) -> dict[str, object]:
        return {
            "stage": self.name,
            "receivers": list(self.paths.receivers),
            "position": self.paths.position,
            "n_senders": len(self.senders),
            "largest_effect": self.largest,
            "kept": {name: self.effects[name] for name in self.kept},
        }


def score(model: Model, problem: Problem, options: StagedPathPatchingOptions) -> Scores:
    """A component's score is, of its effects in all stages, each over the largest of its stage, the largest by size,
    with its sign: positive where its paths to the receivers support the behaviour; 0 where it feeds none.

    circuit: what any stage kept. details: stage by stage its receivers, and what it kept with its effect as a share
    of the whole one. Receivers of a stage are not among its senders.
    Raises ModelError where the engine does not cover the model, CircuitError where the metric is the same on clean
    and corrupt prompts.
    """
    require_engine(model, problem.batches, METHOD.name)
    names = [name.strip() for name in options.stages.split(",")]
    stages = list(_stages(model, problem, options, names))
    senders = _senders(model.graph, options)
    kept = {name for stage in stages for name in stage.kept}
    rule = f"largest {options.share:g} of components in each of {len(stages)} stages of path patching"
    details: dict[str, object] = {
        "options": options.model_dump(),
        "unit": "share of the largest effect of its stage",
        "whole_effect": stages[0].whole,
        "stages": [stage.record() for stage in stages],
        "notes": list(_notes(names, stages)),
    }
    circuit = Circuit(tuple(name for name in senders if name in kept), METHOD.name, rule)
    return Scores(METHOD.name, senders, _largest(senders, stages), details=details, circuit=circuit)


def _senders(graph: Graph, options: StagedPathPatchingOptions) -> tuple[str, ...]:
    return graph.heads if options.components == "heads" else graph.components


def _stages(
    model: Model, problem: Problem, options: StagedPathPatchingOptions, names: Sequence[str]
) -> Iterator[Stage]:
    """Stage after stage, until one has no senders, or none of any effect."""
    graph, kept = model.graph, tuple[str, ...]()
    most = max(1, round(options.share * len(_senders(graph, options))))
    for i, name in enumerate(names):
        receivers = (LOGITS,) if name == LOGITS else tuple(_inputs(graph, kept, name))
        targets = [reader.split("<")[0] for reader in receivers]
        senders = tuple(
            sender
            for sender in _senders(graph, options)
            if sender not in kept and any(graph.feeds(sender, target) for target in targets)
        )
        if not senders:
            return
        paths = Paths(receivers, options.freeze_mlps, _position(options.position, names[: i + 1]))
        found = path_effects(model, problem, senders, paths, f"{METHOD.name}, {name}")
        kept = _kept(senders, found[0].mean(0), most, options.least)
        yield Stage(name, paths, senders, *found, kept)


def _inputs(graph: Graph, kept: Sequence[str], name: str) -> Iterator[str]:
    """Input `name` of the kept heads, in the order of the graph; that of an MLP is the only one it has."""
    for reader in graph.readers:
        wanted = reader.endswith(f"<{name}>") or reader[0] == "m"
        if wanted and not set(kept).isdisjoint(graph.served(reader)):
            yield reader


def _position(position: str, names: Sequence[str]) -> Literal["last", "all"]:
    if position == "by-stage":
        return "all" if {"k", "v"} & set(names) else "last"
    return "last" if position == "last" else "all"


def _kept(
    senders: Sequence[str], effects: Float[np.ndarray, "sender"], most: int, least: float
) -> tuple[str, ...]:
    """The largest by size; ties in the order of the graph."""
    sizes = np.abs(effects)
    order = np.argsort(-sizes, kind="stable")[:most]
    return tuple(senders[i] for i in order if sizes[i] > 0 and sizes[i] >= least * sizes.max())


def _largest(senders: Sequence[str], stages: Sequence[Stage]) -> Float[np.ndarray, "prompt sender"]:
    """Of each sender the samples, over the largest effect of their stage, of the stage where it matters most."""
    samples = np.zeros((len(stages[0].samples), len(senders)))
    column = {name: i for i, name in enumerate(senders)}
    for stage in stages:
        for i, name in enumerate(stage.senders):
            mine = stage.samples[:, i] / (stage.largest or 1.0)
            if abs(mine.mean()) > abs(samples[:, column[name]].mean()):
                samples[:, column[name]] = mine
    return samples


def _notes(names: Sequence[str], stages: Sequence[Stage]) -> Iterator[str]:
    """What each stage kept, and why the stages end before the option does, where they do."""
    for n, stage in enumerate(stages, start=1):
        into = ", ".join(stage.paths.receivers)
        yield (
            f"Stage {n}, into {into}: {', '.join(stage.kept) or 'nothing'} (largest effect "
            f"{stage.largest:.3g} of the whole one; senders patched at {_where(stage.paths.position)})."
        )
    if len(stages) < len(names):
        missing = f"{', '.join(names[len(stages) :])} of {', '.join(stages[-1].kept) or 'nothing'}"
        yield f"The stages end there: no component that is scored feeds {missing}."


def _where(position: str) -> str:
    return "the last token" if position == "last" else "all tokens"


def work(model: Model, problem: Problem, options: StagedPathPatchingOptions) -> Workload:
    """Told by trying: which heads few prompts find may differ, but hardly how much work lies below them."""
    return rehearsed(score, model, problem, options, _senders(model.graph, options))


METHOD = Method(
    name="staged-path-patching",
    summary="path patching from the logits back: each stage asks who feeds an input of the heads found before",
    paper="Merullo et al. 2023, arXiv 2310.08744",
    options=StagedPathPatchingOptions,
    score=score,
    work=work,
)
