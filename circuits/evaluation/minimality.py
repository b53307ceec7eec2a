"""Minimality: whether the circuit needs each of its members more than it would need a stranger.

The one idea: leave a member out of the circuit and see how far the metric moves; then inflate the circuit by a random
path from input to logits, leave out one of the strangers that came with it, and see how far that moves the metric. A
member that does not beat (nearly) all strangers is needless. Bonferroni, for there are as many tests as members.
Source: Shi et al. 2024 (arXiv 2410.13032), section 3; they leave the correction to do. Their test asks one question
(is it needless?) and calls all others minimal; here a member may also be shown to be needed, or stay undecided.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from circuits.circuit import Circuit, ends
from circuits.evaluation.curves import measured
from circuits.evaluation.faithfulness import Bench, Estimate, ratio_estimate
from circuits.graph import INPUT, LOGITS, Graph
from circuits.progress import Progress, silent

N_INFLATED, QUANTILE, ALPHA = 100, 0.9, 0.05

TRIES = 1000
"""Random paths that may bring nothing new before the circuit counts as everything there is."""


@dataclass(frozen=True)
class Member:
    """A member of the circuit. change: mean size of the change of the metric without it, on the faithfulness scale.

    beats: how many strangers' changes are smaller. p_needless: for "it beats at least QUANTILE of all strangers";
    p_needed: for "it beats at most that"; both corrected for the number of members.
    """

    name: str
    change: Estimate
    beats: int
    p_needless: float
    p_needed: float

    @property
    def verdict(self) -> str:
        if self.p_needless <= ALPHA:
            return "needless"
        return "needed" if self.p_needed <= ALPHA else "undecided"


@dataclass(frozen=True)
class Minimality:
    """Every member, and how many strangers each was held against. strangers: their median and largest change."""

    members: tuple[Member, ...]
    n_inflated: int
    n_prompts: int
    stranger_median: float
    stranger_largest: float

    def named(self, verdict: str) -> tuple[str, ...]:
        """The members of which this is the verdict."""
        return tuple(member.name for member in self.members if member.verdict == verdict)


def minimality(
    at: Bench, circuit: Circuit, *, seed: int, n_inflated: int = N_INFLATED, progress: Progress = silent
) -> Minimality | None:
    """The test of every member; None where the circuit is empty, or there are no strangers.

    One pass for each member and two for each stranger.
    """
    rng = np.random.default_rng([seed, 0x1F])
    inflated = list(_inflated(at, circuit, n_inflated, rng))
    if not inflated or not circuit.kept:
        return None
    without = [[c for c in circuit.kept if c != member] for member in circuit.kept]
    found = measured(
        at, [[circuit.kept], without, [a for a, _ in inflated], [b for _, b in inflated]], progress
    )
    whole, (own, rest, more, less) = found.everything - found.nothing, found.inside
    strangers = np.abs(more - less).mean(1)
    changes = np.abs(own - rest)
    beats = (changes.mean(1)[:, None] > strangers).sum(1)
    needless, needed = binomial_tails(beats, len(strangers), QUANTILE)
    n, scale = len(circuit.kept), abs(whole.mean())
    return Minimality(
        tuple(
            Member(
                member,
                ratio_estimate(changes[i], whole * np.sign(whole.mean()), seed),
                int(beats[i]),
                min(1.0, float(needless[i]) * n),
                min(1.0, float(needed[i]) * n),
            )
            for i, member in enumerate(circuit.kept)
        ),
        len(strangers),
        len(found.nothing),
        float(np.median(strangers) / scale),
        float(strangers.max() / scale),
    )


def binomial_tails(
    hits: object, n: int, p: float
) -> tuple[Float[np.ndarray, "*test"], Float[np.ndarray, "*test"]]:
    """P(X <= hits) and P(X >= hits) of n draws with chance p."""
    counts = np.asarray(hits)
    return np.asarray(stats.binom.cdf(counts, n, p)), np.asarray(stats.binom.sf(counts - 1, n, p))


def _inflated(
    at: Bench, circuit: Circuit, n: int, rng: np.random.Generator
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(the circuit and a random path, the same without one of what the path brought)."""
    inside, legal, failed = set(circuit.kept), set(at.played), 0
    out_of = _out_edges(at.model.graph)
    while n and failed < TRIES:
        path = random_path(at.model.graph, out_of, rng)
        names = path if at.granularity == "edge" else [ends(edge)[0] for edge in path]
        new = [name for name in dict.fromkeys(names) if name in legal - inside]
        if not new:
            failed += 1
            continue
        n, failed = n - 1, 0
        stranger = new[int(rng.integers(len(new)))]
        more = (*circuit.kept, *new)
        yield more, tuple(c for c in more if c != stranger)


def _out_edges(graph: Graph) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {source: [] for source in graph.sources}
    for edge in graph.places:
        found[ends(edge)[0]].append(edge)
    return found


def random_path(graph: Graph, out_of: dict[str, list[str]], rng: np.random.Generator) -> list[str]:
    """Edges of a walk from the input to the logits, each drawn from those that leave the last node."""
    path, node = [], INPUT
    while node != LOGITS:
        edge = out_of[node][int(rng.integers(len(out_of[node])))]
        path.append(edge)
        served = graph.served(edge.split("->")[1])
        node = served[int(rng.integers(len(served)))]
    return path
