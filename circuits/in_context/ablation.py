"""The phases taken away: attention along the circuit's edges forbidden, beside as much forbidden elsewhere.

The one idea: x_i -> s_i, x_q -> s_q, s_i -> y_i and y_i -> s_q are what the three phases run through; an edge goes
in all heads of some layers, and what is lost is set against the same number of entries drawn at random in each of
those layers, and, since most entries lie where nothing is read, against others of the same queries.
Source: Cho et al. 2024 (arXiv 2410.04468) and hc495/ICL_Circuit: quarters of the layers, accuracy over the labels.
Ours: x_i -> y_i, by which labels may do without forerunners, and the second control. Both controls draw entries of
none of these edges, below the diagonal, so that every row keeps itself.
Cost: prompts x (edges x ranges) x (1 + 2 draws), through the layers from the first changed one on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.batches import by_prompt
from circuits.engine.blocking import Entries, blocking
from circuits.engine.forward import Trace, steps, trace
from circuits.engine.weights import Weights
from circuits.evaluation.faithfulness import Estimate, mean_estimate
from circuits.in_context.centroids import share_of
from circuits.in_context.layout import FewShot, Layout
from circuits.metrics import preferred
from circuits.progress import Progress, silent

Cells = list[tuple[int, int]]
"""Query and source."""

EDGES: dict[str, Callable[[Layout], Cells]] = {
    "x_i -> s_i": lambda at: [(s, x) for s, text in zip(at.forerunners, at.texts, strict=True) for x in text],
    "x_q -> s_q": lambda at: [(at.end, x) for x in at.asked],
    "s_i -> y_i": lambda at: list(zip(at.labels, at.forerunners, strict=True)),
    "y_i -> s_q": lambda at: [(at.end, y) for y in at.labels],
    "s_i -> s_i": lambda at: [(s, s) for s in at.forerunners],
    "x_i -> y_i": lambda at: [(y, x) for y, text in zip(at.labels, at.texts, strict=True) for x in text],
}


@dataclass(frozen=True)
class Control:
    """accuracy: of each draw. lost: by how much more the edge costs than the draws do, by prompt."""

    accuracy: tuple[float, ...]
    lost: Estimate

    @property
    def mean(self) -> float:
        return sum(self.accuracy) / len(self.accuracy)


@dataclass(frozen=True)
class Ablation:
    """layers: first and last. entries: per layer and prompt. accuracy: over the prompt's labels."""

    edge: str
    layers: tuple[int, int]
    entries: float
    accuracy: Estimate
    controls: dict[str, Control]


def ranges(n_layers: int) -> tuple[tuple[int, int], ...]:
    """First and last layer of each quarter that has any, and of all."""
    quarters: dict[int, list[int]] = {}
    for layer in range(n_layers):
        quarters.setdefault(4 * layer // n_layers, []).append(layer)
    parts = [(quarter[0], quarter[-1]) for quarter in quarters.values()]
    return tuple(dict.fromkeys([*parts, (0, n_layers - 1)]))


def elsewhere(cells: Cells, spared: Cells, length: int, rng: np.random.Generator) -> Cells:
    """As many entries below the diagonal."""
    query, source = np.tril_indices(length, -1)
    free = ~np.isin(query * length + source, [q * length + s for q, s in spared])
    drawn = rng.permutation(np.flatnonzero(free))[: len(cells)]
    return list(zip(query[drawn].tolist(), source[drawn].tolist(), strict=True))


def same_queries(cells: Cells, spared: Cells, length: int, rng: np.random.Generator) -> Cells:
    """For each entry another source of its query, as far as there are so many."""
    kept = set(spared)
    drawn = []
    for query, n in Counter(query for query, _ in cells).items():
        free = [source for source in range(query) if (query, source) not in kept]
        drawn += [(query, int(source)) for source in rng.permutation(free)[:n]]
    return drawn


CONTROLS = {"random": elsewhere, "same queries": same_queries}


@torch.inference_mode()
def ablate(
    weights: Weights, prompts: Sequence[FewShot], draws: int, seed: int, progress: Progress = silent
) -> tuple[Estimate, tuple[Ablation, ...]]:
    """The model's own accuracy, and each edge's in each range of layers."""
    spans = ranges(len(weights.layers))
    hits: dict[tuple[str, tuple[int, int], str], list[Tensor]] = {}
    own: list[Tensor] = []
    for done, each in enumerate(prompts):
        base = trace(weights, weights.embed(each.batch.clean))
        own.append(_right(weights, each, base.after))
        for edge in EDGES:
            for span in spans:
                measure = partial(_measured, weights, each, base, edge, span)
                hits.setdefault((edge, span, "own"), []).append(measure(None, 1, seed))
                for name in CONTROLS:
                    hits.setdefault((edge, span, name), []).append(measure(name, draws, seed))
        progress("ablating edges", done + 1, len(prompts))
    batches = [each.batch for each in prompts]
    rows = {key: by_prompt(batches, torch.cat(part, 1)).cpu().double().numpy() for key, part in hits.items()}
    whole = torch.cat(own, 1)
    found = [_ablation(prompts, edge, span, rows, seed) for edge in EDGES for span in spans]
    return share_of(int(whole.sum()), whole.shape[1]), tuple(found)


def _ablation(
    prompts: Sequence[FewShot],
    edge: str,
    span: tuple[int, int],
    rows: dict[tuple[str, tuple[int, int], str], Float[np.ndarray, "draw prompt"]],
    seed: int,
) -> Ablation:
    own = rows[edge, span, "own"][0]
    counts = [len(EDGES[edge](at)) for each in prompts for at in each.layouts]
    controls = {
        name: Control(
            tuple(float(draw.mean()) for draw in rows[edge, span, name]),
            mean_estimate(rows[edge, span, name].mean(0) - own, seed),
        )
        for name in CONTROLS
    }
    return Ablation(edge, span, float(np.mean(counts)), share_of(int(own.sum()), len(own)), controls)


def _measured(
    weights: Weights,
    prompts: FewShot,
    base: Trace,
    edge: str,
    span: tuple[int, int],
    control: str | None,
    draws: int,
    seed: int,
) -> Float[Tensor, "draw prompt"]:
    """Whether answers are right with the edge forbidden in the layers of `span`, or with draws of a control."""
    rows = []
    for draw in range(draws):
        entries = {
            layer: _entries(prompts, edge, control, [seed, draw, layer])
            for layer in range(span[0], span[1] + 1)
        }
        rows.append(_right(weights, prompts, blocked(weights, base, entries)))
    return torch.cat(rows)


def blocked(
    weights: Weights, base: Trace, entries: Mapping[int, Entries]
) -> Float[Tensor, "prompt column d_model"]:
    """The last columns behind the last layer, of a run in which these are forbidden; base: the model's own.

    Layers below the first of them, and columns before, are as they were."""
    layer = min(entries)
    column = min(int(some[:, 1].min()) for some in entries.values())
    changed = blocking(weights, entries)
    above = replace(changed, layers=changed.layers[layer:])
    behind = replace(base, attention=base.attention[layer:])
    *_, last = steps(above, base.before[layer][:, column:], behind=behind, answer_alone=True)
    return last.after


def _entries(prompts: FewShot, edge: str, control: str | None, seed: Sequence[int]) -> Entries:
    """A prompt's draws do not depend on how prompts are batched."""
    found = []
    for row, (index, at) in enumerate(zip(prompts.batch.index, prompts.layouts, strict=True)):
        cells = EDGES[edge](at)
        if control is not None:
            spared = [cell for cells_of in EDGES.values() for cell in cells_of(at)]
            cells = CONTROLS[control](cells, spared, at.end + 1, np.random.default_rng([*seed, index]))
        found += [(row, query, source) for query, source in cells]
    return torch.tensor(found, dtype=torch.long).reshape(-1, 3)


def _right(
    weights: Weights, prompts: FewShot, after: Float[Tensor, "prompt column d_model"]
) -> Float[Tensor, "one prompt"]:
    """Whether the answer is the likeliest of the labels."""
    logits = weights.logits(after[:, -1])
    return preferred(logits, prompts.batch.answers, prompts.batch.distractors)[None].float()
