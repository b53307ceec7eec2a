"""The bridge: tokens, spans and logits are those of the plain model and tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import CONTEXT, FAMILIES, WORDS, Hooked, read_model

from circuits.errors import ModelError, PromptError
from circuits.interventions import component_sites
from circuits.methods.method import Problem
from circuits.model import Model, Site
from circuits.models.bridge import BridgeModel, load_model
from circuits.probes import probe

Tiny = Callable[[str], BridgeModel]
MakeProblem = Callable[..., Problem]
SHAPES = {
    "tiny-gpt2": (4, False, 8),
    "tiny-llama": (2, False, 8),
    "tiny-neox": (4, True, 8),
    "tiny-neox-serial": (4, False, 8),
    "tiny-gemma": (1, False, 12),
    "tiny-mistral": (2, False, 8),
    "tiny-mistral-window": (2, False, 8),
    "tiny-qwen2": (2, False, 8),
    "tiny-qwen3": (2, False, 12),
    "tiny-mixtral": (2, False, 8),
    "tiny-phi": (4, True, 8),
    "tiny-phi3-long": (2, False, 8),
    "tiny-gptj": (4, True, 8),
    "tiny-gemma2": (2, False, 8),
    "tiny-olmo2": (4, False, 8),
    "tiny-cohere": (2, True, 8),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_the_plain_models(
    name: str, tiny: Tiny, plain: Callable[[str], Hooked], problem: MakeProblem
) -> None:
    for batch in problem(tiny(name)).batches:
        theirs = plain(name).logits(batch.clean)
        torch.testing.assert_close(tiny(name).run(batch.clean).logits, theirs, atol=1e-5, rtol=0)
        assert theirs.std() > 0.05


@pytest.mark.parametrize("name", FAMILIES)
def test_the_graph_has_the_models_shape(name: str, tiny: Tiny) -> None:
    model, (n_kv, parallel, d_head) = tiny(name), SHAPES[name]
    graph = model.graph
    assert (graph.n_layers, graph.n_heads, graph.n_kv_heads, graph.parallel) == (3, 4, n_kv, parallel)
    assert (model.d_model, model.n_ctx, model.vocab_size) == (32, CONTEXT, len(WORDS))
    assert (model.name, model.builtin, model.device.type) == (name, False, "cpu")
    weight, bias = model.head_writer(2)
    assert weight.shape == (4, d_head, 32)
    assert bias.shape == (32,)
    assert isinstance(model, Model)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_captured_is_what_plain_hooks_see(
    name: str, tiny: Tiny, plain: Callable[[str], Hooked], problem: MakeProblem
) -> None:
    model, tokens = tiny(name), problem(tiny(name)).batches[0].clean
    captured = model.run(tokens, capture=component_sites(model.graph)).captured
    for (kind, layer), value in plain(name).values(tokens).items():
        ours = captured[Site(kind, layer)]  # type: ignore[arg-type]
        torch.testing.assert_close(ours, value, atol=1e-4, rtol=0)
        assert not ours.requires_grad


def test_edits_come_before_captures_and_leave_no_trace(gpt2: BridgeModel, problem: MakeProblem) -> None:
    tokens, site = problem(gpt2).batches[0].clean, Site("z", 1)
    before = gpt2.run(tokens).logits
    edited = gpt2.run(tokens, capture=[site], edit={site: lambda z: z * 0 + 2})
    assert (edited.captured[site] == 2).all()
    assert (edited.logits - before).abs().max() > 1e-3
    assert torch.equal(gpt2.run(tokens).logits, before)


def test_the_model_is_in_eval_mode_and_without_gradients(gpt2: BridgeModel, problem: MakeProblem) -> None:
    """GPT-2's config asks for dropout, so in training mode two runs would differ."""
    tokens = problem(gpt2).batches[0].clean
    assert torch.equal(gpt2.run(tokens).logits, gpt2.run(tokens).logits)
    assert not any(module.training for module in gpt2._bridge.original_model.modules())
    assert not any(p.requires_grad for p in gpt2._bridge.parameters())


TEXT = st.lists(st.sampled_from([*WORDS[2:], "Zoe", "café", "\u4f60"]), min_size=1, max_size=12).map(" ".join)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXT)
def test_spans_point_at_the_characters_of_their_tokens(gpt2: BridgeModel, text: str) -> None:
    tokens, spans = gpt2.tokenize(text)
    assert (tokens[0], spans[0]) == (gpt2.bos, (0, 0))
    for token, (start, stop) in zip(tokens[1:], spans[1:], strict=True):
        piece = text[start:stop]
        assert gpt2.is_unknown(token) == (piece not in WORDS)
        assert gpt2.token_string(token) == ("<unk>" if gpt2.is_unknown(token) else piece)
    assert "".join(text[a:b] for a, b in spans) == text.replace(" ", "")


def test_the_bos_token_is_in_front_unless_it_is_not_wanted(directory: Callable[[str], Path]) -> None:
    with_bos, without = (
        load_model(str(directory("tiny-gpt2")), prepend_bos=wanted).tokenize("Mary went")
        for wanted in (True, False)
    )
    assert with_bos == ([0, 2, WORDS.index("went")], [(0, 0), (0, 4), (5, 9)])
    assert without == ([2, WORDS.index("went")], [(0, 4), (5, 9)])
    with pytest.raises(PromptError, match="no tokens"):
        load_model(str(directory("tiny-gpt2")), prepend_bos=False).tokenize("")


def test_a_model_without_a_bos_token_gets_none(tmp_path: Path, directory: Callable[[str], Path]) -> None:
    from transformers import PreTrainedTokenizerFast

    copy = Path(shutil.copytree(directory("tiny-gpt2"), tmp_path / "no-bos"))
    PreTrainedTokenizerFast(tokenizer_file=str(copy / "tokenizer.json"), unk_token="<unk>").save_pretrained(
        copy
    )
    model = load_model(str(copy))
    assert model.bos is None
    assert model.tokenize("Mary went")[0] == [2, WORDS.index("went")]


def test_a_prompt_longer_than_the_context_is_refused_with_its_beginning(gpt2: BridgeModel) -> None:
    fits = " ".join(["Mary"] * (CONTEXT - 1))
    assert len(gpt2.tokenize(fits)[0]) == CONTEXT
    assert gpt2.run(torch.tensor([gpt2.tokenize(fits)[0]])).logits.isfinite().all()
    said = f"{CONTEXT + 1} tokens is longer than tiny-gpt2's context of {CONTEXT}: 'Mary Mary"
    with pytest.raises(PromptError, match=said):
        gpt2.tokenize(fits + " Mary")


def test_only_the_unknown_token_is_unknown(gpt2: BridgeModel) -> None:
    assert [word for i, word in enumerate(WORDS) if gpt2.is_unknown(i)] == ["<unk>"]


def test_a_tokenizer_of_a_larger_vocabulary_is_refused(
    tmp_path: Path, directory: Callable[[str], Path]
) -> None:
    from transformers import AutoTokenizer

    copy = Path(shutil.copytree(directory("tiny-gpt2"), tmp_path / "larger"))
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.add_tokens(["Zoe"])
    tokenizer.save_pretrained(copy)
    with pytest.raises(ModelError, match=f"gives token {len(WORDS)}; the model knows {len(WORDS)}"):
        load_model(str(copy)).tokenize("Zoe went")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama"])
def test_half_precision_loads_and_is_near_full(
    name: str, dtype: str, tiny: Tiny, directory: Callable[[str], Path], problem: MakeProblem
) -> None:
    model, tokens = load_model(str(directory(name)), dtype=dtype), problem(tiny(name)).batches[0].clean
    run = model.run(tokens, capture=[Site("z", 1)])
    assert run.logits.dtype == torch.float32
    assert run.captured[Site("z", 1)].dtype == getattr(torch, dtype) == model.dtype
    full = tiny(name).run(tokens).logits
    assert 0 < (run.logits - full).abs().max() < 0.05 * full.abs().max()


def test_a_trained_model_of_the_shared_folder_adds_up(shared: Path) -> None:
    """No random weights here: Llama with grouped queries, trained on stories."""
    directory = shared / "models" / "stories260K"
    if not directory.is_dir():
        pytest.skip(f"{directory} is absent")
    model = load_model(str(directory))
    tokens = torch.tensor([model.tokenize("Once upon a time there was a little girl named")[0]])
    found = probe(model, tokens)
    assert found.logits_gap is not None
    assert max(found.writes_gap, found.logits_gap) < 1e-5
    with torch.no_grad():
        theirs = read_model(directory)(tokens).logits[:, -1]
    torch.testing.assert_close(model.run(tokens).logits, theirs, atol=1e-4, rtol=0)
