"""What a reading found as one picture: each function takes the reading's own nouns, and says what chance is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cli.report.cells import Cells, cells, scale_about_zero, scale_from
from cli.report.dots import CHANCE, CLAIM, OTHER, REFERENCE, Dot, Row, dots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from circuits.evaluation.faithfulness import Estimate
    from circuits.interventions.effect import Effect
    from circuits.mlp_reading.reading import Reading as MlpReading
    from circuits.subspaces.alignment import Alignment
    from circuits.tuning.run_tuning import Elsewhere
    from circuits.weight_reading.composition import Composition
    from circuits.weight_reading.observables import Path as Route

_MOST_ROWS = 60


def composition_picture(found: Composition, title: str) -> Figure:
    """Earlier heads by later heads, a panel an input; white where Gaussian heads reach as much."""
    best, chance = found.best, found.chance.best_max
    sources = np.flatnonzero((~np.isnan(best)).any((1, 2)))
    targets = np.flatnonzero((~np.isnan(best)).any((0, 2)))
    panels = {f"<{mode}>": best[np.ix_(sources, targets)][..., m] for m, mode in enumerate(found.modes)}
    rows, columns = (tuple(found.heads[i] for i in places) for places in (sources, targets))
    grid = Cells(rows, columns, panels, "read by", "written by", {})
    top = float(np.nanmax(best, initial=chance))
    notes = (
        f"white: no more than the most of {found.chance.n_pairs} pairs of Gaussian heads, {chance:.3f}",
        "grey: the one does not write before the other reads",
    )
    return cells(grid, scale_from(chance, top), title, "score of the best component", notes)


def observables_picture(routes: Sequence[Route], title: str) -> Figure:
    """Norms beside what random contrasts give."""
    rows = [
        Row(" ".join(route.heads), (Dot(route.norm, CLAIM), Dot(route.chance, CHANCE)), new)
        for route, new in zip(routes, _begins([len(route.heads) for route in routes]), strict=True)
    ]
    legend = {CLAIM: "the observable", CHANCE: "random contrasts, mean"}
    return dots(rows, legend, title, "norm of the direction that the heads turn into it", lines=(0,))


def subspace_picture(found: Sequence[Alignment], title: str) -> Figure:
    """Each rank: what was learned, its parts, what it is measured by, and random subspaces."""
    rows = []
    for one in found:
        for i, (name, effect) in enumerate(one.effects.items()):
            label = f"learned, rank {one.rank}" if name == "learned" else name
            kind = CLAIM if name == "learned" else OTHER if name.endswith("part") else REFERENCE
            rows.append(Row(label, (_dot(effect.fldd, kind),), i == 0))
        drawn = tuple(Dot(fldd, CHANCE) for fldd, _ in one.random)
        rows.append(Row(f"random, rank {one.rank}", drawn))
    legend = {CLAIM: "learned", OTHER: "its parts", REFERENCE: "to compare with", CHANCE: "random"}
    notes = (
        "95% bootstrap intervals over judged prompts; at 100 no preference is left, at 200 it is turned around",
    )
    axis = "FLDD: % by which the patch lowers the logit difference"
    return dots(rows, legend, title, axis, notes, lines=(0, 100))


def mlp_picture(found: Sequence[MlpReading], title: str) -> Figure:
    """MLPs by heads: what number each MLP puts on what the head wrote."""
    heads = max((each.heads for each in found), key=len)
    values, sure = np.full((len(found), len(heads)), np.nan), np.zeros((len(found), len(heads)), dtype=bool)
    for row, each in enumerate(found):
        of = each.regression
        columns = [heads.index(head) for head in each.heads]
        values[row, columns] = of.fit.heads
        sure[row, columns] = (of.low > 0) | (of.high < 0)
    rows = tuple(f"{each.mlp}  R² {each.regression.r2:.2f}" for each in found)
    grid = Cells(rows, heads, {"": values}, "head", "", {"": sure})
    reach = float(np.nanquantile(np.abs(values[sure] if sure.any() else values), 0.98))
    notes = (
        "red: the MLP erases what the head wrote, blue: it amplifies it; dot: the 95% interval leaves out 0",
        "grey: heads that write after the MLP",
    )
    return cells(grid, scale_about_zero(reach), title, "number b", notes)


def tokens_picture(lines: Sequence[tuple[str, Mapping[str, float], float]], title: str, noun: str) -> Figure:
    """lines: a token or a position, its importance by method, and an even share. noun: what they are."""
    most = sorted(range(len(lines)), key=lambda i: -max(lines[i][1].values()))[:_MOST_ROWS]
    kept = [lines[i] for i in sorted(most)]
    kinds = dict(zip(kept[0][1], (CLAIM, OTHER, REFERENCE), strict=False))
    rows = [
        Row(label, (*(Dot(value, kinds[name]) for name, value in shares.items()), Dot(even, CHANCE)))
        for label, shares, even in kept
    ]
    legend = {kind: name for name, kind in kinds.items()} | {CHANCE: "even share"}
    notes = (f"the {_MOST_ROWS} {noun}s of most importance",) if len(kept) < len(lines) else ()
    return dots(rows, legend, title, f"importance of the {noun}", notes, lines=(0,))


def tune_picture(found: Sequence[Elsewhere], title: str) -> Figure:
    """Right answers on every set of prompts: before, after, and after other trainings."""
    rows = [row for each in found for row in _arms(each)]
    legend = {
        REFERENCE: "nothing tuned",
        CLAIM: "these heads",
        OTHER: "other trainings",
        CHANCE: "random heads",
    }
    notes = ("95% bootstrap intervals over judged prompts",)
    return dots(rows, legend, title, "share of prompts answered right", notes)


def _arms(found: Elsewhere) -> Iterator[Row]:
    before = found.effect.correct.before
    yield Row(f"{found.prompts.task}: before", (_dot(before, REFERENCE),), True)
    yield Row("these heads", (_after(found.effect, CLAIM),))
    yield Row("shuffled answers", (_after(found.shuffled, OTHER),))
    yield Row("all heads", (_after(found.everything, OTHER),))
    if found.control:
        shares = tuple(Dot(before.value + change, CHANCE) for change in found.control.correct.changes)
        yield Row("random heads", shares)


def _after(effect: Effect, kind: int) -> Dot:
    return _dot(effect.correct.after, kind)


def _dot(found: Estimate, kind: int) -> Dot:
    return Dot(found.value, kind, found.low, found.high)


def _begins(groups: Sequence[int]) -> list[bool]:
    return [i == 0 or group != groups[i - 1] for i, group in enumerate(groups)]
