"""What a comparison comes to, in sentences that the terminal and the report share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.wording import number, p_value

if TYPE_CHECKING:
    from circuits.comparison.overlap import Overlap
    from circuits.comparison.pairwise import Comparison
    from circuits.comparison.rank_overlap import AgainstShuffles
    from circuits.comparison.references import ReferenceMatch

NULLS = {
    "within": "Random circuits that keep as many nodes of each layer and kind (heads, MLP), or as many edges of each "
    "pair of layers, kinds and input (q, k, v), as the real ones; exact. Chance levels and p-values are these where "
    "nothing else is said.",
    "anywhere": "Random sets of the same sizes from all that both methods score (hypergeometric). Circuits crowd "
    "into layers, so this chance level is mostly too low and its p-values too small.",
    "shuffles": "Scores of the second shuffled within the same layers and kinds; one-sided p with the +1 correction.",
    "redrawn": "95% of the Jaccards of the largest scores, as many as each circuit keeps, where every score is drawn "
    "anew from a normal distribution with its standard error, apart from all others: how alike two repetitions would "
    "come out. Circuits that were pruned or grown are not the largest scores, so their Jaccard may lie elsewhere.",
}


def pair_cells(found: Comparison) -> tuple[str, ...]:
    """What tables say of two circuits: who, of what, shared, Jaccard, chance, p."""
    return (
        found.first,
        found.second,
        f"{found.granularity}s",
        f"{found.overlap.shared}/{found.union}",
        ratio(found.overlap.jaccard),
        ratio(found.within.jaccard),
        p_value(found.within.p_value),
    )


def ratio(value: float | None) -> str:
    return "undefined" if value is None else number(value)


def overlap_words(found: Comparison) -> str:
    """25 of 32 nodes shared: Jaccard 0.78, chance 0.10, p < 0.001."""
    o = found.overlap
    return (
        f"{o.shared:,} of {found.union:,} {found.granularity}s shared: Jaccard {ratio(o.jaccard)}, chance "
        f"{ratio(found.within.jaccard)}, p {_equals(found.within.p_value)}{_floor(found)}"
    )


def _floor(found: Comparison) -> str:
    """That p could not be small, whatever is shared."""
    floor = found.within.floor
    return "" if floor <= 0.05 else f" (it cannot fall below {number(floor)}: the layers leave no choice)"


def _equals(p: float) -> str:
    return p_value(p) if p < 0.001 else f"= {p_value(p)}"


def share_words(found: Comparison) -> str:
    """The other ratios."""
    o = found.overlap
    first, second = _part(o, o.first_size, o.share_of_first), _part(o, o.second_size, o.share_of_second)
    return (
        f"{first} of {found.first}, {second} of {found.second}; overlap coefficient {ratio(o.overlap_coefficient)}; "
        f"among {o.universe:,} that both score, of which random sets of these sizes share Jaccard "
        f"{ratio(o.chance_jaccard)} (p {_equals(o.p_value)})"
    )


def _part(overlap: Overlap, size: int, share: float | None) -> str:
    return f"{overlap.shared:,}/{size:,} ({ratio(share)})"


def ranking_words(found: Comparison) -> str:
    """The figures that know no cut-off."""
    if (ranking := found.ranking) is None:
        return "sizes of scores are not compared: a side has too few, or all alike"
    return (
        f"sizes of scores: rank correlation {_figure(ranking.rank_correlation)}, rank-biased overlap "
        f"{_figure(ranking.rank_biased_overlap)}, weighted Jaccard {_figure(ranking.weighted_jaccard)}"
        f"{_largest(found)}"
    )


def _largest(found: Comparison) -> str:
    if (largest := found.largest) is None:
        return ""
    reach = f"{number(largest.low)} to {number(largest.high)}"
    return f"; the largest, as many as are kept: Jaccard {number(largest.jaccard)}, redrawn {reach}"


def _figure(figure: AgainstShuffles) -> str:
    return f"{number(figure.value)} (chance {number(figure.chance)}, p {_equals(figure.p_value)})"


def reference_words(found: ReferenceMatch) -> str:
    """How well a run finds a circuit that others report."""
    members = len(found.found) + len(found.missed)
    figures = f"precision {number(found.precision)}, recall {number(found.recall)}, F1 {number(found.f1)}"
    chance = f"{number(found.within.expected_shared, 1)} of them, p {_equals(found.within.p_value)}"
    unscored = f"; {listed(found.unscored, 5)} not scored here" if found.unscored else ""
    within = "layers and inputs" if found.of == "edges" else "layers"
    return (
        f"{found.run} finds {len(found.found)} of {members} {found.of} of {found.reference}: {figures}, AUROC "
        f"{ratio(found.auroc)}; chance within {within} {chance}{unscored}"
    )


def listed(names: tuple[str, ...], most: int) -> str:
    """a0.h1, a3.h2 and 7 more; none."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "none"
