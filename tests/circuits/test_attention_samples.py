"""Attention samples: the model's own patterns, by another route; which prompts, heads and rows; texts as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import prompt_pairs, read_model

from circuits import attention_samples as samples
from circuits.attention_samples import attention_samples
from circuits.circuit import Circuit
from circuits.discovery import Discovery, Finding, Plan
from circuits.evaluation.faithfulness import Baseline, Estimate
from circuits.halves import Halves
from circuits.models.bridge import BridgeModel
from circuits.scores import Scores
from circuits.selection import Choice

Tiny = Callable[[str], BridgeModel]
PAIRS = prompt_pairs(6)


def _finding(model: BridgeModel, seed: int, *circuit: str) -> Finding:
    components = model.graph.components
    values = np.random.default_rng(seed).normal(size=(1, len(components)))
    return Finding(Scores(f"m{seed}", components, values), Choice(Circuit(circuit, "", "")), (), (), 0.0)


def _found(model: BridgeModel, *findings: Finding) -> Discovery:
    sure = Estimate(0.0, 0.0, 0.0)
    before, halves = Baseline(4, sure, sure, sure, sure), Halves((0, 2), (1, 3, 4, 5))
    return Discovery(model.name, model.graph, Plan(()), PAIRS, halves, before, findings, ())


def _sampled(model: BridgeModel, *findings: Finding) -> dict[str, Any]:
    made = attention_samples(model, _found(model, *(findings or (_finding(model, 0),))))
    assert made is not None
    return made


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-mistral-window", "tiny-gptj", "tiny-gemma2"])
def test_patterns_are_those_of_transformers(name: str, tiny: Tiny, directory: Callable[[str], Path]) -> None:
    """On the engine's models and on others, grouped queries and windows among them."""
    model = tiny(name)
    made = _sampled(model)
    alone = read_model(directory(name))
    alone.set_attn_implementation("eager")
    assert len(made["heads"]) == len(model.graph.heads)
    for n, prompt in enumerate(made["prompts"]):
        for side in ("clean", "corrupt"):
            tokens = torch.tensor([model.tokenize(getattr(PAIRS[prompt["prompt"]], side))[0]])
            with torch.no_grad():
                patterns = alone(tokens, output_attentions=True).attentions
            for head, of_head in made["heads"].items():
                node, kept = model.graph.node(head), of_head[n][side]
                assert kept["queries"] == list(range(tokens.shape[1]))
                for query, row in zip(kept["queries"], kept["rows"], strict=True):
                    true = 1000 * patterns[node.layer][0, node.index, query, : query + 1]
                    np.testing.assert_allclose(row, true, atol=0.51)


def test_prompts_are_judged_ones_of_every_template(gpt2: BridgeModel) -> None:
    made = _sampled(gpt2)
    assert [prompt["prompt"] for prompt in made["prompts"]] == [1, 3, 4]
    assert [PAIRS[i].template for i in (1, 3, 4)] == ["1", "1", "0"]
    assert samples.sample((*PAIRS, *PAIRS), (3, 9, 11)) == (3, 11)  # 9 is 3 again
    first = made["prompts"][0]
    assert first["clean"] == ["<bos>", *PAIRS[1].clean.replace(".", " .").split()]
    assert [first["corrupt"][place] for place in first["positions"].values()][1:] == ["to"]
    assert first["positions"]["END"] == len(first["clean"]) - 1


def test_heads_of_circuits_come_first_then_the_largest(
    gpt2: BridgeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = _finding(gpt2, 1, "a0.h1", "m1", "a2.h3"), _finding(gpt2, 2, "a0.h1", "a1.h0")
    ranking = [c for c in one.scores.ranking() if c[0] == "a"]
    heads = samples.wanted((one, other))
    assert heads[:3] == (*sorted(("a0.h1", "a2.h3"), key=ranking.index), "a1.h0")
    assert heads[3] == next(c for c in ranking if c not in heads[:3])
    assert sorted(heads) == sorted(gpt2.graph.heads)
    monkeypatch.setattr(samples, "HEADS", 2)
    assert tuple(_sampled(gpt2, one, other)["heads"]) == heads[:2]


def test_of_long_prompts_few_rows_and_heads_are_kept(
    gpt2: BridgeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _sampled(gpt2)
    monkeypatch.setattr(samples, "LONG", 14)
    made = _sampled(gpt2)
    assert (whole["queries"], made["queries"]) == ("all", "named")
    for head, of_head in made["heads"].items():
        for prompt, kept, full in zip(made["prompts"], of_head, whole["heads"][head], strict=True):
            places = sorted(set(prompt["positions"].values()) | {len(prompt["clean"]) - 1})
            assert kept["clean"]["queries"] == places
            assert kept["clean"]["rows"] == [full["clean"]["rows"][q] for q in places]
    per_head = sum(
        len(row) for kept in made["heads"]["a0.h0"] for side in kept.values() for row in side["rows"]
    )
    monkeypatch.setattr(samples, "NUMBERS", 3 * per_head)
    assert list(_sampled(gpt2)["heads"]) == list(made["heads"])[:3]
    monkeypatch.setattr(samples, "NUMBERS", per_head - 1)
    assert attention_samples(gpt2, _found(gpt2, _finding(gpt2, 0))) is None


def test_a_model_that_shows_no_patterns_gives_none(
    gpt2: BridgeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = BridgeModel.run
    monkeypatch.setattr(BridgeModel, "run", lambda self, tokens, **settings: run(self, tokens))
    assert attention_samples(gpt2, _found(gpt2, _finding(gpt2, 0))) is None


class _Bytes:
    """Reads a text as a byte-level vocabulary does; no token is longer than a word."""

    name = "bytes"
    WORDS = ("<bos>", " caf\u00c3\u00a9", "\u00f0\u0141\u013b", "\u0124", " <b>", "\\n", "Mary")
    SPANS = ((0, 0), (1, 5), (5, 6), (5, 6), (6, 10), (10, 11), (11, 15))

    def tokenize(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        return list(range(len(self.WORDS))), list(self.SPANS)

    def token_string(self, token: int) -> str:
        return self.WORDS[token]

    def is_unknown(self, token: int) -> bool:
        return False


def test_tokens_are_shown_as_the_text_that_they_are() -> None:
    """Bytes of an accent or an emoji as what they are part of, and all else as it is spelled."""
    shown = samples.spelled(_Bytes(), " caf\u00e9\U0001f642 <b>\nMary")
    assert shown == ["<bos>", " caf\u00e9", "\U0001f642", "\U0001f642", " <b>", "\\n", "Mary"]
