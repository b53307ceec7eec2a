"""The matrices of a comparison, read off its record: what circuits share, and what each does where others live."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from circuits.statistics import adjust_pvalues
from cli.page.matrix_plot import Cell, Matrix
from cli.wording import number, p_value

Entry = Mapping[str, Any]
LEVEL = 0.05


def of_granularity(held: Entry, granularity: str) -> list[Entry]:
    return [entry for entry in held["comparisons"] if entry["granularity"] == granularity]


def finest(held: Entry) -> list[Entry]:
    """The pairs of a comparison: of edges where there are any, else of nodes or of heads."""
    return next((found for kind in ("edge", "node", "head") if (found := of_granularity(held, kind))), [])


def above_chance(pairs: Sequence[Entry]) -> list[bool]:
    """Of each pair, whether it shares more than chance within strata gives: Holm-corrected p at or below 0.05."""
    p = np.array([pair["within"]["p_value"] for pair in pairs], dtype=float)
    return [bool(adjusted <= LEVEL) for adjusted in adjust_pvalues(p, "holm").tolist()]


def overlap_matrix(held: Entry, granularity: str) -> Matrix:
    """Jaccard of every two circuits; on the diagonal how much each keeps."""
    names = [run["name"] for run in held["runs"]]
    return Matrix(
        f"Jaccard of {granularity}s (shared by both, of all that either keeps)",
        names,
        names,
        tuple(_overlaps(held, granularity, {name: i for i, name in enumerate(names)})),
        notes=f"*: more than chance gives (Holm-corrected p ≤ {LEVEL}). On the diagonal: how many each keeps.",
    )


def _overlaps(held: Entry, granularity: str, place: Mapping[str, int]) -> Iterator[Cell]:
    pairs, sizes = of_granularity(held, granularity), dict[int, int]()
    for pair, sure in zip(pairs, above_chance(pairs), strict=True):
        overlap, within = pair["overlap"], pair["within"]
        i, j = place[pair["first"]], place[pair["second"]]
        sizes |= {i: overlap["first_size"], j: overlap["second_size"]}
        told = (
            f"{overlap['shared']:,} of {pair['union']:,} {granularity}s shared; chance shares "
            f"{number(within['expected_shared'], 1)}; p {p_value(within['p_value'])}"
        )
        for at in ((i, j), (j, i)):
            yield Cell(*at, overlap["jaccard"], within["jaccard"], told=told, sure=sure)
    yield from (Cell(i, i, None, words=f"{n:,}", told=f"{n:,} {granularity}s kept") for i, n in sizes.items())


def transfer_matrix(held: Entry) -> Matrix:
    """Faithfulness of every circuit on the prompts of every run."""
    journeys = held["transfer"]
    rows = list(dict.fromkeys(j["circuit"] for j in journeys))
    columns = list(dict.fromkeys(j["prompts"] for j in journeys))
    n = sorted({j["n_prompts"] for j in journeys})
    prompts = f"{n[0]:,}" if len(n) == 1 else f"{n[0]:,} to {n[-1]:,}"
    return Matrix(
        f"Faithfulness ({journeys[0]['ablation']} ablation; 1 is the whole model)",
        rows,
        columns,
        tuple(_journey(j, rows.index(j["circuit"]), columns.index(j["prompts"])) for j in journeys),
        across="judged on the prompts of",
        down="circuit of",
        notes=(
            "Chance: the median of random circuits of its size there. Framed: the circuit's own task. "
            f"On {prompts} prompts each."
        ),
    )


def _journey(found: Entry, row: int, column: int) -> Cell:
    low, high, random_low, random_high = (
        number(found[end]) for end in ("low", "high", "random_low", "random_high")
    )
    told = (
        f"95% interval {low} to {high}; 95% of random circuits {random_low} to {random_high}; "
        f"p {p_value(found['p_value'])}; {found['size']:,} kept; {found['n_prompts']} prompts"
    )
    return Cell(
        row, column, found["faithfulness"], found["random_median"], told=told, framed=found["at_home"]
    )
