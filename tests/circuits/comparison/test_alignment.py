"""Alignment: a matching by hand, copies whose heads moved, models that have nothing to do with each other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from gpt2_copies import deeper, permuted
from tiny_models import CONTEXT, WORDS, prompt_pairs, randomise, write_tokenizer

from circuits.circuit import Circuit
from circuits.comparison.aligned import compare_aligned
from circuits.comparison.alignment import (
    Alignment,
    HeadProfiles,
    align,
    combined,
    effect_agreement,
    matched_without_effects,
    part_similarities,
)
from circuits.comparison.pairwise import compare
from circuits.comparison.profiles import Asked, head_profiles, readable_by_all
from circuits.comparison.sides import Side
from circuits.errors import CircuitError
from circuits.graph import Graph
from circuits.models.bridge import BridgeModel, load_model
from circuits.prompts import PromptPair
from circuits.scored_circuit import ScoredCircuit

ROOT = Path(__file__).resolve().parents[3]
ASKED = (Asked(prompt_pairs(16), "logit-difference"),)


def _profiles(
    layers: Sequence[int], roles: Sequence[Sequence[float]], effects: Sequence[Sequence[float]]
) -> HeadProfiles:
    """One row of roles and of effects a head."""
    counts = [0] * (max(layers) + 1)
    names = []
    for layer in layers:
        names.append(f"a{layer}.h{counts[layer]}")
        counts[layer] += 1
    table, values = np.array(roles, dtype=float).T, np.array(effects, dtype=float).T
    kinds = tuple(f"role {i}" for i in range(len(table)))
    return HeadProfiles(tuple(names), np.array(layers), max(layers) + 1, kinds, table, values)


# by hand


def test_a_matching_by_hand() -> None:
    """Two heads that swapped places in their layer, and a third with nobody to go with."""
    first = _profiles([0, 0], [[1, 0], [0, 0.5]], [[0.5, 0.3, 0.4], [0, 0, 0]])
    second = _profiles(
        [0, 0, 1], [[0, 0.5], [0.4, 0], [0, 0]], [[0, 0, 0], [0.5, 0.3, 0.4], [-0.5, -0.3, -0.4]]
    )
    found = align(first, second)
    assert found.matched == (("a0.h0", "a0.h1"), ("a0.h1", "a0.h0"))
    assert (found.unmatched_first, found.unmatched_second) == ((), ("a1.h0",))
    mover, idle = found.pairs
    assert (mover.roles, mover.effects, mover.depth) == pytest.approx((0.4, 1.0, 1.0))
    assert mover.correlation == pytest.approx(1.0)
    assert mover.similarity == pytest.approx(0.8)
    # Of a0.h0's other partners a0.h0 is the more alike: roles 1 - sqrt(1.25) < 0, effects nearly 0, one depth.
    nearly = 0.01**2 / (0.5 / 3 + 0.01**2)
    assert mover.margin == pytest.approx(
        0.8 - max((nearly + 1) / 3, (1 - np.hypot(0.4, 0.5) + nearly + 1) / 3)
    )
    assert (idle.roles, idle.effects, idle.depth, idle.correlation) == (1.0, 1.0, 1.0, None)
    assert found.similarity == pytest.approx((mover.similarity + idle.similarity) / 2)


def test_effects_agree_as_sizes_prompts_and_signs_do() -> None:
    x = np.array([[0.2, 0.4, 0.6]]).T
    assert effect_agreement(x, x).item() == pytest.approx(1.0)
    assert effect_agreement(x, -x).item() == pytest.approx(-1.0, abs=2e-3)
    assert effect_agreement(x, x / 2).item() == pytest.approx(2 * 0.5 / 1.25, abs=1e-3)
    assert effect_agreement(x, x[::-1]).item() < 0.95
    assert effect_agreement(0 * x, 0 * x).item() == 1.0
    assert effect_agreement(0.003 * x, -0.003 * x).item() > 0.9  # both do nothing to speak of
    weighted = effect_agreement(x, x[::-1], np.array([0.0, 1.0, 0.0]))
    assert weighted.item() == pytest.approx(1.0)


def test_no_other_matching_is_more_alike() -> None:
    rng = np.random.default_rng(0)
    first = _profiles([0, 0, 1], rng.random((3, 2)), rng.normal(size=(3, 6)))
    second = _profiles([0, 0, 1, 1, 2], rng.random((5, 2)), rng.normal(size=(5, 6)))
    whole = combined(part_similarities(first, second))
    best = max(np.mean([whole[i, j] for i, j in enumerate(order)]) for order in permutations(range(5), 3))
    assert align(first, second).similarity == pytest.approx(best)
    turned = align(second, first)
    assert turned.similarity == pytest.approx(best)
    assert sorted((b, a) for a, b in turned.matched) == sorted(align(first, second).matched)
    assert len(turned.unmatched_first) == 2


def test_one_seed_one_answer_and_roles_that_one_model_lacks_are_left_out() -> None:
    rng = np.random.default_rng(0)
    first = _profiles([0, 0, 1, 1], rng.random((4, 2)), rng.normal(size=(4, 6)))
    second = replace(first, roles=("role 1", "another"), role_scores=first.role_scores[::-1])
    found = align(first, second, 3)
    assert found == align(first, second, 3)
    assert found.roles == ("role 1",)
    with pytest.raises(CircuitError, match="No role"):
        align(first, replace(first, roles=("one", "other")))
    with pytest.raises(CircuitError, match="6 and on 5 prompts"):
        align(first, replace(first, effects=first.effects[1:]))


# planted truth


def _profiles_of(directory: Path) -> HeadProfiles:
    return head_profiles(load_model(str(directory)), ASKED)


def _planted(found: Alignment, image: dict[str, str]) -> None:
    assert dict(found.matched) == image
    assert found.similarity == pytest.approx(1.0, abs=1e-3)
    assert found.p_value == 1 / 500
    assert found.chance < found.high < 0.99
    assert found.sure == len(image)
    assert min(pair.margin for pair in found.pairs) > 0


def test_a_copy_with_permuted_heads_aligns_perfectly(
    directory: Callable[[str], Path], tmp_path: Path
) -> None:
    source = directory("tiny-gpt2")
    image = permuted(source, tmp_path / "copy", seed=3)
    assert any(a != b for a, b in image.items())
    _planted(align(_profiles_of(source), _profiles_of(tmp_path / "copy")), image)


def test_a_copy_with_a_layer_more_aligns_perfectly_and_leaves_that_layer_out(
    directory: Callable[[str], Path], tmp_path: Path
) -> None:
    source = directory("tiny-gpt2")
    between = permuted(source, tmp_path / "permuted", seed=1)
    moved = deeper(tmp_path / "permuted", tmp_path / "copy", behind=1)
    found = align(_profiles_of(source), _profiles_of(tmp_path / "copy"))
    assert dict(found.matched) == {head: moved[other] for head, other in between.items()}
    assert {head[:2] for head in found.unmatched_second} == {"a2"}
    assert len(found.unmatched_second) == 4
    assert [pair.effects for pair in found.pairs] == pytest.approx([1.0] * 12, abs=1e-3)
    assert found.p_value == 1 / 500


def _random_model(path: Path, seed: int) -> HeadProfiles:
    """Of 3 layers x 4 heads, or 4 x 8, in turn."""
    from transformers import GPT2Config, GPT2LMHeadModel

    layers, heads = ((3, 4), (4, 8))[seed % 2]
    config = GPT2Config(
        vocab_size=len(WORDS),
        n_positions=CONTEXT,
        n_embd=32,
        n_layer=layers,
        n_head=heads,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    model = GPT2LMHeadModel(config).eval()
    randomise(model, 100 + seed)
    model.save_pretrained(path)
    write_tokenizer(path)
    return _profiles_of(path)


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> list[HeadProfiles]:
    root = tmp_path_factory.mktemp("strangers")
    return [_random_model(root / str(seed), seed) for seed in range(6)]


def test_independent_models_align_no_better_than_chance(strangers: list[HeadProfiles]) -> None:
    """Over all pairs p is about uniform; the 780 pairs of 40 models gave shares of 0.05, 0.11, 0.21, 0.54 at or below
    0.05, 0.1, 0.2, 0.5."""
    found = [align(a, b, i) for i, a in enumerate(strangers) for b in strangers[i + 1 :]]
    p = np.array([one.p_value for one in found])
    assert (p <= 0.05).mean() <= 0.15
    assert 0.35 < p.mean() < 0.65
    assert np.mean([one.similarity - one.chance for one in found]) < 0.01


# circuits through an alignment


def _side(name: str, graph: Graph, nodes: Sequence[str]) -> Side:
    rng = np.random.default_rng(len(name))
    scores = {c: (float(rng.random()) + (c in nodes), 0.1) for c in graph.components}
    kept = Circuit(tuple(c for c in graph.components if c in nodes), "made", "by hand")
    return Side(name, ScoredCircuit(graph, kept, scores, model=name), "ioi", 1, {})


def test_circuits_of_a_permuted_copy_compare_as_by_name(
    directory: Callable[[str], Path], tmp_path: Path
) -> None:
    source, graph = directory("tiny-gpt2"), Graph(3, 4, 4)
    image = permuted(source, tmp_path / "copy", seed=5)
    first, second = ("a0.h1", "a1.h2", "a2.h0", "m1"), ("a1.h2", "a2.h0", "a2.h3", "m0")
    there = _side("there", graph, [image.get(node, node) for node in second])
    here, same = _side("here", graph, first), _side("same", graph, second)
    found = compare_aligned((here, there), (_profiles_of(source), _profiles_of(tmp_path / "copy")))
    (named,) = compare([here, same], "node")
    heads = {f"{head}~{image[head]}" for head in named.shared if head in image}
    assert set(found.heads.shared) == heads == {f"{h}~{image[h]}" for h in ("a1.h2", "a2.h0")}
    assert found.heads.only_first == (f"a0.h1~{image['a0.h1']}",)
    assert found.heads.only_second == (f"a2.h3~{image['a2.h3']}",)
    assert (found.heads.overlap.jaccard, found.heads.overlap.universe) == (0.5, 12)
    assert found.without_effects.shared == found.heads.shared
    assert (found.alone_first, found.alone_second) == ((), ())
    # MLPs are in strata of their own by name, so that heads have the same chance either way.
    only_heads = [_side(side.name, graph, side.scored.circuit.heads) for side in (here, same)]
    (plain,) = compare(only_heads, "node")
    assert found.heads.within == plain.within


def test_heads_without_a_partner_are_said(directory: Callable[[str], Path], tmp_path: Path) -> None:
    source = directory("tiny-gpt2")
    deeper(source, tmp_path / "copy", behind=0)
    sides = (
        _side("here", Graph(3, 4, 4), ("a0.h0",)),
        _side("there", Graph(4, 4, 4), ("a0.h0", "a1.h2", "m2")),
    )
    found = compare_aligned(sides, (_profiles_of(source), _profiles_of(tmp_path / "copy")))
    assert found.heads.shared == ("a0.h0~a0.h0",)
    assert found.alone_second == ("a1.h2",)


def test_without_effects_the_task_is_not_looked_at(strangers: list[HeadProfiles]) -> None:
    first, second = strangers[:2]
    other = replace(second, effects=second.effects[:, ::-1])
    assert matched_without_effects(first, second) == matched_without_effects(first, other)
    assert align(first, second).matched != align(first, other).matched


# prompts that both can read


def test_prompts_are_those_that_every_model_reads_each_once(
    gpt2: BridgeModel, tiny: Callable[[str], BridgeModel]
) -> None:
    pairs = prompt_pairs(12)
    strange = PromptPair("When Mary and Bilbo went to", "When Mary and Ann went to", (" the",), (" a",))
    sets = (Asked((*pairs, strange), "logit-difference"), Asked(pairs[:5], "logit-difference"))
    (kept,) = readable_by_all((gpt2, tiny("tiny-llama")), sets)
    assert kept.pairs == pairs
    with pytest.raises(CircuitError, match="7 of 8 prompts can be read by both"):
        readable_by_all((gpt2, gpt2), [Asked((*pairs[:7], strange), "logit-difference")])


def test_effects_are_shares_of_the_whole_difference(gpt2: BridgeModel) -> None:
    """Sets go one behind the other, each with a whole of its own, so that only the unit differs."""
    once = head_profiles(gpt2, ASKED)
    (asked,) = ASKED
    halves = (Asked(asked.pairs[:8], asked.metric), Asked(asked.pairs[8:], asked.metric))
    twice = head_profiles(gpt2, halves)
    assert once.effects.shape == twice.effects.shape == (16, 12)
    ratio = twice.effects[:8] / once.effects[:8]
    assert ratio == pytest.approx(np.full(ratio.shape, np.nanmedian(ratio)), rel=1e-3)
    assert once.role_scores == pytest.approx(twice.role_scores)
    assert once.depth.tolist() == [0.0] * 4 + [0.5] * 4 + [1.0] * 4


def test_no_torch_is_loaded_by_what_needs_none() -> None:
    code = (
        "import sys, circuits.comparison.aligned, circuits.comparison.pairwise, circuits.comparison.gates\n"
        "sys.exit(', '.join({'torch', 'transformers', 'sklearn'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
