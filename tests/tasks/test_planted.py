"""The planted circuit is what its card says: by transformers, by TransformerLens, edge by edge by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from circuits.graph import INPUT, LOGITS, Graph
from tasks.training import planted
from tasks.training.planted_card import Measure, Prompts, planted_pairs

MODEL = Path(planted.__file__).parents[2] / "circuits" / "models" / "builtin" / planted.NAME
CIRCUIT = {head for heads in planted.ROLES.values() for head in heads}
GRAPH = Graph(planted.N_LAYERS, planted.N_HEADS, planted.N_HEADS)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> Measure:
    return Measure(MODEL)


@pytest.fixture(scope="module")
def card() -> Any:
    return json.loads((MODEL / "card.json").read_text(encoding="utf-8"))


def test_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        planted.write_model(tmp_path / name, seed=0)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert sorted([*files, "README.md", "card.json"]) == sorted(path.name for path in MODEL.iterdir())
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
        if not name.endswith(".safetensors"):
            assert (tmp_path / "one" / name).read_bytes() == (MODEL / name).read_bytes(), name


def test_shipped_card_is_what_is_measured(tmp_path: Path, card: Any) -> None:
    planted.plant(tmp_path)
    assert json.loads((tmp_path / "card.json").read_text(encoding="utf-8")) == card
    # The table ends in rounding errors, which differ between machines.
    built, shipped = (
        [
            line
            for line in (folder / "README.md").read_text(encoding="utf-8").splitlines()
            if "noising |" not in line
        ]
        for folder in (tmp_path, MODEL)
    )
    assert built == shipped


def test_shipped_weights_are_those_of_seed_zero() -> None:
    shipped = load_file(MODEL / "model.safetensors")
    built = planted.weights(0, len(planted.vocabulary()))
    assert set(shipped) == set(built)
    for name, value in built.items():
        np.testing.assert_allclose(shipped[name].numpy(), value, atol=1e-4, err_msg=name)


def test_another_seed_is_another_rotation_of_the_same_model() -> None:
    one, two = (planted.features(np.random.default_rng(seed)) for seed in (0, 1))
    assert np.abs(one.name @ two.name.T).max() < 0.5
    np.testing.assert_allclose(one.name @ one.name.T, np.eye(len(one.name)), atol=1e-12)
    np.testing.assert_allclose(one.readable.mean(1), 0, atol=1e-12)


def test_directory_is_small() -> None:
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 6e6


def test_vocabulary_has_every_word_of_the_task(model: Measure) -> None:
    unknown = model.tokenizer.unk_token_id
    for form in planted.TASK.forms:
        for corruption in planted.TASK.corruptions:
            for pair in planted_pairs(300, planted.PLANTED_NAMES, form=form, corruption=corruption, seed=5):
                for text in (pair.clean, pair.corrupt, pair.negative):
                    ids = model.tokenizer(text)["input_ids"]
                    assert unknown not in ids, text
                    assert len(ids) < planted.N_CTX
    assert model.tokenizer("Zebulon")["input_ids"] == [unknown]


def test_solves_the_task_on_new_pairs(model: Measure, card: Any) -> None:
    pairs = planted_pairs(500, planted.PLANTED_NAMES, seed=11)
    assert {pair.template.split(" | ")[1] for pair in pairs} == {"ABBA", "BABA"}
    clean, _ = model.logits(model.prompts([pair.clean for pair in pairs]))
    corrupt, _ = model.logits(model.prompts([pair.corrupt for pair in pairs]))
    assert bool((clean.argmax(-1) == model.token([pair.answers for pair in pairs])).all())
    assert float(model.difference(clean, pairs).min()) > 5
    assert float(model.difference(corrupt, pairs).max()) < -5
    assert card["accuracy"]["ioi"]["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("corruption", "direction", "carrying"),
    [
        ("swap", "denoising", CIRCUIT),
        ("swap", "noising", CIRCUIT),
        ("abc", "noising", CIRCUIT),
        # The answer is not in the corrupted prompt: only what already holds it can bring it back.
        ("abc", "denoising", set(planted.ROLES["name mover"])),
    ],
)
def test_circuit_heads_carry_the_effect(
    model: Measure, corruption: str, direction: str, carrying: set[str]
) -> None:
    pairs = planted_pairs(16, planted.PLANTED_NAMES, corruption=corruption, seed=2)
    effects = model.head_effects(pairs, direction)
    assert {head for head, effect in effects.items() if effect > 0.4} == carrying
    assert max(abs(effect) for head, effect in effects.items() if head not in carrying) < 0.01


def test_transformer_lens_finds_the_same_effects(model: Measure) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    bridge: Any = TransformerBridge.boot_transformers(str(MODEL), device="cpu")
    pairs = planted_pairs(16, planted.PLANTED_NAMES, seed=2)
    clean, corrupt = (model.prompts([getattr(p, side) for p in pairs]) for side in ("clean", "corrupt"))
    assert bridge.to_tokens(pairs[0].clean)[0].tolist() == clean.tokens[0, : clean.last[0] + 1].tolist()
    rows = torch.arange(len(pairs))

    def difference(logits: Tensor) -> float:
        return float(model.difference(logits[rows, clean.last], pairs).mean())

    with torch.inference_mode():
        logits, cache = bridge.run_with_cache(clean.tokens, names_filter=lambda name: name.endswith("hook_z"))
        start = difference(bridge(corrupt.tokens))
        total, found = difference(logits) - start, {}
        for layer in range(planted.N_LAYERS):
            site = f"blocks.{layer}.attn.hook_z"
            for index in range(planted.N_HEADS):

                def patch(z: Tensor, hook: object, donor: Tensor = cache[site], index: int = index) -> Tensor:
                    z = z.clone()
                    z[:, :, index] = donor[:, :, index]
                    return z

                patched = bridge.run_with_hooks(corrupt.tokens, fwd_hooks=[(site, patch)])
                found[f"a{layer}.h{index}"] = (difference(patched) - start) / total
    assert found == pytest.approx(model.head_effects(pairs, "denoising"), abs=1e-4)


@dataclass(frozen=True)
class Patch:
    """Where `edge` enters, its source counts with what it wrote in `donor`; base: the run unpatched."""

    edge: str
    donor: dict[str, Tensor]
    base: dict[str, Tensor]


@dataclass(frozen=True)
class ByHand:
    """The forward pass spelled out, so that one edge can carry another run's write."""

    state: dict[str, Tensor]

    def writes(self, prompts: Prompts, patch: Patch | None = None) -> dict[str, Tensor]:
        """source -> what it writes [batch, pos, d_model]; `logits` -> the logits behind the last token."""
        source, _, entry = (patch.edge if patch else "").partition("->")
        reader = GRAPH.node(entry.partition("<")[0]).layer if patch else 0
        state = self.state
        wrote = {INPUT: state["transformer.wte.weight"][prompts.tokens]}
        wrote[INPUT] = wrote[INPUT] + state["transformer.wpe.weight"][: prompts.tokens.shape[1]]

        def seen_by(place: str) -> Tensor:
            residual = torch.stack(list(wrote.values())).sum(0)
            if patch and place == entry:
                residual = residual + patch.donor[source] - wrote[source]
            return torch.nn.functional.layer_norm(residual, residual.shape[-1:])

        for layer in range(planted.N_LAYERS):
            heads = [head for head in GRAPH.heads if head.startswith(f"a{layer}.")]
            if patch and layer < reader:
                wrote |= {head: patch.base[head] for head in heads}
                continue
            seen = seen_by("")
            inputs = {f"{head}<{x}>": seen for head in heads for x in "qkv"}
            if entry in inputs:
                inputs[entry] = seen_by(entry)
            wrote |= {head: self._head(head, [inputs[f"{head}<{x}>"] for x in "qkv"]) for head in heads}
        logits = seen_by(LOGITS)[torch.arange(len(prompts.last)), prompts.last] @ state["lm_head.weight"].T
        return wrote | {LOGITS: logits}

    def _head(self, head: str, seen: list[Tensor]) -> Tensor:
        node, width = GRAPH.node(head), planted.D_HEAD
        name, rows = f"transformer.h.{node.layer}.attn", slice(node.index * width, (node.index + 1) * width)
        parts = zip(
            seen,
            self.state[f"{name}.c_attn.weight"].chunk(3, dim=1),
            self.state[f"{name}.c_attn.bias"].chunk(3),
            strict=True,
        )
        q, k, v = (x @ weight[:, rows] + bias[rows] for x, weight, bias in parts)
        future = torch.ones(q.shape[1], q.shape[1]).triu(1).bool()
        pattern = (q @ k.mT / width**0.5).masked_fill(future, -torch.inf).softmax(-1)
        return pattern @ v @ self.state[f"{name}.c_proj.weight"][rows]


@pytest.fixture(scope="module")
def by_hand() -> ByHand:
    return ByHand(load_file(MODEL / "model.safetensors"))


def test_spelled_out_forward_pass_is_the_model(model: Measure, by_hand: ByHand) -> None:
    prompts = model.prompts([pair.clean for pair in planted_pairs(16, planted.PLANTED_NAMES)])
    torch.testing.assert_close(by_hand.writes(prompts)[LOGITS], model.logits(prompts)[0], atol=1e-4, rtol=0)
    mlp_weights = [value for name, value in by_hand.state.items() if ".mlp." in name]
    assert mlp_weights
    assert all(not value.any() for value in mlp_weights)


def edge_effects(model: Measure, by_hand: ByHand, corruption: str, direction: str) -> dict[str, float]:
    """Path patching of every edge that is not an MLP's (those write zero), as share of the total effect."""
    pairs = planted_pairs(6, planted.PLANTED_NAMES, corruption=corruption, seed=4)
    clean, corrupt = (model.prompts([getattr(p, side) for p in pairs]) for side in ("clean", "corrupt"))
    base, other = (clean, corrupt) if direction == "noising" else (corrupt, clean)
    assert base.tokens.shape == other.tokens.shape
    donor, start = by_hand.writes(other), by_hand.writes(base)

    def difference(writes: dict[str, Tensor]) -> float:
        return float(model.difference(writes[LOGITS], pairs).mean())

    total = difference(donor) - difference(start)
    return {
        edge: (difference(by_hand.writes(base, Patch(edge, donor, start))) - difference(start)) / total
        for edge in GRAPH.edges(GRAPH.heads)
    }


@pytest.mark.parametrize(
    ("corruption", "direction"), [("swap", "denoising"), ("swap", "noising"), ("abc", "noising")]
)
def test_named_edges_are_those_with_an_effect(
    model: Measure, by_hand: ByHand, card: Any, corruption: str, direction: str
) -> None:
    circuit = card["circuits"]["ioi"]
    named = circuit["edges"] if corruption == "swap" else circuit["other_corruptions"]["abc"]["edges"]
    effects = edge_effects(model, by_hand, corruption, direction)
    assert len(effects) == 397
    assert {edge for edge, effect in effects.items() if abs(effect) > 0.005} == set(named)
    assert min(abs(effects[edge]) for edge in named) > 0.4


def test_only_the_movers_write_to_the_answer(model: Measure, by_hand: ByHand) -> None:
    pairs = planted_pairs(16, planted.PLANTED_NAMES, seed=6)
    prompts = model.prompts([pair.clean for pair in pairs])
    wrote = by_hand.writes(prompts)
    rows, read = torch.arange(len(pairs)), by_hand.state["lm_head.weight"]
    right, wrong = model.token([p.answers for p in pairs]), model.token([p.distractors for p in pairs])
    direction = read[right] - read[wrong]
    del wrote[LOGITS]
    direct = {node: float((x[rows, prompts.last] * direction).sum(-1).mean()) for node, x in wrote.items()}
    movers = set(planted.ROLES["name mover"])
    assert min(direct[head] for head in movers) > 5
    assert max(abs(direct[node]) for node in direct if node not in movers) < 1e-4
