"""Mod-10 features: whether what successor heads read says, for any ordered class, the place of a word modulo ten.

The one idea: a linear probe finds place modulo ten in what the first MLP makes of numbers; if it reads days, months
or letters as well, they share the features. Numbers are judged on decades that the probe has not seen.
Source: Gould et al. 2023 (Successor Heads, arXiv 2312.09230), which has sparse features and probes; the ridge probe,
its folds and its control (probes of shuffled places) are our definition.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

TEN, DRAWS, PENALTY = 10, 20, 1e-2

Vectors = Float[np.ndarray, "word d_model"]
Places = Int[np.ndarray, "word"]


class Reading(NamedTuple):
    """Share of words whose place modulo ten the probe says; that of probes of shuffled places, on average."""

    n: int
    accuracy: float
    shuffled: float


def read_all(classes: dict[str, tuple[Vectors, Places]], numbers: str, seed: int) -> dict[str, Reading]:
    """The probe of `numbers` on every class; on numbers, by decades held out.

    classes: name -> vectors, and places from 1. Empty where there are no 20 numbers to learn from.
    """
    x, places = classes.get(numbers, (np.zeros((0, 1)), np.zeros(0, int)))
    if len(places) < 2 * TEN:
        return {}
    draw = np.random.default_rng([seed, TEN])
    labels = [places % TEN, *(draw.permutation(places % TEN) for _ in range(DRAWS))]
    found = {numbers: _reading(places, [_held_out(x, places, some) for some in labels])}
    for name, (vectors, where) in classes.items():
        if name != numbers:
            found[name] = _reading(where, [said(probe(x, some), vectors) for some in labels])
    return found


def _reading(places: Places, guesses: list[Places]) -> Reading:
    own, *others = [float((guess == places % TEN).mean()) for guess in guesses]
    return Reading(len(places), own, float(np.mean(others)))


def _held_out(x: Vectors, places: Places, labels: Places) -> Places:
    """What is said of each decade by a probe of the others."""
    guesses, decades = np.zeros(len(x), dtype=int), (places - 1) // TEN
    for decade in np.unique(decades):
        out = decades == decade
        guesses[out] = said(probe(x[~out], labels[~out]), x[out])
    return guesses


class Probe(NamedTuple):
    """One direction a digit, for vectors less their mean."""

    mean: Float[np.ndarray, "d_model"]
    directions: Float[np.ndarray, "d_model digit"]


def probe(x: Vectors, labels: Places) -> Probe:
    """Ridge regression onto digits, in float64."""
    mean = x.mean(0)
    centred, wanted = (x - mean).astype(float), np.eye(TEN)[labels]
    gram = centred.T @ centred
    penalty = PENALTY * max(float(np.trace(gram)) / len(gram), 1e-30)
    directions = np.linalg.solve(gram + penalty * np.eye(len(gram)), centred.T @ (wanted - wanted.mean(0)))
    return Probe(mean, directions)


def said(probe: Probe, x: Vectors) -> Places:
    return np.asarray(((x - probe.mean) @ probe.directions).argmax(1))
