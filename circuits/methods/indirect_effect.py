"""Indirect effect: how much more the other prompt's answer is believed, and how much less one's own.

The one idea: an output is patched from a prompt p' with answer r' into a prompt p with answer r, and both answers are
heard, each relative to what it had: half of (P(r) - P*(r)) / P*(r) + (P*(r') - P(r')) / P(r'), where P* is with the
patch. What says "there is an answer" moves neither; what carries the answer moves both.
Source: Stolfo et al. 2023 (arXiv 2305.15054), section 3, and their code (alestolfo/lm-arithmetic), which patch MLPs
and whole attention outputs at one layer and position.

**Ours.** Heads are patched one by one too, so that circuits are of nodes; whole attention outputs are parts. A ratio
of probabilities has no bound, so none is divided by less than `floor`. Control: their pairs of one result become, on
every task, pairs of prompts with the same answer, where a carrier of the answer has nothing to move.
Cost: a forward pass a component, layer of attention, prompt and place; control: another for each prompt that has a
twin with its answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from circuits.batches import Batch, TokenPair, batch_of, require_single_tokens
from circuits.donors import keep_masks, resample_donor
from circuits.graph import Graph
from circuits.methods.method import Method, Options, Problem
from circuits.metrics import Tokens, answer_probability
from circuits.model import Model
from circuits.patches import Changes, Effects, PatchingOptions, labels, places, sweep
from circuits.patching import base_run
from circuits.readout import Readout
from circuits.scores import Scores
from circuits.work import Work, Workload, account

RATIO, MOVED, CHANGED = range(3)
"""What a patch is asked: the indirect effect, |P(r) - P*(r)|, and whether another token is the most likely."""


SHOWN = 6
"""Components whose two effects are set side by side in words."""


class IndirectEffectOptions(Options):
    positions: Literal["all", "named", "every"] = Field(
        "all", description="all at once; or also by the task's named positions; or by every token position"
    )
    floor: float = Field(0.001, gt=0, lt=1, description="no probability is divided by less than this")
    control: bool = Field(True, description="also patch from other prompts with the same answer")


def score(model: Model, problem: Problem, options: IndirectEffectOptions) -> Scores:
    """Mean indirect effects, in times the probability that was there; positive supports the behaviour.

    parts: whole attention outputs, a0 and so on. details: median, |P(r) - P*(r)| and share of changed predictions of
    every component and part; same_answer: the last two from prompts with the same answer.
    Raises CircuitError where answers are whole strings.
    """
    require_single_tokens(problem.batches, METHOD.name)
    names = (*model.graph.components, *attention_outputs(model.graph))
    found = _swept(model, problem, options, METHOD.name)
    twins = same_answer(model, problem.batches) if options.control else ()
    same = _swept(model, replace(problem, batches=twins), options, "same answer") if twins else None
    details = {
        "options": options.model_dump(),
        "unit": "indirect effect",
        "median": dict(zip(names, np.median(found.samples[RATIO], 0).tolist(), strict=True)),
        **_moved(names, found),
        "same_answer": same and {"prompts": same.samples.shape[1], **_moved(names, same)},
        "verdict": list(_verdict(model.graph, found, same, options)),
    }
    ratios = {label: values[RATIO] for label, values in found.by_position.items()}
    effects = Effects(found.samples[RATIO], ratios)
    return effects.scores(METHOD.name, model.graph.components, attention_outputs(model.graph), details)


def _moved(names: tuple[str, ...], effects: Effects) -> dict[str, object]:
    """What is not the ratio, by place and component or part."""
    places = {"all": effects.samples.mean(1), **effects.by_position}
    return {
        word: {
            label: dict(zip(names, values[kind].tolist(), strict=True)) for label, values in places.items()
        }
        for word, kind in (("moved", MOVED), ("changed_predictions", CHANGED))
    }


def work(model: Model, problem: Problem, options: IndirectEffectOptions) -> Workload:
    """The rows that `score` asks for."""
    require_single_tokens(problem.batches, METHOD.name)
    total = Work()
    twins = same_answer(model, problem.batches) if options.control else ()
    for batch in (*problem.batches, *twins):
        runs = account(model, batch.clean, resample_donor(batch.corrupt))
        readout = Readout(batch, both_probabilities)
        total += runs.begun + runs.unpatched(readout)
        for where in (None, *(mask for _, mask in places(batch, options.positions))):
            for keep in _rows(model.graph):
                total += runs.measure(keep, readout, where)
    return Workload(model.graph.components, total, positions=labels(problem.batches, options.positions))


def attention_outputs(graph: Graph) -> tuple[str, ...]:
    """What is patched beside components: all heads of a layer together."""
    return tuple(f"a{layer}" for layer in range(graph.n_layers))


def _rows(graph: Graph) -> Iterator[Bool[Tensor, "row component"]]:
    """Layer by layer: each head and the MLP alone, then all heads; so that a pass edits one layer's sites only."""
    for layer in range(graph.n_layers):
        *heads, mlp = _units(graph, layer)
        yield ~keep_masks(graph, [*([head] for head in heads), [mlp], heads])


def _units(graph: Graph, layer: int) -> tuple[str, ...]:
    """Its heads, then its MLP."""
    return tuple(name for name in graph.components if graph.node(name).layer == layer)


def _swept(model: Model, problem: Problem, options: IndirectEffectOptions, what: str) -> Effects:
    """samples [RATIO, MOVED or CHANGED, prompt, component or part]."""
    graph = model.graph
    rows = [
        name for layer, part in enumerate(attention_outputs(graph)) for name in (*_units(graph, layer), part)
    ]
    order = [rows.index(name) for name in (*graph.components, *attention_outputs(graph))]

    def begin(batch: Batch) -> Changes:
        run, readout = (
            base_run(model, batch.clean, resample_donor(batch.corrupt)),
            Readout(batch, both_probabilities),
        )
        before = run.unpatched(readout).metric

        def changes(where: Bool[Tensor, "prompt pos"] | None) -> Float[Tensor, "kind name prompt"]:
            after = torch.cat([run.measure(keep, readout, where).metric for keep in _rows(graph)])
            # sweep takes what noising loses for support, and these count what is lost already.
            return -compared(before, after[order], options.floor)

        return changes

    return sweep(problem, PatchingOptions(positions=options.positions), what, len(order), begin)


def both_probabilities(
    logits: Float[Tensor, "*rows batch vocab"], answers: Tokens, distractors: Tokens
) -> Float[Tensor, "*rows batch reading"]:
    """P(r), P(r') and the token that is the most likely, as a metric that reads three numbers."""
    sides = [answer_probability(logits, tokens) for tokens in (answers, distractors)]
    return torch.stack([*sides, logits.argmax(-1).to(logits.dtype)], -1)


def compared(
    before: Float[Tensor, "*rows prompt 3"], after: Float[Tensor, "row prompt 3"], floor: float
) -> Float[Tensor, "3 row prompt"]:
    """From both_probabilities without and with a patch: see RATIO, MOVED and CHANGED."""
    (own, other, said), (own_after, other_after, says) = (part.unbind(-1) for part in (before, after))
    ratio = (own - own_after) / own_after.clamp_min(floor) + (other_after - other) / other.clamp_min(floor)
    return torch.stack([ratio / 2, (own - own_after).abs(), (said != says).to(ratio)])


def same_answer(model: Model, batches: Sequence[Batch]) -> tuple[Batch, ...]:
    """Prompts beside another one of their length with the same answer in the place of the corrupt one.

    Which one does not depend on how prompts are batched. A prompt that stands alone with its answer is left out.
    """
    every = [row for batch in batches for row in zip(batch.index, batch.pairs, strict=True)]
    groups: dict[object, list[tuple[int, TokenPair]]] = defaultdict(list)
    for index, pair in sorted(every, key=lambda row: row[0]):
        groups[len(pair.clean), pair.answers].append((index, pair))
    by_length: dict[int, list[tuple[int, TokenPair]]] = defaultdict(list)
    for group in groups.values():
        for (index, pair), (_, other) in zip(group, group[1:] + group[:1], strict=True):
            if pair.clean != other.clean:
                by_length[len(pair.clean)].append((index, replace(pair, corrupt=other.clean)))
    size = max(map(len, batches))
    found = []
    for rows in by_length.values():
        rows.sort(key=lambda row: row[0])
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            found.append(batch_of(model, tuple(i for i, _ in some), tuple(pair for _, pair in some)))
    return tuple(found)


def _verdict(
    graph: Graph, found: Effects, same: Effects | None, options: IndirectEffectOptions
) -> Iterator[str]:
    names, means = (*graph.components, *attention_outputs(graph)), found.samples.mean(1)
    first = int(np.abs(means[RATIO, : len(graph.components)]).argmax())
    whole = int(np.abs(means[RATIO, len(graph.components) :]).argmax())
    yield (
        f"{names[first]} comes first: indirect effect {means[RATIO, first]:.3g} (median "
        f"{np.median(found.samples[RATIO][:, first]):.3g}); patched, the model says something else on "
        f"{means[CHANGED, first]:.0%} of the prompts. Of whole attention outputs a{whole}: "
        f"{means[RATIO, len(graph.components) + whole]:.3g}."
    )
    if same is None:
        if options.control:
            yield "No two prompts of one length share an answer, so there is no control by the same answer."
        return
    by_twin = same.samples.mean(1)[MOVED]
    carriers = np.argsort(by_twin - means[MOVED], kind="stable")[:SHOWN]
    pairs = (f"{names[i]} {means[MOVED, i]:.2f} / {by_twin[i]:.2f}" for i in carriers)
    yield (
        "The answer's probability moves by patches from the corrupt prompt / from one with the same answer "
        f"({same.samples.shape[1]} of {found.samples.shape[1]} prompts have one): {', '.join(pairs)}; what carries "
        "the answer moves it in the first alone."
    )


METHOD = Method(
    name="indirect-effect",
    summary="activation patching, heard as both answers' probabilities relative to what they were",
    paper="Stolfo et al. 2023, arXiv 2305.15054",
    options=IndirectEffectOptions,
    score=score,
    work=work,
)
