"""The bridge: tokens, spans and logits are those of the plain model and tokenizer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import CONTEXT, FAMILIES, WORDS, Hooked, read_model

from circuits.donors import component_sites
from circuits.errors import ModelError, PromptError
from circuits.methods.method import Problem
from circuits.model import Model, Site
from circuits.models.bridge import BridgeModel, load_model
from circuits.models.source import ModelSource
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


MIXED = {"tiny-olmo2"}
"""Families of which TransformerLens 4.3 computes a part in 32 bits whatever the dtype, and then fails."""


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
@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - MIXED))
def test_half_precision_loads_and_is_near_full(
    name: str, dtype: str, tiny: Tiny, directory: Callable[[str], Path], problem: MakeProblem
) -> None:
    model, tokens = load_model(str(directory(name)), dtype=dtype), problem(tiny(name)).batches[0].clean
    run = model.run(tokens, capture=[Site("z", 1)])
    assert run.logits.dtype == torch.float32
    assert run.captured[Site("z", 1)].dtype == getattr(torch, dtype) == model.dtype
    full = tiny(name).run(tokens).logits
    assert 0 < (run.logits - full).abs().max() < 0.05 * full.abs().max()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", sorted(MIXED))
def test_a_family_that_cannot_run_in_half_precision_is_refused_as_it_is_loaded(
    name: str, dtype: str, directory: Callable[[str], Path]
) -> None:
    with pytest.raises(ModelError, match=rf"cannot run {name} in {dtype} \(.*\)\. Use --dtype float32\."):
        load_model(str(directory(name)), dtype=dtype)


def _spread_over_disk(directory: Path, folder: Path) -> BridgeModel:
    """Layer 1 on disk, the rest on the CPU: the one way to spread a model that a machine without cards has."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoTokenizer

    parts = ("wte", "wpe", "drop", "h.0", "h.1", "h.2", "ln_f")
    places = {f"transformer.{part}": "disk" if part == "h.1" else "cpu" for part in parts}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bridge = TransformerBridge.boot_transformers(
            str(directory), device_map=places | {"lm_head": "cpu"}, offload_folder=str(folder)
        )
    bridge.eval().requires_grad_(False)
    return BridgeModel(ModelSource("spread", directory), bridge, AutoTokenizer.from_pretrained(directory))


def test_a_model_spread_over_cpu_and_disk_gives_the_same_runs(
    directory: Callable[[str], Path], tmp_path: Path, gpt2: BridgeModel, problem: MakeProblem
) -> None:
    spread = _spread_over_disk(directory("tiny-gpt2"), tmp_path)
    assert spread.spread
    assert not gpt2.spread
    assert (spread.device, gpt2.devices) == (torch.device("cpu"), (torch.device("cpu"),))
    (batch, *_), sites = problem(gpt2).batches, component_sites(gpt2.graph)
    donor = gpt2.run(batch.corrupt, capture=[Site("z", 1)]).captured[Site("z", 1)]
    for edit in ({}, {Site("z", 1): lambda z: donor}):
        ours, theirs = (model.run(batch.clean, capture=sites, edit=edit) for model in (spread, gpt2))
        torch.testing.assert_close(ours.logits, theirs.logits)
        for site in sites:
            torch.testing.assert_close(ours.captured[site], theirs.captured[site])


@pytest.mark.slow
def test_on_two_cards_nothing_meets_across_them(directory: Callable[[str], Path]) -> None:
    """Tied and untied, with and without rotary positions; no values, see two_cards.py."""
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            tests / "two_cards.py",
            directory("tiny-gpt2"),
            directory("tiny-llama"),
        ],
        env={**os.environ, "PYTHONPATH": str(tests.parent)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["ok", "ok"]), done.stderr[-2000:]


def test_a_model_for_several_cards_is_left_to_the_bridges_device_map(
    directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the bridge is asked for; that it then fills the cards evenly is accelerate's part, and not tested."""
    from transformer_lens.model_bridge import TransformerBridge

    boot, asked = TransformerBridge.boot_transformers, {}

    def stand_in(*place: object, device_map: object, max_memory: object, **settings: object) -> object:
        asked.update(device_map=device_map, max_memory=max_memory)
        return boot(*place, device="cpu", **settings)

    cards = (torch.device("cpu", 0), torch.device("cpu", 1))
    monkeypatch.setattr(TransformerBridge, "boot_transformers", stand_in)
    monkeypatch.setattr("circuits.devices.accelerators", lambda: cards)
    monkeypatch.setattr("circuits.devices.free_bytes", lambda card: 10**6 * (1 + card.index))
    load_model(str(directory("tiny-gpt2")), device="balanced")
    assert asked == {"device_map": "balanced", "max_memory": {0: 800_000, 1: 1_600_000}}


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_weights_that_do_not_fit_are_said_to_be_too_large(
    error: Exception, directory: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", full)
    with pytest.raises(ModelError, match=r"does not fit in the memory of cpu.*--dtype bfloat16"):
        load_model(str(directory("tiny-gpt2")))


def test_a_run_keeps_no_keys_and_values(gpt2: BridgeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody goes on from a run, so a cache for that would be memory for nothing."""

    def trap(*_: object, **__: object) -> None:
        raise AssertionError("a key-value cache")

    monkeypatch.setattr("transformers.cache_utils.DynamicCache.update", trap)
    assert gpt2.run(torch.tensor([[2, 3, 4]])).logits.isfinite().all()


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
