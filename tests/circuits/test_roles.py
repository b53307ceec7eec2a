"""Roles of heads: planted ones come first, figures are those of transformers' own attention, chance is chance."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from role_network import RoleModel, role_evidence
from scipy import stats
from tiny_models import COVERED, prompt_pairs
from torch import Tensor

from circuits.batches import make_batches
from circuits.engine.forward import steps
from circuits.errors import CircuitError, ModelError
from circuits.models.bridge import BridgeModel, load_model
from circuits.prompts import PromptPair
from circuits.roles import ROLES
from circuits.roles.role import Evidence, Measured, RoleScores, score
from circuits.roles.successor import ordered_classes
from circuits.roles.writes import written

Tiny = Callable[[str], BridgeModel]
FROM_ATTENTION = ("previous-token", "duplicate-token", "induction", "s-inhibition")
BY_HAND = {
    "previous-token": "a0.h0",
    "duplicate-token": "a0.h1",
    "s-inhibition": "a0.h3",
    "content-gatherer": "a0.h3",
    "induction": "a1.h0",
    "copying": "a1.h1",
    "successor": "a1.h2",
    "negative-mover": "a1.h3",
}


def scored(name: str, evidence: Evidence) -> RoleScores:
    found = score(ROLES.load(name), evidence)
    assert found is not None
    return found


def first(found: RoleScores, n: int = 1) -> list[str]:
    return [found.scores.components[place] for place in found.top(n)]


@pytest.fixture(scope="module")
def planted() -> Evidence:
    from cli.prompt_source import sample_task
    from tasks import TASKS

    model = load_model("planted-ioi")
    drawn = sample_task(model, TASKS.load("ioi"), form=None, corruption=None, n=32, seed=0)
    return Evidence(model, make_batches(model, drawn.pairs), "ioi")


def tiny_evidence(model: BridgeModel) -> Evidence:
    return Evidence(model, make_batches(model, prompt_pairs(8)), "tiny", seed=3)


@pytest.mark.parametrize("name", ROLES.names())
def test_a_role_says_what_it_is(name: str) -> None:
    role = ROLES.load(name)
    module = importlib.import_module(f"circuits.roles.{name.replace('-', '_')}")
    assert role.name == name
    assert role.definition
    assert "Score" in str(module.__doc__)
    assert "Source" in str(module.__doc__)


@pytest.mark.parametrize(("name", "head"), BY_HAND.items())
def test_a_head_that_has_the_role_by_hand_scores_one_and_no_other_comes_near(name: str, head: str) -> None:
    found = scored(name, role_evidence())
    assert first(found) == [head]
    assert found.scores.of(head) == pytest.approx(1, abs=1e-6)
    others = [v for c, v in zip(found.scores.components, found.scores.values, strict=True) if c != head]
    assert max(others) < 0.45
    assert found.p_values[found.top(1)[0]] < 0.01


def test_a_head_that_looks_evenly_scores_the_chance_level_of_attention() -> None:
    evidence = role_evidence()
    for name in (*FROM_ATTENTION, "content-gatherer"):
        found = scored(name, evidence)
        assert found.scores.of("a0.h2") == pytest.approx(found.chance, abs=1e-6)
        assert found.p_values[2] > 0.05
    # Moving takes both: it looks evenly, and what it finds is raised in every prompt.
    mover = scored("name-mover", evidence)
    assert mover.scores.of("a1.h1") == pytest.approx(scored("s-inhibition", evidence).chance)
    assert mover.chance == pytest.approx(mover.scores.of("a1.h1") * 5 / 28)


def test_the_planted_roles_of_ioi_come_first(planted: Evidence) -> None:
    expected = {
        "name-mover": {"a2.h1", "a2.h3"},
        "copying": {"a2.h1", "a2.h3"},
        "s-inhibition": {"a1.h4"},
        "previous-token": {"a0.h0", "a1.h5"},
        # Two decoys find duplicates as a0.h2 does; what they write is never read.
        "duplicate-token": {"a0.h2", "a0.h4", "a1.h1"},
    }
    for name, heads in expected.items():
        found = scored(name, planted)
        assert set(first(found, len(heads))) == heads, name
        values = np.sort(found.scores.values)[::-1]
        assert values[len(heads) - 1] > 2 * values[len(heads)], name


def test_heads_that_write_where_nothing_reads_neither_copy_nor_lower(planted: Evidence) -> None:
    """Their logits are rounding errors, which have ranks too."""
    for name, others in (("copying", 16), ("name-mover", 16), ("negative-mover", 18)):
        assert (scored(name, planted).scores.values == 0).sum() == others, name


def test_planted_ioi_has_no_words_in_order(planted: Evidence) -> None:
    assert score(ROLES.load("successor"), planted) is None
    assert ordered_classes(planted.model) == ()


# Two routes to one number


def _attentions(model: Any, tokens: Tensor) -> Tensor:
    """[prompt, head of any layer, query, source] as transformers says."""
    with torch.no_grad():
        return torch.cat(model(tokens, output_attentions=True).attentions, 1).double()


def _plainly(name: str, attend: Callable[[Tensor], Tensor], evidence: Evidence) -> np.ndarray:
    """A role by loops over its definition."""
    if name == "s-inhibition":
        rows: list[list[float]] = []
        for batch in evidence.batches:
            patterns = attend(batch.clean)
            for p, pair in zip(patterns, batch.pairs, strict=True):
                rows.append([float(p[h, -1, pair.positions["S2"]]) for h in range(len(p))])
        return np.mean(rows, 0)
    tokens, bos = evidence.repeated, 1
    period = (tokens.shape[1] - bos) // 2
    back = {"duplicate-token": period, "induction": period - 1, "previous-token": 1}[name]
    start = bos + 1 if name == "previous-token" else bos + period
    pattern = attend(tokens)
    looks = [pattern[:, :, i, i - back] for i in range(start, tokens.shape[1])]
    return torch.stack(looks).mean((0, 1)).numpy()


@pytest.mark.parametrize("family", COVERED)
def test_attention_is_that_of_transformers(family: str, tiny: Tiny, directory: Callable[[str], Path]) -> None:
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(directory(family), attn_implementation="eager").eval()
    evidence = tiny_evidence(tiny(family))
    for name in FROM_ATTENTION:
        expected = _plainly(name, lambda tokens: _attentions(plain, tokens), evidence)
        assert scored(name, evidence).scores.values == pytest.approx(expected, abs=1e-5), (family, name)


def _ov_of_gpt2(plain: Any, layer: int, head: int, x: Tensor) -> Tensor:
    """Logits that a head adds for the stream x, by the modules of transformers; biases left out."""
    block, d = plain.transformer.h[layer], x.shape[-1]
    size = d // plain.config.n_head
    part = slice(head * size, (head + 1) * size)
    normed = (x - x.mean()) / (x.var(unbiased=False) + block.ln_1.eps).sqrt() * block.ln_1.weight
    write = (normed @ block.attn.c_attn.weight[:, 2 * d :][:, part]) @ block.attn.c_proj.weight[part]
    return ((write - write.mean()) * plain.transformer.ln_f.weight) @ plain.lm_head.weight.T


def test_copying_is_what_the_modules_of_transformers_give(tiny: Tiny, plain: Callable[[str], Any]) -> None:
    model, evidence = plain("tiny-gpt2").model, tiny_evidence(tiny("tiny-gpt2"))
    block = model.transformer.h[0]
    expected = np.zeros(12)
    with torch.no_grad():
        for token in evidence.tokens.tolist():
            embedded = model.transformer.wte.weight[token]
            above = embedded + block.mlp(block.ln_2(embedded))
            for place in range(12):
                x = above if place >= 4 else embedded
                logits = _ov_of_gpt2(model, place // 4, place % 4, x)
                expected[place] += token in logits.topk(5).indices and logits[token] > logits.mean()
    found = scored("copying", evidence)
    assert found.scores.values == pytest.approx(expected / len(evidence.tokens))
    assert 0 < expected.sum() < 12 * len(evidence.tokens)


def test_movers_are_attention_times_copying_by_transformers(
    tiny: Tiny, plain: Callable[[str], Any], directory: Callable[[str], Path]
) -> None:
    from transformers import AutoModelForCausalLM

    eager = AutoModelForCausalLM.from_pretrained(directory("tiny-gpt2"), attn_implementation="eager").eval()
    model = tiny("tiny-gpt2")
    pairs = tuple(_with_names(pair) for pair in prompt_pairs(8))
    evidence = Evidence(model, make_batches(model, pairs), "tiny")
    sums = {"name-mover": np.zeros(12), "negative-mover": np.zeros(12)}
    with torch.no_grad():
        for batch in evidence.batches:
            out = eager(batch.clean, output_attentions=True, output_hidden_states=True)
            for row, pair in enumerate(batch.pairs):
                for place in range(12):
                    layer, head = divmod(place, 4)
                    for name in ("IO", "S1", "S2"):
                        at = pair.positions[name]
                        logits = _ov_of_gpt2(eager, layer, head, out.hidden_states[layer][row, at])
                        token, paid = pair.clean[at], float(out.attentions[layer][row, head, -1, at])
                        if token in (-logits).topk(5).indices:
                            sums["negative-mover"][place] += paid
                        if name == "IO" and token in logits.topk(5).indices:
                            sums["name-mover"][place] += paid
    for name, expected in sums.items():
        assert scored(name, evidence).scores.values == pytest.approx(expected / 8, abs=1e-5)
        assert expected.max() > 0


def test_what_heads_write_alone_adds_up_to_what_attention_writes(covered: str, tiny: Tiny) -> None:
    """Of one token's prompts, whose heads can attend to that alone; between two tokens biases cancel."""
    weights = tiny(covered).weights
    assert weights is not None
    for depth, step in enumerate(steps(weights, weights.embed(torch.arange(2, 12)[:, None]))):
        wrote = (step.between - step.before)[:, 0]
        by_head = written(weights, depth, step.before[:, 0]).sum(0)
        assert torch.allclose(by_head - by_head[0], wrote - wrote[0], atol=1e-5)
        assert by_head.std(0).max() > 1e-3


def test_embeddings_have_no_positions(covered: str, tiny: Tiny) -> None:
    weights = tiny(covered).weights
    assert weights is not None
    tokens = torch.arange(2, 12)
    there = weights.embed(tokens[None])[0]
    place = 0 if weights.positions is None else weights.positions[:10]
    assert torch.allclose(weights.token_embedding(tokens) + place, there, atol=1e-6)
    assert (weights.positions is None) == (covered != "tiny-gpt2")


def _with_names(pair: PromptPair) -> PromptPair:
    from dataclasses import replace

    io, s = pair.answers[0].strip(), pair.distractors[0].strip()
    one, two = pair.clean.index(io), pair.clean.index(s)
    positions = {"IO": (one, one + len(io)), "S1": (two, two + len(s)), "S2": pair.positions["S2"]}
    return replace(pair, positions=positions)


# Chance


def test_heads_of_random_models_score_near_chance(tiny: Tiny) -> None:
    for family in ("tiny-gpt2", "tiny-llama", "tiny-neox"):
        evidence = tiny_evidence(tiny(family))
        for name in (*FROM_ATTENTION, "copying"):
            found = scored(name, evidence)
            assert found.scores.values.mean() == pytest.approx(found.chance, abs=0.1), (family, name)


def test_a_random_map_succeeds_by_chance() -> None:
    """The matrices of a1.h2 replaced by noise; its class has 26 letters."""
    evidence = role_evidence()
    layer = evidence.weights.layers[1]
    layer.out.weight.copy_(torch.randn(layer.out.weight.shape, generator=torch.Generator().manual_seed(0)))
    found = scored("successor", evidence)
    assert found.chance == pytest.approx(1 / 26)
    assert found.scores.of("a1.h2") < 0.2
    assert found.p_values[6] > 0.05


def test_p_values_are_exact_where_draws_are_counted_and_students_elsewhere() -> None:
    model = RoleModel()
    rng = np.random.default_rng(0)

    def judged(samples: np.ndarray, chance: float, counts: bool) -> np.ndarray:
        measured = Measured(torch.tensor(samples), "token", chance, counts)
        role = ROLES.load("copying")
        found = score(type(role)("made", "made", "none", lambda evidence: measured), Evidence(model))
        assert found is not None
        return found.p_values

    hits = (rng.random((40, 8)) < [0.2, 0.2, 0.2, 0.2, 0.2, 0.9, 0.3, 0.0]).astype(float)
    raw = [stats.binomtest(int(h), 40, 0.2, alternative="greater").pvalue for h in hits.sum(0)]
    assert judged(hits, 0.2, True).min() == pytest.approx(8 * min(raw))
    shares = rng.random((40, 8)) / 4
    shares[:, 3] += 0.1
    raw = stats.ttest_1samp(shares, 0.125, alternative="greater").pvalue.tolist()
    assert judged(shares, 0.125, False).min() == pytest.approx(8 * min(raw), rel=1e-6)


# Seeds and mistakes


def test_the_seed_draws_the_tokens_and_nothing_else_does(tiny: Tiny) -> None:
    one, same, other = (Evidence(tiny("tiny-gpt2"), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.repeated, same.repeated)
    assert not torch.equal(one.repeated, other.repeated)
    a, b = (scored("induction", evidence).scores.samples for evidence in (one, same))
    assert a.tobytes() == b.tobytes()


def test_random_tokens_are_text_and_none_stands_twice_before_the_repeat(tiny: Tiny) -> None:
    evidence = Evidence(tiny("tiny-gpt2"))
    assert not {0, 1} & set(evidence.tokens.tolist())
    (bos, *block), period = evidence.repeated[0].tolist(), evidence.period
    assert bos == 0
    assert block[:period] == block[period:]
    assert len(set(block)) == period
    assert len(block) + 1 <= evidence.weights.longest


def test_what_prompts_lack_is_named(tiny: Tiny) -> None:
    evidence = tiny_evidence(tiny("tiny-gpt2"))
    with pytest.raises(
        CircuitError, match="name-mover needs prompts that name IO or RIGHT; those of tiny name"
    ):
        score(ROLES.load("name-mover"), evidence)
    with pytest.raises(CircuitError, match="no task is given"):
        score(ROLES.load("s-inhibition"), Evidence(tiny("tiny-gpt2")))


def test_a_model_that_the_engine_does_not_serve_is_named(tiny: Tiny) -> None:
    with pytest.raises(ModelError, match="does not serve tiny-phi here"):
        score(ROLES.load("induction"), Evidence(tiny("tiny-phi")))


def test_words_in_order_are_found_once_each() -> None:
    (letters,) = ordered_classes(RoleModel())
    assert letters.tokens == tuple(range(1, 27))
    assert letters.pairs == tuple((i, i + 1) for i in range(25))
