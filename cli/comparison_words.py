"""What a comparison comes to, in sentences that the terminal and the report share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.wording import number, p_value

if TYPE_CHECKING:
    from circuits.comparison.aligned import AlignedComparison
    from circuits.comparison.alignment import Alignment
    from circuits.comparison.overlap import Overlap
    from circuits.comparison.pairwise import Comparison
    from circuits.comparison.rank_overlap import AgainstShuffles
    from circuits.comparison.references import ReferenceMatch
    from circuits.evaluation.transfer import Journey

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


TRANSFER = (
    "Faithfulness of each circuit on the prompts of each run (resample ablation), and in brackets the median of 25 "
    "random circuits of its size there. A * marks what none of those reaches. Prompts that any of the circuits was "
    "found on are left out."
)


def transfer_rows(journeys: Sequence[Journey]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A header and a row a circuit: its size, and what it does on the prompts of each place."""
    places = tuple(dict.fromkeys(journey.place for journey in journeys))
    cells: dict[str, dict[str, str]] = {}
    for journey in journeys:
        verdict = journey.verdict
        star = "*" if verdict.random.p_value <= 1 / (1 + verdict.random.n) else ""
        words = f"{number(verdict.faithfulness.value)}{star} ({number(verdict.random.median)})"
        row = cells.setdefault(journey.circuit, {"size": f"{journey.size:,}"})
        row[journey.place] = words + (" own" if journey.at_home else "")
    header = ("circuit of", "size", *places)
    return header, [(name, *(row.get(c, "") for c in header[1:])) for name, row in cells.items()]


def specificity_words(journeys: Sequence[Journey]) -> list[str]:
    """How much more of its own task than of the others' each circuit carries."""
    from circuits.evaluation.transfer import specificity

    found = {c: specificity(journeys, c) for c in dict.fromkeys(j.circuit for j in journeys)}
    return [
        f"the circuit of {circuit} is {number(abs(value))} {'more' if value >= 0 else 'less'} faithful at home than "
        "elsewhere on average"
        for circuit, value in found.items()
        if value is not None
    ]


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


ALIGNMENT_NULLS = {
    "alignment": "Best matchings of models whose heads swapped their effects within each layer: the same roles and "
    "the same effects at the same depths, but whose role goes with which effects is chance. One-sided p with the +1 "
    "correction.",
    "within": "Random circuits that keep as many heads as the real ones do of the pairs that join any two layers; "
    "exact. Chance levels and p-values of circuits are these where nothing else is said.",
}
"""Beside NULLS, or in their place, where heads were aligned."""


def alignment_words(found: Alignment) -> str:
    """How heads were matched, and whether that is more than chance."""
    reach = f"{number(found.low, 3)} to {number(found.high, 3)}"
    verdict = (
        "above chance" if found.p_value <= 0.05 else "no better than chance, so no pair is to be relied on"
    )
    return (
        f"Heads aligned by behaviour, on {found.n_prompts} prompts and {len(found.roles)} roles: {len(found.pairs)} "
        f"pairs, mean similarity {number(found.similarity, 3)}, chance {number(found.chance, 3)} (95% {reach}), "
        f"p {_equals(found.p_value)}: {verdict}"
    )


def pair_words(found: AlignedComparison) -> str:
    """How sure the pairs are, and who has no partner."""
    from circuits.comparison.alignment import SURE

    whole, of = found.alignment, found.heads.overlap
    sides = (
        (found.heads.first, whole.unmatched_first, found.alone_first, of.first_size),
        (found.heads.second, whole.unmatched_second, found.alone_second, of.second_size),
    )
    left = [
        f"{len(heads)} heads of {name} have no partner, among them {len(kept)} of the {len(kept) + n} of its circuit "
        f"({listed(kept, 10)})"
        for name, heads, kept, n in sides
        if heads
    ]
    stable = (
        f"{whole.sure} of {len(whole.pairs)} pairs return in at least {SURE:.0%} of redraws of the prompts"
    )
    return "; ".join((stable, *left))


def without_effects_words(found: AlignedComparison) -> str:
    """The overlap where the alignment knows nothing of the task."""
    return f"matched by roles and depth alone, without effects: {overlap_words(found.without_effects)}"


def aligned_notes(found: AlignedComparison) -> tuple[str, ...]:
    """What the reader should know before trusting a figure of aligned circuits."""
    notes = [
        "Heads are compared through an alignment. MLPs are left out: nothing but depth tells which is which.",
        "Circuits are found by the effects of heads, and so in part is the alignment: the overlap without effects "
        "has no such help.",
    ]
    if found.alignment.p_value > 0.05:
        notes.append(
            "The alignment is no better than chance: that two heads of these models are the same is not shown, and "
            "what is shared through them says little."
        )
    return tuple(notes)


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
