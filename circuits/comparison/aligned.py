"""Circuits of models whose heads were aligned: what they share, a pair of heads taken as one head.

The one idea: once heads are matched, a pair has a place in both models, so two circuits compare over pairs as
circuits of one model do over names. Random circuits keep as many heads of the pairs that
join any two layers, so chance has only the choice among those. MLPs are left out: nothing but depth tells which is
which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from circuits.comparison.alignment import Alignment, HeadProfiles, align, matched_without_effects
from circuits.comparison.pairwise import Comparison, compare_marks, marks_of
from circuits.comparison.sides import Side
from circuits.comparison.structured_null import pair_strata


@dataclass(frozen=True)
class AlignedComparison:
    """heads: the circuits over pairs of the alignment; without_effects: over pairs that roles and depth alone match.

    Circuits are found by the effects of heads, and so is the alignment: what is shared under it is in part of its own
    making, which is not so without effects. alone_first, alone_second: heads that are kept and have no partner.
    """

    alignment: Alignment
    heads: Comparison
    without_effects: Comparison
    alone_first: tuple[str, ...]
    alone_second: tuple[str, ...]


def compare_aligned(
    sides: tuple[Side, Side], profiles: tuple[HeadProfiles, HeadProfiles], seed: int = 0
) -> AlignedComparison:
    """Aligns the heads of two models, and compares their circuits over the pairs.

    Raises CircuitError where heads cannot be aligned, or no pair is scored on both sides.
    """
    found = align(*profiles, seed)
    kept = [set(side.scored.circuit.nodes) for side in sides]
    return AlignedComparison(
        found,
        over_pairs(sides, found.matched, seed),
        over_pairs(sides, matched_without_effects(*profiles), seed),
        tuple(head for head in found.unmatched_first if head in kept[0]),
        tuple(head for head in found.unmatched_second if head in kept[1]),
    )


def over_pairs(sides: tuple[Side, Side], matched: Sequence[tuple[str, str]], seed: int = 0) -> Comparison:
    """Two circuits over matched pairs of heads, called a1.h7~a2.h3.

    Raises CircuitError where no pair is scored on both sides.
    """
    graphs = (sides[0].scored.graph, sides[1].scored.graph)
    marks = {
        side.name: marks_of(side, "node").at([graph.components.index(pair[i]) for pair in matched])
        for i, (side, graph) in enumerate(zip(sides, graphs, strict=True))
    }
    names = ["~".join(pair) for pair in matched]
    (found,) = compare_marks(marks, names, pair_strata(*graphs, matched), "head", seed)
    return found
