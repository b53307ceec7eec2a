"""Path patching: what one component's output tells some receivers, along paths through no other head.

The one idea: the sender puts out what it puts out on the corrupt prompt, all other heads are held to the clean one,
so only the receivers' inputs carry the change; then the clean prompt runs again with those inputs. Paths lead from
the sender to a receiver directly, or through MLPs unless they are frozen too.
Sources: Wang et al. 2022 (arXiv 2211.00593); Merullo et al. 2023 (arXiv 2310.08744), whose code patches the last
position and normalises the effect by the whole one.
Cost: a forward pass a sender and prompt, from the first receiver up, and the MLPs between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from circuits.batches import Batch, by_prompt
from circuits.donors import resample_donor
from circuits.edge_patches import exact_run, fitting_readers, require_finite
from circuits.engine.paths import PathRun
from circuits.errors import CircuitError
from circuits.graph import Graph
from circuits.methods.method import Method, Options, Problem
from circuits.model import Model
from circuits.patching import require_engine
from circuits.readout import Readout
from circuits.rehearsal import rehearsed
from circuits.scores import Scores
from circuits.work import Workload

FLAT = 1e-6
"""Below this clean and corrupt metrics do not differ, and a share of their difference has no meaning."""


class PathPatchingOptions(Options):
    receivers: str = Field(
        "logits",
        description="where paths end: inputs, nodes or patterns, comma-separated, such as a9.h6<q>, a1.*<v>, m4",
    )
    freeze_mlps: bool = Field(False, description="also hold MLPs to the clean run: direct paths alone")
    position: Literal["last", "all"] = Field(
        "last",
        description="where senders are patched: at the last token, as Merullo et al. do, or everywhere",
    )
    components: Literal["all", "heads"] = Field("all", description="heads: no MLP is a sender")


def score(model: Model, problem: Problem, options: PathPatchingOptions) -> Scores:
    """Effect of each sender as a share of the whole one: (clean - patched) / |mean of (clean - corrupt)|.

    Positive where its paths to the receivers support the behaviour; 0 for a sender that feeds none of them.

    links: where there is a single receiver, the same of each sender that feeds it.
    Raises ModelError where the engine does not cover the model, CircuitError for a receiver that does not exist, and
    where the metric is the same on clean and corrupt prompts.
    """
    require_engine(model, problem.batches, METHOD.name)
    graph, receivers = model.graph, fitting_readers(model.graph, options.receivers)
    senders = _senders(graph, options)
    if not any(graph.feeds(sender, reader.split("<")[0]) for sender in senders for reader in receivers):
        raise CircuitError(
            f"No component that is scored feeds {', '.join(receivers)}; choose a later receiver."
        )
    paths = Paths(receivers, options.freeze_mlps, options.position)
    samples, whole = path_effects(model, problem, senders, paths, METHOD.name)
    details = {
        "options": options.model_dump(),
        "unit": "(clean - patched) / |mean (clean - corrupt)|",
        "receivers": list(receivers),
        "whole_effect": whole,
    }
    links = _links(graph, senders, receivers, samples) if len(receivers) == 1 else {}
    return Scores(METHOD.name, senders, samples, details=details, links=links)


@dataclass(frozen=True)
class Paths:
    """Where paths end, what they may go through, and where senders are patched; see PathPatchingOptions."""

    receivers: tuple[str, ...]
    freeze_mlps: bool
    position: Literal["last", "all"]


def path_effects(
    model: Model, problem: Problem, senders: tuple[str, ...], paths: Paths, what: str
) -> tuple[Float[np.ndarray, "prompt sender"], float]:
    """Effects as `score` states them, and the whole one: mean of (clean - corrupt). `what` is measured, in messages.

    Raises CircuitError where the metric is the same on clean and corrupt prompts, or no number.
    """
    effects, wholes = [], []
    for done, batch in enumerate(problem.batches):
        run, readout = (
            exact_run(model, batch.clean, resample_donor(batch.corrupt)),
            Readout(batch, problem.metric),
        )
        clean = run.unpatched(readout).metric
        corrupt = readout.of_all(model.run(batch.corrupt).logits[None]).metric
        rows = PathRun(run, model.graph, paths.receivers, freeze_mlps=paths.freeze_mlps)
        patched = rows.measure(senders, readout, _where(batch, paths.position)).metric
        require_finite(model, what, torch.cat([patched, clean, corrupt]), batch)
        effects.append(clean - patched)
        wholes.append(clean - corrupt)
        problem.progress(what, done + 1, len(problem.batches))
    whole = float(by_prompt(problem.batches, torch.cat(wholes, 1)).double().mean())
    if abs(whole) < FLAT:
        raise CircuitError(
            f"{what}: the metric is the same on clean and corrupt prompts ({whole:g} apart on average), so no "
            "effect has a share of it. Use prompts, or a metric, that tell them apart."
        )
    samples = by_prompt(problem.batches, torch.cat(effects, 1)).double().numpy().T
    return samples / abs(whole), whole


def _senders(graph: Graph, options: PathPatchingOptions) -> tuple[str, ...]:
    return graph.heads if options.components == "heads" else graph.components


def _where(batch: Batch, position: str) -> Bool[Tensor, "prompt pos"] | None:
    if position == "all":
        return None
    where = torch.zeros_like(batch.clean, dtype=torch.bool)
    where[:, -1] = True
    return where


def _links(
    graph: Graph, senders: tuple[str, ...], receivers: tuple[str, ...], samples: np.ndarray
) -> dict[tuple[str, str], float]:
    target = receivers[0].split("<")[0]
    values = zip(senders, samples.mean(0).tolist(), strict=True)
    return {(sender, target): value for sender, value in values if graph.feeds(sender, target)}


def work(model: Model, problem: Problem, options: PathPatchingOptions) -> Workload:
    """Told by trying."""
    return rehearsed(score, model, problem, options, _senders(model.graph, options))


METHOD = Method(
    name="path-patching",
    summary="exact effect of a head or MLP on chosen receivers alone, along paths through no other head",
    paper="Merullo et al. 2023, arXiv 2310.08744",
    options=PathPatchingOptions,
    score=score,
    work=work,
)
