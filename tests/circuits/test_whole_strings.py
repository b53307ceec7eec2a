"""Answers of several tokens: the value of a pair is what transformers alone says of the whole strings, also patched.

Ours adds up rows of one token; here the prompt with the whole string behind it runs once, read at every token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import Hooked
from torch import Tensor

from circuits.batches import Batch, make_batches, n_prompts, tokenize_pair
from circuits.errors import CircuitError, PromptError
from circuits.evaluation.faithfulness import baseline, bench
from circuits.methods import METHODS
from circuits.methods.method import Problem
from circuits.metrics import log_probability_difference, logit_difference, probability_difference
from circuits.models.bridge import BridgeModel
from circuits.prompts import PromptPair
from circuits.readout import Readout
from circuits.scores import Scores

CLEAN = "When Mary and John went to the store, John gave a drink to"
PAIRS = (
    PromptPair(CLEAN, CLEAN.replace(", John", ", Mary"), (" Mary and Ann",), (" John",)),
    PromptPair(CLEAN, CLEAN.replace(", John", ", Tom"), (" Mary",), (" John and Sue", " Tom")),
    PromptPair(
        "later " + CLEAN, "later " + CLEAN.replace("Mary", "Sue"), (" Tom", " Ann to"), (" Bob a bag",)
    ),
    PromptPair(CLEAN, CLEAN.replace(", John", ", Bob"), (" Mary Ann",), (" Mary John",)),
)
PAIRS = tuple(replace(pair, positions={"S2": (s := pair.clean.rindex("John"), s + 4)}) for pair in PAIRS)
STRINGS = tuple(replace(pair, scoring="whole-string") for pair in PAIRS)


@pytest.fixture(scope="module", params=["tiny-gpt2", pytest.param("tiny-llama", marks=pytest.mark.slow)])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str, tiny: Callable[[str], BridgeModel]) -> BridgeModel:
    return tiny(name)


@pytest.fixture(scope="module")
def alone(name: str, plain: Callable[[str], Hooked]) -> Hooked:
    return plain(name)


def _batches(
    model: BridgeModel, pairs: tuple[PromptPair, ...] = STRINGS, size: int = 64
) -> tuple[Batch, ...]:
    return make_batches(model, pairs, batch_size=size)


def _scores(model: BridgeModel, method: str, size: int = 64, **options: object) -> Scores:
    entry = METHODS.load(method)
    problem = Problem(_batches(model, size=size), log_probability_difference)
    return entry.score(model, problem, entry.configure(options))  # type: ignore[no-any-return]


def _strings(
    model: BridgeModel, pair: PromptPair
) -> tuple[list[int], list[int], list[list[int]], list[list[int]]]:
    """Clean and corrupt tokens, and those of the answers and of the distractors."""
    clean, corrupt = (model.tokenize(text)[0] for text in (pair.clean, pair.corrupt))
    sides = (
        (model.tokenize(pair.clean + w)[0][len(clean) :] for w in s) for s in (pair.answers, pair.distractors)
    )
    return clean, corrupt, *map(list, sides)


def _said(alone: Hooked, tokens: list[int], n: int, changes: dict[Any, Any] | None = None) -> float:
    """Log-probability of all tokens from the n-th on, in one run."""
    handles = [alone._hook(*place, change) for place, change in (changes or {}).items()]
    with torch.no_grad():
        logits = alone.model(torch.tensor([tokens])).logits[0]
    for handle in handles:
        handle.remove()
    return float(logits.double().log_softmax(-1)[range(n - 1, len(tokens) - 1), tokens[n:]].sum())


def _patch(alone: Hooked, other: list[int], component: str) -> dict[Any, Any]:
    """One component's outputs, at all positions, taken from a run on `other`."""
    values = alone.values(torch.tensor([other]))
    if component[0] == "m":
        place = ("mlp", int(component[1:]))
        return {place: lambda value: values[place]}
    layer, head = map(int, component[1:].split(".h"))

    def change(z: Tensor) -> Tensor:
        z = z.clone()
        z[:, :, head] = values["z", layer][:, :, head]
        return z

    return {("z", layer): change}


def _values(model: BridgeModel, alone: Hooked, component: str | None = None) -> list[float]:
    """Of every pair: mean over answers minus mean over distractors, patched where a component is named."""
    found = []
    for pair in PAIRS:
        clean, corrupt, answers, distractors = _strings(model, pair)
        right, wrong = (
            np.mean(
                [
                    _said(alone, clean + s, len(clean), component and _patch(alone, corrupt + s, component))  # type: ignore[arg-type]
                    for s in side
                ]
            )
            for side in (answers, distractors)
        )
        found.append(float(right - wrong))
    return found


def test_the_model_itself_says_what_transformers_says(model: BridgeModel, alone: Hooked) -> None:
    batches = _batches(model, size=3)
    whole = bench(
        model, batches, log_probability_difference, "resample", played=model.graph.components, means_from=()
    ).ends
    np.testing.assert_allclose(whole.metric[1], _values(model, alone), atol=1e-4)
    assert n_prompts(batches) == len(PAIRS)
    before = baseline(model, batches, log_probability_difference, seed=0)
    assert before.n_prompts == len(PAIRS)
    best = []
    for pair in PAIRS:
        clean, _, answers, distractors = _strings(model, pair)
        right, wrong = (
            max(_said(alone, clean + s, len(clean)) for s in side) for side in (answers, distractors)
        )
        best.append(right > wrong)
    assert whole.preferred[1].tolist() == best
    assert before.preferred.value == pytest.approx(np.mean(best))


def test_a_patch_changes_whole_strings_as_hooks_by_hand_do(model: BridgeModel, alone: Hooked) -> None:
    scores, unpatched = _scores(model, "activation-patching"), np.array(_values(model, alone))
    for component in ("a0.h1", "a2.h0", "m1"):
        column = scores.components.index(component)
        expected = unpatched - _values(model, alone, component)
        np.testing.assert_allclose(scores.samples[:, column], expected, atol=1e-4)
        assert np.abs(expected).max() > 1e-2


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("activation-patching", {"budget": 3}),
        ("attribution-patching", {"positions": "named"}),
        ("path-patching", {}),
        ("acdc", {"threshold": 0.5}),
        pytest.param("activation-patching", {"positions": "named"}, marks=pytest.mark.slow),
        pytest.param("sae", {"trials": 1, "epochs": 2}, marks=pytest.mark.slow),
    ],
)
def test_what_a_batch_holds_changes_no_score(
    method: str, options: dict[str, object], gpt2: BridgeModel
) -> None:
    """Rows of one pair lie in other batches each time."""
    one, many = (_scores(gpt2, method, size, **options) for size in (2, 64))
    np.testing.assert_allclose(one.samples, many.samples, atol=1e-4)
    for label, values in one.by_position.items():
        np.testing.assert_allclose(values, many.by_position[label], atol=1e-4)


def test_edges_add_up_to_the_gradient_of_whole_strings(gpt2: BridgeModel) -> None:
    """Two routes that share no regrouping: matrices of edges row by row, and the sweep over components."""
    edges, nodes = _scores(gpt2, "eap"), _scores(gpt2, "attribution-patching")
    np.testing.assert_allclose(edges.samples, nodes.samples[:, : edges.samples.shape[1]], atol=1e-4)


def test_with_one_token_it_is_the_logit_difference(gpt2: BridgeModel) -> None:
    single = tuple(replace(p, answers=(" Mary",), distractors=(" John", " Bob")) for p in PAIRS)
    rows = [
        bench(
            gpt2, _batches(gpt2, pairs), metric, "resample", played=gpt2.graph.components, means_from=()
        ).ends
        for pairs, metric in (
            (single, logit_difference),
            (single, log_probability_difference),
            (tuple(replace(p, scoring="whole-string") for p in single), log_probability_difference),
        )
    ]
    for other in rows[1:]:
        np.testing.assert_allclose(other.metric, rows[0].metric, atol=1e-5)
        assert other.preferred.equal(rows[0].preferred)


def test_whole_strings_are_said_where_each_token_is_the_most_likely(gpt2: BridgeModel) -> None:
    """The answer is what the model would say itself, then the same with another last token."""
    text, said = CLEAN, ""
    for _ in range(2):
        tokens = torch.tensor([gpt2.tokenize(text + said)[0]])
        said += f" {gpt2.token_string(int(gpt2.run(tokens).logits.argmax()))}"
    other = " ".join([*said.split(" ")[:-1], "Bob"])
    pairs = [replace(STRINGS[0], answers=(a,), distractors=(d,)) for a, d in ((said, other), (other, said))]
    found = baseline(gpt2, _batches(gpt2, tuple(pairs)), log_probability_difference, seed=0)
    assert (found.correct.value, found.preferred.value) == (0.5, 0.5)


def test_first_tokens_stand_for_answers_unless_they_agree(gpt2: BridgeModel) -> None:
    first = replace(PAIRS[0], scoring="first-token")
    assert tokenize_pair(gpt2, first, "") == tokenize_pair(gpt2, replace(PAIRS[0], answers=(" Mary",)), "")
    with pytest.raises(PromptError, match="prompt 4: 'Mary' is the first token of both"):
        make_batches(gpt2, [replace(pair, scoring="first-token") for pair in PAIRS])
    with pytest.raises(PromptError, match=r"3 tokens .* --answers first-token or whole-string"):
        make_batches(gpt2, PAIRS)
    with pytest.raises(PromptError, match="not in the vocabulary"):
        make_batches(gpt2, [replace(STRINGS[0], answers=(" Mary and Zoe",))])
    with pytest.raises(PromptError, match="both an answer and a distractor"):
        make_batches(gpt2, [replace(STRINGS[0], distractors=(" Mary and Ann",))])


def test_what_reads_single_logits_is_refused(gpt2: BridgeModel) -> None:
    for metric in (logit_difference, probability_difference):
        with pytest.raises(CircuitError, match="log-probability-difference"):
            Readout(_batches(gpt2)[0], metric)
    with pytest.raises(CircuitError, match="logit-attribution reads answers of one token"):
        _scores(gpt2, "logit-attribution")
