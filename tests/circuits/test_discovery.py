"""Discovery: what is found on one half of the prompts is judged on the other, and nothing leaks across."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from tiny_models import prompt_pairs

from circuits.circuit import Circuit
from circuits.discovery import Plan, discover, match
from circuits.errors import PromptError, UnknownNameError
from circuits.evaluation.faithfulness import Baseline
from circuits.methods import METHODS
from circuits.methods.method import Method, Options, Problem
from circuits.model import Model
from circuits.models.bridge import BridgeModel
from circuits.scores import Scores
from circuits.selection import Selection

PAIRS = prompt_pairs(12)


@dataclass
class Recorder:
    """A method that notes what it is shown, and scores by a fixed random table."""

    problems: list[Problem] = field(default_factory=list)

    def method(self, name: str = "recorder") -> Method:
        return Method(name, "", "", Options, self.score)

    def score(self, model: Model, problem: Problem, options: Options) -> Scores:
        self.problems.append(problem)
        samples = np.random.default_rng(0).standard_normal((6, len(model.graph.components)))
        return Scores("recorder", model.graph.components, samples)

    @property
    def seen(self) -> set[tuple[int, ...]]:
        return {p.clean for problem in self.problems for batch in problem.batches for p in batch.pairs}


def _plan(*methods: Method, **settings: Any) -> Plan:
    defaults = {"selection": Selection(rule="top", n=4), "n_random": 3, "seed": 5}
    return Plan(tuple((m, m.configure({})) for m in methods), **(defaults | settings))


@pytest.mark.parametrize("batch_size", [2, 64])
def test_methods_see_the_discovery_half_and_nothing_else(gpt2: BridgeModel, batch_size: int) -> None:
    recorder = Recorder()
    found = discover(gpt2, PAIRS, _plan(recorder.method(), batch_size=batch_size))

    def tokens(half: tuple[int, ...]) -> set[tuple[int, ...]]:
        return {tuple(gpt2.tokenize(PAIRS[i].clean)[0]) for i in half}

    assert recorder.seen == tokens(found.halves.discovery)
    assert not recorder.seen & tokens(found.halves.judged)
    assert found.findings[0].verdicts[0].n_prompts == len(found.halves.judged) == 6


def test_verdicts_are_of_the_judged_half(gpt2: BridgeModel) -> None:
    """Judged prompts by hand: everything kept is the model's own metric on exactly those."""
    found = discover(gpt2, PAIRS, _plan(Recorder().method()))
    values = []
    for i in found.halves.judged:
        tokens, answer = gpt2.tokenize(PAIRS[i].clean)[0], PAIRS[i].answers[0] + PAIRS[i].distractors[0]
        logits = gpt2.run(_row(tokens)).logits[0]
        right, wrong = gpt2.tokenize(answer)[0][1:]
        values.append(float(logits[right] - logits[wrong]))
    (finding,) = found.findings
    assert [v.ablation for v in finding.verdicts] == ["resample", "mean"]
    for verdict in finding.verdicts:
        assert verdict.everything == pytest.approx(np.mean(values), abs=1e-4)
    assert found.baseline.metric_clean.value == pytest.approx(np.mean(values), abs=1e-4)


def _row(tokens: list[int]):
    import torch

    return torch.tensor([tokens])


def test_the_judged_half_changes_no_score_and_no_choice(gpt2: BridgeModel) -> None:
    """Other prompts to judge on: the same scores and circuits, other verdicts."""
    patching = METHODS.load("activation-patching")
    plan = _plan(patching, selection=Selection(target=0.5))
    first = discover(gpt2, PAIRS, plan)
    texts = {pair.clean for pair in PAIRS}
    others = {t: [p for p in prompt_pairs(30) if p.template == t and p.clean not in texts] for t in "01"}
    swapped = tuple(
        others[pair.template].pop() if i in first.halves.judged else pair for i, pair in enumerate(PAIRS)
    )
    second = discover(gpt2, swapped, plan)
    (a,), (b,) = first.findings, second.findings
    assert np.array_equal(a.scores.samples, b.scores.samples)
    assert a.choice == b.choice
    assert a.verdicts[0] != b.verdicts[0]


def test_the_smallest_rule_reads_faithfulness_off_the_discovery_half(gpt2: BridgeModel) -> None:
    from circuits.batches import make_batches
    from circuits.evaluation.faithfulness import bench
    from circuits.metrics import logit_difference

    found = discover(
        gpt2, PAIRS, _plan(Recorder().method(), selection=Selection(rule="smallest", target=100))
    )
    (finding,) = found.findings
    batches = make_batches(gpt2, [PAIRS[i] for i in found.halves.discovery])
    at = bench(gpt2, batches, logit_difference, "resample", played=gpt2.graph.components, means_from=batches)
    ranking = finding.scores.ranking()
    expected = at.faithfulness([ranking[:n] for n in range(1, 7)])
    np.testing.assert_allclose(finding.choice.curve, expected, atol=1e-4)
    assert finding.circuit.nodes == tuple(
        c for c in gpt2.graph.components if c in ranking[: int(np.argmax(expected)) + 1]
    )


def test_the_baseline_is_told_before_any_method_runs(gpt2: BridgeModel) -> None:
    recorder, told = Recorder(), list[tuple[Baseline, int]]()
    found = discover(
        gpt2, PAIRS, _plan(recorder.method()), on_baseline=lambda b: told.append((b, len(recorder.problems)))
    )
    assert told == [(found.baseline, 0)]


def test_references_reach_methods_and_matches(gpt2: BridgeModel) -> None:
    recorder, references = Recorder(), {"known": frozenset({"a0.h0", "a1.h1"})}
    found = discover(gpt2, PAIRS, _plan(recorder.method(), references=references))
    assert recorder.problems[0].references == references
    (matched,) = found.findings[0].matches
    assert matched == match(found.findings[0].scores, found.findings[0].circuit, "known", references["known"])


def test_a_match_by_hand() -> None:
    components = ("a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1")
    scores = Scores("x", components, np.array([[-5.0, 1.0, 9.0, 3.0, 0.5, 9.0]]))
    circuit = Circuit(("a0.h0", "m0", "a1.h0"), "x", "")
    found = match(scores, circuit, "known", frozenset({"a0.h0", "a0.h1", "a7.h7"}))
    # Of four heads two are known: sizes 5 and 1 against 3 and 0.5 give three right orders of four.
    assert found.auroc == 0.75
    assert (found.precision, found.recall, found.f1) == (0.5, 0.5, 0.5)
    assert found.balanced_harmonic_score == 0.5


def test_the_same_plan_gives_the_same_findings(gpt2: BridgeModel) -> None:
    methods = [METHODS.load(name) for name in ("activation-patching", "logit-attribution")]
    first, second = (discover(gpt2, PAIRS, _plan(*methods)) for _ in range(2))
    for a, b in zip(first.findings, second.findings, strict=True):
        assert np.array_equal(a.scores.samples, b.scores.samples)
        assert (a.choice, a.verdicts, a.matches) == (b.choice, b.verdicts, b.matches)
    assert first.overlaps == second.overlaps
    assert [(o.first, o.second) for o in first.overlaps] == [("activation-patching", "logit-attribution")]


def test_an_unknown_metric_is_named(gpt2: BridgeModel) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'logit-difference'"):
        discover(gpt2, PAIRS, _plan(Recorder().method(), metric="logit-diference"))


def test_errors_number_prompts_as_the_user_gave_them(gpt2: BridgeModel) -> None:
    from dataclasses import replace

    broken = [replace(p, answers=(" Zoe",)) if i == 8 else p for i, p in enumerate(PAIRS)]
    with pytest.raises(PromptError, match=r"^prompt 9: answer ' Zoe'"):
        discover(gpt2, broken, _plan(Recorder().method()))
