"""What replaces a component's output: that on other tokens (resample), its mean over prompts, or zero.

After Zhang & Nanda 2023 (arXiv 2309.16042): resample keeps activations typical, mean and zero do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.batches import Batch
from circuits.errors import CircuitError
from circuits.graph import INPUT, LOGITS, Graph
from circuits.model import Model, Site


@dataclass(frozen=True)
class Donor:
    """tokens: resample, what components put out on these, row by row. means: by site and position. Neither: zero."""

    tokens: Int[Tensor, "prompt pos"] | None = None
    means: Mapping[Site, Float[Tensor, "pos *unit"]] | None = None

    def constant(
        self, site: Site, columns: tuple[int, int], shape: tuple[int, ...], device: torch.device
    ) -> Float[Tensor, "column *unit"]:
        """What replaces the output of `site` (its `shape` at one position) in every prompt, for mean and zero.

        Behind the longest prompt that means were taken over, its last position's are used.
        """
        index = torch.arange(*columns, device=device)
        if self.means is None:
            return torch.zeros(len(index), *shape, device=device)
        means = self.means[site]
        return means[index.clamp_max(len(means) - 1)]


def resample_donor(tokens: Int[Tensor, "prompt pos"]) -> Donor:
    """Resample ablation: what the components put out on `tokens`, row by row."""
    return Donor(tokens=tokens)


def zero_donor() -> Donor:
    """Zero ablation."""
    return Donor()


def mean_donor(model: Model, batches: Sequence[Batch], *, corrupt_alone: bool = False) -> Donor:
    """Mean ablation: each component's mean output at each token position (counted from the start), in fp32; and the
    mean embedding, as what `Site("input", 0)` carries, for edges that leave it.

    The mean is over the clean and the corrupt prompts of `batches`, so that neither behaviour is favoured, or over
    the corrupt ones alone; past the longest of them the last position's mean is used. Where answers are whole
    strings every row counts, so a prompt as often as its strings have tokens. Two forward passes a batch, or one.
    """
    longest = max(batch.clean.shape[1] for batch in batches)
    sites = (Site("input", 0), *component_sites(model.graph))
    sums: dict[Site, Tensor] = {}
    counts = torch.zeros(longest, device=model.device)
    for batch in batches:
        for tokens in (batch.corrupt,) if corrupt_alone else (batch.clean, batch.corrupt):
            length = tokens.shape[1]
            counts[:length] += len(tokens)
            for site, value in model.run(tokens, capture=sites).captured.items():
                if site not in sums:
                    sums[site] = torch.zeros(longest, *value.shape[2:], device=value.device)
                sums[site][:length] += value.float().sum(0)
    return Donor(
        means={site: total / counts.view(-1, *[1] * (total.dim() - 1)) for site, total in sums.items()}
    )


def first_difference(tokens: Int[Tensor, "prompt pos"], donor: Donor) -> int:
    """The first position at which replacing outputs can change anything; the length where there is none."""
    if donor.tokens is None:
        return 0
    different = (tokens != donor.tokens).any(0).nonzero()
    return int(different.min()) if len(different) else tokens.shape[1]


def component_sites(graph: Graph) -> tuple[Site, ...]:
    """The sites at which components can be read and replaced, in the order in which they write."""
    return tuple(Site(kind, layer) for layer in range(graph.n_layers) for kind in ("z", "mlp"))


def starts(keep: Bool[Tensor, "row layer unit"]) -> list[tuple[list[int], int, str]]:
    """(rows, layer, kind) by where rows leave the base run: "z" or "mlp" of a layer, or "none".

    The units of a layer are its heads, then its MLP.
    """
    groups: dict[tuple[int, str], list[int]] = {}
    for row, layers in enumerate((~keep).int().tolist()):
        touched = next((n for n, units in enumerate(layers) if any(units)), None)
        kind = "none" if touched is None else "z" if any(layers[touched][:-1]) else "mlp"
        groups.setdefault((touched or 0, kind), []).append(row)
    return [(rows, layer, kind) for (layer, kind), rows in sorted(groups.items())]


def keep_masks(graph: Graph, circuits: Iterable[Iterable[str]]) -> Bool[Tensor, "row component"]:
    """One row a circuit: True at its components, in the order of graph.components.

    Raises CircuitError where a name is no node of this model; input and logits always belong, so have no column.
    """
    kept = [set(circuit) for circuit in circuits]
    _require_nodes(graph, set().union(*kept) - {INPUT, LOGITS, *graph.components})
    return torch.tensor([[c in circuit for c in graph.components] for circuit in kept], dtype=torch.bool)


def all_but_one(graph: Graph, components: Sequence[str]) -> Bool[Tensor, "row component"]:
    """One row a component: True everywhere but there."""
    return ~keep_masks(graph, ([c] for c in components))


def _require_nodes(graph: Graph, names: Iterable[str]) -> None:
    """Raises one CircuitError for all that are none."""
    problems = []
    for name in sorted(names):
        try:
            graph.node(name)
        except CircuitError as error:
            problems.append(str(error))
    if problems:
        raise CircuitError("\n".join(problems))
