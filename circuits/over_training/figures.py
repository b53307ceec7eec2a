"""The figures of a timeline, each over all checkpoints beside its chance.

The one idea: whatever is measured becomes a value, an interval, a chance level and whether it is above that, so
tables, pictures and steps of appearance are made of all figures alike. Above chance: the lower end of the 95%
interval is; for a head, p (Holm, over heads) is at most 0.05 and the score twice what chance gives, for the best of
many heads is above it by a hair in any model; for overlap and faithfulness, p against random circuits is at most
0.05, or the smallest that so few random circuits can give. All of this is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from circuits.comparison.overlap import Overlap
from circuits.discovery import Finding
from circuits.evaluation.faithfulness import Estimate, Verdict
from circuits.over_training.series import Point, Series
from circuits.over_training.timeline import Moment, Timeline

LEVEL, CLEAR = 0.05, 2.0
"""p, and how many times chance a head must score."""

_Figure = tuple[str, str, Callable[[Moment], Point | None]]


def all_series(found: Timeline) -> tuple[Series, ...]:
    """Every figure over training, in the order in which it is told."""
    return tuple(
        Series(kind, name, tuple(point(moment) for moment in found.moments))
        for kind, name, point in _figures(found)
    )


def _figures(found: Timeline) -> Iterator[_Figure]:
    preferred, correct = found.chance["preferred"], found.chance["correct"]
    yield "behaviour", "preferred", lambda m: _estimated(m.baseline.preferred, preferred)
    yield "behaviour", "correct", lambda m: _estimated(m.baseline.correct, correct)
    yield "metric", "clean", lambda m: _estimated(m.baseline.metric_clean, 0.0)
    yield "metric", "clean less corrupt", lambda m: _estimated(m.told_apart, 0.0)
    yield (
        "circuit",
        "faithfulness",
        lambda m: None if m.final is None else _verdict(m.final),
    )
    yield (
        "circuit",
        "overlap",
        lambda m: None if m.shared is None else _shared(m.shared),
    )
    yield "size", "kept", lambda m: None if m.circuit is None else _size(m.circuit)
    for name in dict.fromkeys(scored.role.name for m in found.moments for scored in m.roles):
        yield "role", name, partial(_role, name)
    for name in dict.fromkeys(name for m in found.moments if m.induction for name in m.induction.measures):
        yield "induction", name, partial(_induced, name)


def _estimated(value: Estimate, chance: float, of: str = "") -> Point:
    return Point(value.value, value.low, value.high, chance, value.low > chance, of)


def _verdict(verdict: Verdict) -> Point:
    value, band = verdict.faithfulness, verdict.random
    above = band.p_value <= max(LEVEL, 1 / (1 + band.n))
    return Point(value.value, value.low, value.high, band.median, above)


def _shared(shared: Overlap) -> Point:
    return Point(shared.jaccard or 0.0, None, None, shared.chance_jaccard, shared.p_value <= LEVEL)


def _size(found: Finding) -> Point:
    return Point(float(len(found.circuit.kept)), None, None, None, False)


def _role(name: str, moment: Moment) -> Point | None:
    """The head that has the role most; None where it was not measured."""
    found = next((scored for scored in moment.roles if scored.role.name == name), None)
    if found is None:
        return None
    best = found.top(1)[0]
    value = float(found.scores.values[best])
    return Point(
        value,
        float(found.interval.low[best]),
        float(found.interval.high[best]),
        found.chance,
        bool(found.p_values[best] <= LEVEL) and value >= CLEAR * found.chance,
        found.scores.components[best],
    )


def _induced(name: str, moment: Moment) -> Point | None:
    if (found := moment.induction) is None:
        return None
    measure = found.measures[name]
    of = {"ILA1": found.first, "TILA2": found.second, "TLA2": found.second}.get(name, "")
    return _estimated(measure.found, measure.chance, of)
