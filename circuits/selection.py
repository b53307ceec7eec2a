"""Selection: from scores to a circuit, of components or of edges, by one of five rules.

    pruned        from the weakest score up, leave out whatever the discovery prompts do not need; the method's own
                  circuit where it is itself a way to prune (ACDC)
    smallest      the shortest prefix of the ranking that is faithful enough on the discovery prompts
    top           the n components with the largest scores
    threshold     all components whose score is at least a share of the largest one
    significance  all components whose mean differs from 0 (sign-flip permutation, corrected for many tests)

Size of score counts, not its sign: a component that works against the behaviour belongs to its circuit.
Edges are ranked as a circuit grows from the logits, and what then hangs in the air is left out (see
circuits.edge_selection). Prefixes are nested, so top n lies in top n + 1. Pruning is what ACDC does to edges
(Conmy et al. 2023, arXiv 2304.14997), done in the order of scores; it sees what single scores miss, such as a
component that matters only beside another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from circuits.circuit import Circuit, edge_circuit
from circuits.edge_selection import connected, edge_order
from circuits.errors import CircuitError
from circuits.graph import Graph
from circuits.progress import Progress, silent
from circuits.scores import Scores
from circuits.statistics import adjust_pvalues, sign_flip_pvalues

STEP = 1.15
"""How much longer the next prefix of edges is that is tried."""

AT_ONCE = 8
"""Steps of pruning that are asked at once while they go well."""

MOST_PERMUTATIONS = 500_000
"""Some seconds of work; past it, a level so low for so many components finds nothing significant."""


class Selection(BaseModel):
    """How a circuit is chosen. Shares are of the components that the method scores, or of the largest score."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    rule: Literal["pruned", "smallest", "top", "threshold", "significance"] = "pruned"
    n: int = Field(10, ge=1, description="top: how many components")
    share: float = Field(0.1, gt=0, le=1, description="threshold: least share of the largest score")
    target: float = Field(0.9, gt=0, description="pruned, smallest: faithfulness on the discovery prompts")
    most: float = Field(
        0.4, gt=0, le=1, description="share of the components above which a circuit is not small"
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="significance: level after correction")
    correction: Literal["holm", "bonferroni", "benjamini-hochberg"] = "holm"


Faithfulness = Callable[[Sequence[Sequence[str]]], Sequence[float]]
"""Circuits (as node names) -> faithfulness of each on the discovery prompts."""


@dataclass(frozen=True)
class Choice:
    """The circuit, whether the rule got what it was asked for, and what it saw on the way.

    curve: faithfulness of every prefix of the ranking that was tried, of so many components or edges as `sizes` say.
    prefix: the first that reached the target.
    """

    circuit: Circuit
    reached: bool = True
    note: str = ""
    curve: tuple[float, ...] = ()
    prefix: int | None = None
    sizes: tuple[int, ...] = ()

    @property
    def own_sizes(self) -> frozenset[int]:
        """That of the circuit, and of the prefix that it was pruned from."""
        return frozenset({len(self.circuit.kept), self.prefix or 0} - {0})


@dataclass(frozen=True)
class _Candidates:
    """What may be kept: components, or edges. order: the first n are the best circuit of n."""

    scores: Scores
    order: tuple[str, ...]
    graph: Graph | None = None

    @property
    def what(self) -> str:
        return "components" if self.graph is None else "edges"

    def circuit(self, kept: Sequence[str], rule: str) -> Circuit:
        if self.graph is not None:
            complete = len(self.order) == len(self.graph.places)
            edges = connected(self.graph, kept) if complete else kept
            return edge_circuit(self.graph, edges, self.scores.method, rule)
        wanted = set(kept)
        return Circuit(tuple(c for c in self.scores.components if c in wanted), self.scores.method, rule)

    def sizes(self, most: int) -> tuple[int, ...]:
        """Prefixes to try: every one, but of edges in steps that grow with them."""
        if self.graph is None:
            return tuple(range(1, most + 1))
        sizes = [1]
        while sizes[-1] < most:
            sizes.append(min(most, max(sizes[-1] + 1, int(STEP * sizes[-1]))))
        return tuple(sizes)


def _candidates(scores: Scores, graph: Graph) -> _Candidates:
    if scores.edges is None:
        return _Candidates(scores, scores.ranking())
    return _Candidates(scores.edges, edge_order(graph, scores.edges), graph)


def select(
    scores: Scores,
    selection: Selection,
    *,
    graph: Graph,
    seed: int,
    faithfulness: Faithfulness,
    progress: Progress = silent,
) -> Choice:
    """The circuit of `scores` under `selection`: of edges where they were scored, else of components.

    `faithfulness` is asked by "pruned" and "smallest". Raises CircuitError for scores that the rule does not fit, see
    check.
    """
    among = _candidates(scores, graph)
    check(selection, scores.method, len(among.order), scores.unit, among.what)
    if selection.rule == "pruned" and scores.circuit is not None:
        return Choice(scores.circuit, bool(scores.circuit.kept))
    if selection.rule == "pruned":
        return _pruned(among, selection, faithfulness, progress)
    if selection.rule == "smallest":
        return _smallest(among, selection, faithfulness)
    if selection.rule == "significance":
        return _significance(among, selection, seed)
    return (_top if selection.rule == "top" else _threshold)(among, selection)


def check(selection: Selection, method: str, n: int, unit: str, what: str = "components") -> None:
    """Raises CircuitError where more is asked for than `method` scores, or a test it has no data for."""
    if selection.rule == "top" and selection.n > n:
        raise CircuitError(f"--top {selection.n} asks for more {what} than {method} scores ({n}).")
    if selection.rule == "significance" and unit != "prompt":
        raise CircuitError(
            f"{method} has no score for each prompt, so significance cannot be tested. "
            "Select by --top, by --threshold, or by --smallest."
        )


def _top(among: _Candidates, selection: Selection) -> Choice:
    how = "by size of score" if among.graph is None else "edges by size of score, grown from the logits"
    return Choice(among.circuit(among.order[: selection.n], f"top {selection.n} {how}"))


def _threshold(among: _Candidates, selection: Selection) -> Choice:
    size = np.abs(among.scores.values)
    kept = [
        name
        for name, s in zip(among.scores.components, size, strict=True)
        if s > 0 and s >= selection.share * size.max()
    ]
    circuit = among.circuit(kept, f"at least {selection.share:.0%} of the largest score")
    return Choice(circuit, bool(circuit.kept))


def _significance(among: _Candidates, selection: Selection, seed: int) -> Choice:
    scores = among.scores
    permutations = n_permutations(len(scores.components), selection.alpha)
    flipped = sign_flip_pvalues(scores.samples, permutations=permutations, seed=seed)
    p = adjust_pvalues(flipped, selection.correction)
    kept = [c for c, value in zip(scores.components, p, strict=True) if value <= selection.alpha]
    circuit = among.circuit(kept, f"sign-flip permutation, {selection.correction} at {selection.alpha:g}")
    return Choice(circuit, bool(circuit.kept), "" if kept else f"no {among.what[:-1]} is significant")


def n_permutations(n_components: int, alpha: float) -> int:
    """Enough for the smallest possible p-value to stay below alpha once corrected, within reason."""
    return min(max(5000, math.ceil(2 * n_components / alpha)), MOST_PERMUTATIONS)


def _smallest(among: _Candidates, selection: Selection, faithfulness: Faithfulness) -> Choice:
    most = max(1, int(selection.most * len(among.order)))
    sizes = among.sizes(most)
    curve = tuple(faithfulness([among.order[:n] for n in sizes]))
    good = [n for n, value in zip(sizes, curve, strict=True) if value >= selection.target]
    n = good[0] if good else sizes[int(np.argmax(curve))]
    rule = (
        f"shortest prefix of the ranking with faithfulness >= {selection.target:g} on the discovery prompts"
    )
    if good:
        return Choice(among.circuit(among.order[:n], rule), True, "", curve, sizes=sizes)
    best = round(max(curve), 2) + 0.0
    note = (
        f"no prefix of up to {most} {among.what} reaches {selection.target:g}; the best ({best:.2f}) is kept"
    )
    return Choice(among.circuit(among.order[:n], rule), False, note, curve, sizes=sizes)


def _pruned(
    among: _Candidates, selection: Selection, faithfulness: Faithfulness, progress: Progress
) -> Choice:
    """Starts from the shortest faithful prefix, then tries to do without each of its members, weakest first."""
    sizes = among.sizes(len(among.order))
    curve = tuple(faithfulness([among.order[:n] for n in sizes]))
    start = next(
        (n for n, value in zip(sizes, curve, strict=True) if value >= selection.target), len(among.order)
    )
    without = _without_needless if among.graph is None else _without_needless_blocks
    kept = without(among.order[:start], selection.target, faithfulness, progress)
    rule = (
        f"pruned from the weakest score up while faithfulness is >= {selection.target:g} on discovery prompts"
    )
    circuit = among.circuit(kept, rule)
    reached = curve[sizes.index(start)] >= selection.target
    note = _spread(len(circuit.kept), selection, sizes, curve, among.what)
    return Choice(circuit, reached, note, curve, start, sizes)


def _without_needless(
    ranking: Sequence[str], target: float, faithfulness: Faithfulness, progress: Progress
) -> list[str]:
    """Leaves out one component after another, weakest first, whenever the rest stays faithful enough.

    While it goes well, several steps are asked at once, each as if those before it had gone well; the outcome is
    that of one at a time, for up to the first that fails the question was the right one.
    """
    kept, waiting, at_once = list(ranking), list(reversed(ranking)), 1
    while waiting and len(kept) > 1:
        steps = waiting[: min(at_once, len(kept) - 1)]
        rests = [[c for c in kept if c not in steps[: n + 1]] for n in range(len(steps))]
        failed = [n for n, value in enumerate(faithfulness(rests)) if value < target]
        good = failed[0] if failed else len(steps)
        kept = rests[good - 1] if good else kept
        waiting = waiting[good + bool(failed) :]
        at_once = 1 if failed else min(2 * at_once, AT_ONCE)
        progress("pruning", len(ranking) - len(waiting), len(ranking))
    return kept


def _without_needless_blocks(
    ranking: Sequence[str], target: float, faithfulness: Faithfulness, progress: Progress
) -> list[str]:
    """The same for edges, of which most go: blocks of 1, 2, 4 ... of the weakest at once, the largest that may go.

    A block goes where what is left is faithful enough, whatever its parts alone would do; where not even the
    weakest may go, it stays.
    """
    kept, waiting, longest = list(ranking), list(reversed(ranking)), 1
    while waiting and len(kept) > 1:
        blocks = [2**n for n in range(longest.bit_length()) if 2**n <= min(len(waiting), len(kept) - 1)]
        rests = [_without(kept, waiting[:n]) for n in blocks]
        good = [i for i, value in enumerate(faithfulness(rests)) if value >= target]
        if good:
            kept, gone = rests[good[-1]], blocks[good[-1]]
            longest = 2 * gone if gone == blocks[-1] else gone
        else:
            gone, longest = 1, 1
        waiting = waiting[gone:]
        progress("pruning", len(ranking) - len(waiting), len(ranking))
    return kept


def _without(kept: Sequence[str], out: Sequence[str]) -> list[str]:
    gone = set(out)
    return [name for name in kept if name not in gone]


def _spread(kept: int, selection: Selection, sizes: Sequence[int], curve: Sequence[float], what: str) -> str:
    """Why there is no small circuit, where there is none: the work is spread over many components, or edges."""
    total = sizes[-1]
    most = max(1, int(selection.most * total))
    if kept <= most:
        return ""
    best = round(max(value for n, value in zip(sizes, curve, strict=True) if n <= most), 2) + 0.0
    return (
        f"no small circuit: the behaviour is spread over {kept} of {total} {what}, and no prefix of up to "
        f"{most} of them ({selection.most:.0%}) passes {best:.2f} on the discovery prompts"
    )
