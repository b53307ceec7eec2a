"""Ranking texts: masking a copier hurts what is copied, an even head nothing; likeness has its known values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_retrieval import Copier

from circuits.errors import CircuitError
from circuits.models.bridge import BridgeModel
from circuits.ranking.attention_influence import attention_influence, first_heads, losses
from circuits.ranking.mona import DictionarySettings, jaccard, mona, train
from circuits.ranking.texts import Text, by_length, read_texts

Tiny = Callable[[str], BridgeModel]
COPIED = "ABCDEFGHABCDEFGHABCDEFGH"[:22]
PLAIN = "ABCDEFGHIJKLMNOPQRSTUV"


def texts(model: Copier, *words: str) -> tuple[Text, ...]:
    found = (" ".join(word) for word in words)
    return tuple(Text(n, text, {}, tuple(model.tokenize(text)[0])) for n, text in enumerate(found, 1))


def test_masking_the_copier_hurts_what_is_copied_alone() -> None:
    model = Copier()
    found = attention_influence(model, texts(model, COPIED, PLAIN), ["a1.h0"])
    assert found.scores[0] > 0.5  # the first saying is no easier to guess with the copier than without
    assert abs(found.scores[1]) < 0.2
    assert found.loss[0] < found.masked_loss[0]
    assert found.same_layers
    assert set(found.drawn) == {("a1.h1",), ("a1.h2",), ("a1.h3",)}  # which write nothing
    assert found.random == pytest.approx(0, abs=1e-6)


def test_masking_an_even_head_changes_nothing() -> None:
    model = Copier()
    found = attention_influence(model, texts(model, COPIED, PLAIN), ["a0.h2"])
    assert found.scores == pytest.approx(0, abs=1e-5)


def test_losses_are_those_of_transformers(tiny: Tiny, plain: Callable[[str], object]) -> None:
    model, theirs = tiny("tiny-gpt2"), plain("tiny-gpt2").model  # type: ignore[attr-defined]
    rows = [(0, 5, 6, 7), (0, 3, 9), (0, 8, 2, 11)]
    some = tuple(Text(n, "", {}, row) for n, row in enumerate(rows, 1))
    with torch.no_grad():
        expected = [float(theirs(torch.tensor([row]), labels=torch.tensor([row])).loss) for row in rows]
    assert losses(model, some) == pytest.approx(expected, abs=1e-5)
    assert [places for places, _ in by_length(some, 16)] == [[0, 2], [1]]


def test_the_first_heads_are_a_share_and_one_at_least(tiny: Tiny) -> None:
    graph = tiny("tiny-gpt2").graph
    assert first_heads(graph, graph.heads) == ("a0.h0",)
    assert len(first_heads(graph, graph.heads, 0.5)) == 6


def test_likeness_by_hand() -> None:
    one = np.array([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0], [2.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    assert jaccard(one, one[0]).tolist() == [1, 0, 0.5, 0]
    assert jaccard(one[3:], np.zeros(3)).tolist() == [0]


def test_a_dictionary_learns_sparse_states() -> None:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(24, 16, generator=generator), dim=1)
    codes = torch.rand(800, 24, generator=generator) * (torch.rand(800, 24, generator=generator) < 0.08)
    settings = DictionarySettings(features=48, active=4, steps=200, tokens=128, learning_rate=5e-3)
    x = codes @ atoms
    trained, explained = train(x, settings, seed=0)
    _, untrained = train(x, DictionarySettings(48, 4, 1), seed=0)
    assert explained > max(0.6, untrained + 0.2)
    assert int((trained.encode(x) > 0).sum(1).max()) <= 4


def test_target_texts_are_like_themselves(tiny: Tiny) -> None:
    model = tiny("tiny-gpt2")
    rows = [(0, 5, 6, 7, 8), (0, 3, 9, 4), (0, 12, 13, 14, 15)]
    pool = tuple(Text(n, "", {}, row) for n, row in enumerate(rows, 1))
    settings = DictionarySettings(features=16, active=3, steps=20)
    found = mona(model, pool, pool[:1], settings)
    assert found.scores[0] == pytest.approx(1)
    assert (found.scores[1:] < 0.9).all()
    assert found.random.shape == (20, 3)
    assert found.scores.tobytes() == mona(model, pool, pool[:1], settings).scores.tobytes()
    with pytest.raises(CircuitError, match="17 active features of 16"):
        mona(model, pool, pool, DictionarySettings(features=16, active=17))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ('{"text": "Mary went"}\n{oops\n', "line 2: no JSON"),
        ('{"texts": "Mary went"}\n', "line 1: holds no text"),
        ('["Mary"]\n', "line 1: holds no text"),
        ('{"text": ""}\n', "line 1: 1 token has no next one"),
        (json.dumps({"text": "Mary " * 40}), "line 1: "),
    ],
)
def test_a_file_that_cannot_be_used_is_named_line_by_line(
    content: str, message: str, tiny: Tiny, tmp_path: Path
) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(content)
    with pytest.raises(CircuitError, match=message) as problem:
        read_texts(path, tiny("tiny-gpt2"))
    assert str(path) in str(problem.value)


def test_what_stands_beside_a_text_is_kept(tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "Mary went", "id": 7}\n\n{"text": "John gave"}\n')
    one, two = read_texts(path, tiny("tiny-gpt2"))
    assert (one.fields, one.line, two.line) == ({"id": 7}, 1, 3)
