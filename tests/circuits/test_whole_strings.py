"""Answers of several tokens: the value of a pair is what transformers alone says of the whole strings, also patched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import Hooked

from circuits.batches import make_batches, n_prompts, tokenize_rows
from circuits.errors import CircuitError, PromptError
from circuits.evaluation.faithfulness import baseline, bench
from circuits.methods import METHODS
from circuits.methods.method import Problem
from circuits.metrics import log_probability_difference, logit_difference
from circuits.models.bridge import BridgeModel
from circuits.prompts import PromptPair
from circuits.readout import Readout

CLEAN = "When Mary and John went to the store, John gave a drink to"
PAIRS = (
    PromptPair(CLEAN, CLEAN.replace(", John", ", Mary"), (" Mary and Ann",), (" John",), {"S2": (39, 43)}),
    PromptPair(CLEAN, CLEAN.replace(", John", ", Tom"), (" Mary",), (" John and Sue", " Tom")),
    PromptPair("Then " + CLEAN, "Then " + CLEAN.replace("Mary", "Sue"), (" Tom", " Ann to"), (" Bob later",)),
    PromptPair(CLEAN, CLEAN.replace(", John", ", Bob"), (" Mary Ann",), (" John Ann",)),
)
STRINGS = tuple(replace(pair, scoring="whole-string") for pair in PAIRS)


@pytest.fixture(scope="module", params=["tiny-gpt2", "tiny-llama"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str, tiny: Callable[[str], BridgeModel]) -> BridgeModel:
    return tiny(name)


Says = Callable[[BridgeModel, list[int], list[int], str], float]


def _log_probability(logits: torch.Tensor, before: int, tokens: list[int]) -> float:
    """Teacher-forced: logits [pos, vocab] of the prompt with the answer behind it."""
    said = logits.log_softmax(-1)[range(before - 1, before + len(tokens) - 1), tokens]
    return float(said.double().sum())


def _value(model: BridgeModel, pair: PromptPair, says: Callable[[list[int]], float]) -> float:
    """Mean over answers minus mean over distractors of what `says` makes of a string's tokens."""
    ids = [[model.tokenize(pair.clean + word)[0] for word in side] for side in (pair.answers, pair.distractors)]
    n = len(model.tokenize(pair.clean)[0])
    answers, distractors = ([says(whole[n:]) for whole in side] for side in ids)
    return float(np.mean(answers) - np.mean(distractors))


def _patched(plain: Hooked, clean: list[int], corrupt: list[int], component: str) -> torch.Tensor:
    """Logits of the clean run with one component's outputs, at all positions, those of the corrupt run."""
    from against_hooks import logits_with

    return logits_with(plain, clean, corrupt, component)
