"""Forecasts, against the discoveries that they are of: rows, passes and FLOPs to the last, seconds roughly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from tiny_models import prompt_pairs
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from circuits import calibration, planning
from circuits.batches import make_batches
from circuits.calibration import Clock, Rate, Sample, Seconds, fitted
from circuits.discovery import Plan, discover
from circuits.donors import Donor
from circuits.engine import products
from circuits.engine.exact import ExactRun
from circuits.errors import CircuitError, ModelError
from circuits.evaluation.faithfulness import Bench
from circuits.methods import METHODS
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.models.bridge import BridgeModel, load_model
from circuits.planning import made_up, plan_discovery
from circuits.readout import Outcome, Readout
from circuits.selection import Selection
from circuits.work import Rehearsal, Work

Tiny = Callable[[str], BridgeModel]
TOP = Selection(rule="top", n=8)


def _plan(*names: str, selection: Selection = TOP, **settings: str) -> Plan:
    methods = tuple((entry, entry.configure(settings)) for entry in map(METHODS.load, names))
    return Plan(methods, selection=selection)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts alone are looked at: no time is spent on timing."""
    rate = Rate(Seconds(1e-3, 1e-3), Seconds(1e-12, 1e-12))
    monkeypatch.setattr(planning, "calibrate", lambda model, problem: Clock(model, rate, rate))
    monkeypatch.setattr(calibration, "timed", lambda piece, device: Seconds(0.01, 0.01))


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Prompts that go through the engine (as base, donor or row) and through the model, by every call."""
    seen: list[int] = []
    begin, measure, run = ExactRun.__init__, ExactRun.measure, BridgeModel.run

    def beginning(self: ExactRun, weights: object, tokens: Tensor, donor: Donor, memory: int) -> None:
        seen.append(len(tokens) * (2 if donor.tokens is not None else 1))
        begin(self, weights, tokens, donor, memory)  # type: ignore[arg-type]

    def measuring(self: ExactRun, keep: Tensor, readout: Readout, where: Tensor | None = None) -> Outcome:
        seen.append(len(keep) * len(self.tokens))
        return measure(self, keep, readout, where)

    def running(self: BridgeModel, tokens: Tensor, **settings: object) -> object:
        seen.append(len(tokens))
        return run(self, tokens, **settings)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(ExactRun, "__init__", beginning)
        patched.setattr(ExactRun, "measure", measuring)
        patched.setattr(BridgeModel, "run", running)
        yield seen


def test_work_adds_up() -> None:
    one = Work(1, 2, 3, 4, 5, 6, 70, frozenset({(9, 1)}))
    other = Work(10, 20, 30, 40, 50, 60, 7, frozenset({(9, 2)}))
    assert one + other == Work(11, 22, 33, 44, 55, 66, 70, frozenset({(9, 1), (9, 2)}))
    assert one * 3 == Work(3, 6, 9, 12, 15, 18, 70, frozenset({(9, 1)}))
    assert (one + other).all_flops == 88


COUNTED: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "all": (("activation-patching",), {}),
    "named": (("activation-patching",), {"positions": "named", "direction": "denoising"}),
    "every": (("activation-patching",), {"positions": "every"}),
    "heads, zero": (("activation-patching",), {"components": "heads", "ablation": "zero"}),
    "mean": (("activation-patching",), {"ablation": "mean"}),
    "two": (("activation-patching", "logit-attribution"), {}),
    "indirect": (("indirect-effect",), {"positions": "named"}),
}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("name", COUNTED)
def test_passes_and_flops_are_those_of_the_discovery(
    name: str, gpt2: BridgeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each prompt that enters the engine or the model, whatever the stage; and all products but for the circuit: how
    many of its heads are in which layer, and MLPs, is known only afterwards."""
    monkeypatch.setattr(products, "_suits_onednn", lambda x, weight: False)
    methods, settings = COUNTED[name]
    plan = _plan(*methods, **settings)
    ahead = plan_discovery(gpt2, prompt_pairs(24), plan)
    with FlopCounterMode(display=False) as counter, counting(monkeypatch) as seen:
        discover(gpt2, prompt_pairs(24), plan)
    # Logit attribution goes through the engine without a base run: seen by nobody here.
    unseen = ahead.prompts.discovery if "logit-attribution" in methods else 0
    assert ahead.work.passes == sum(seen) + unseen
    assert ahead.work.rows > 0
    assert ahead.work.all_flops == pytest.approx(counter.get_total_flops(), rel=0.06)


SLOWER = ("olmo2", "gemma2", "mixtral")


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("positions", ["all", pytest.param("every", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", ["tiny-gptj", *(pytest.param(f"tiny-{n}", marks=pytest.mark.slow) for n in SLOWER)]
)
def test_models_that_the_engine_does_not_cover_are_forecast_too(
    name: str, positions: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted on one pass of the model itself; what resumed rows leave out is left out."""
    model = tiny(name)
    assert model.weights is None
    plan = _plan("activation-patching", positions=positions)
    ahead = plan_discovery(model, prompt_pairs(24), plan)
    # Asked once and for all: whether the model can resume is known by now.
    with FlopCounterMode(display=False) as counter, counting(monkeypatch) as seen:
        discover(model, prompt_pairs(24), plan)
    assert ahead.work.all_flops == pytest.approx(counter.get_total_flops(), rel=0.1)
    assert ahead.work.model_calls >= len(seen)
    if positions == "all":
        # What keeps everything is the base run: both ends of the scale, of verdicts and of random circuits.
        assert ahead.work.passes == sum(seen) + 4 * ahead.prompts.judged


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "method",
    ["attribution-patching", "relevance-patching", "eap", "relp", "clean-corrupted", "eap-ig-inputs"],
)
def test_gradients_are_forecast(method: str, gpt2: BridgeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_suits_onednn", lambda x, weight: False)
    model, entry = gpt2, METHODS.load(method)
    problem = Problem(make_batches(model, prompt_pairs(24)), logit_difference)
    options = entry.configure({})
    with FlopCounterMode(display=False) as counter:
        entry.score(model, problem, options)
    assert entry.work(model, problem, options).work.flops == pytest.approx(
        counter.get_total_flops(), rel=0.03
    )


@pytest.mark.usefixtures("at_once")
def test_a_forecast_says_what_prompts_there_are(gpt2: BridgeModel) -> None:
    ahead = plan_discovery(gpt2, prompt_pairs(20), _plan("activation-patching")).prompts
    lengths = {len(gpt2.tokenize(pair.clean)[0]) for pair in prompt_pairs(20)}
    assert (ahead.discovery, ahead.judged) == (10, 10)
    assert set(ahead.lengths) == lengths == {14, 15}
    assert ahead.tokens == sum(length * n for length, n in ahead.lengths.items())
    assert sum(ahead.lengths.values()) == sum(ahead.first_differences.values()) == 20


@pytest.mark.usefixtures("at_once")
def test_selection_asks_about_both_ends_all_prefixes_and_some_circuits(
    gpt2: BridgeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the last is known: pruning asks about a share of the components more, or none."""
    plan = _plan("activation-patching", selection=Selection())
    stages = {s.name: s for s in plan_discovery(gpt2, prompt_pairs(24), plan).stages}
    asked: list[int] = []
    outcome = Bench.outcome

    def asking(self: Bench, circuits: Sequence[object], *args: object, **settings: object) -> Outcome:
        asked.append(0 if settings.get("accuracy") else len(circuits))
        return outcome(self, circuits, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(Bench, "outcome", asking)
    discover(gpt2, prompt_pairs(24), plan)
    n, n_batches = len(gpt2.graph.components), 2
    ends, prefixes, *questions = asked[: asked.index(0)]  # judging asks about accuracy, and begins with that
    said = stages["activation-patching: selection"].work
    assert (ends, prefixes) == (2, n)
    assert said
    assert said.rows == n_batches * (ends + prefixes + round(planning.QUESTIONS * n))
    assert sum(questions) <= 2 * planning.QUESTIONS * n


@pytest.mark.usefixtures("at_once")
def test_what_nobody_knows_is_called_unknown_and_left_out_of_the_sums(gpt2: BridgeModel) -> None:
    plan = _plan("activation-patching", inputs="true")
    known, unknown = (plan_discovery(gpt2, prompt_pairs(12), p) for p in (_plan("activation-patching"), plan))
    assert unknown.unknown == ("activation-patching: scores",)
    assert known.unknown == ()
    (stage,) = [s for s in known.stages if s.name == "activation-patching: scores"]
    assert stage.work
    assert unknown.work.flops == known.work.flops - stage.work.flops
    other = Plan(tuple((replace(m, work=lambda *_: None), o) for m, o in _plan("logit-attribution").methods))
    assert plan_discovery(gpt2, prompt_pairs(12), other).unknown == ("logit-attribution: scores",)


REFUSED: dict[str, tuple[Plan, str]] = {
    "too many": (_plan("activation-patching", selection=Selection(rule="top", n=99)), "--top 99"),
    "no test": (_plan("sae", selection=Selection(rule="significance")), "no score for each prompt"),
    "metric": (replace(_plan("activation-patching"), metric="kl"), "'kl'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_discovery_refuses_is_refused_beforehand(name: str, gpt2: BridgeModel) -> None:
    plan, said = REFUSED[name]
    for function in (plan_discovery, discover):
        with pytest.raises(CircuitError, match=said):
            function(gpt2, prompt_pairs(12), plan)  # type: ignore[operator]


def test_a_model_that_a_method_cannot_work_on_is_refused_beforehand(tiny: Tiny) -> None:
    for method in ("logit-attribution", "relevance-patching"):
        for function in (plan_discovery, discover):
            with pytest.raises(ModelError):
                function(tiny("tiny-gemma2"), prompt_pairs(12), _plan(method))  # type: ignore[operator]


@pytest.mark.usefixtures("at_once")
def test_a_discovery_made_up_has_the_shape_of_a_real_one(gpt2: BridgeModel) -> None:
    plan = _plan("activation-patching", positions="named")
    plan = replace(plan, methods=(*plan.methods, *_plan("sae", trials="2", epochs="2").methods))
    ahead = plan_discovery(gpt2, prompt_pairs(16), plan)
    real, fake = (
        discover(gpt2, prompt_pairs(16), plan),
        made_up(gpt2, prompt_pairs(16), plan, ahead),
    )
    for one, other in zip(real.findings, fake.findings, strict=True):
        assert one.scores.components == other.scores.components
        assert set(one.scores.by_position) == set(other.scores.by_position)
        assert one.scores.unit == other.scores.unit
        assert [v.ablation for v in one.verdicts] == [v.ablation for v in other.verdicts]
    assert fake.halves == real.halves


def test_rates_are_found_again_and_never_below_zero() -> None:
    def sample(calls: int, flops: int, wall: float) -> Sample:
        return Sample(Work(calls=calls, flops=flops), Seconds(wall, 2 * wall))

    counts = [(1, 10**6), (10, 10**9), (4, 10**8), (100, 10**7)]
    rate = fitted([sample(c, f, 1e-3 * c + 1e-10 * f) for c, f in counts])
    assert rate.call.wall == pytest.approx(1e-3, rel=1e-6)
    assert rate.flop.cpu == pytest.approx(2e-10, rel=1e-6)
    assert rate.seconds(7, 10**8).wall == pytest.approx(0.017, rel=1e-6)
    rng = np.random.default_rng(0)
    noisy = fitted([sample(c, f, float(rng.uniform(0.1, 1.0))) for c, f in counts])
    assert min(noisy.call.wall, noisy.flop.wall, noisy.call.cpu, noisy.flop.cpu) >= 0


def test_what_happens_once_is_paid_once(gpt2: BridgeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run of a piece may import a library; the runs after it do not, nor does another stage's."""
    runs = iter([Seconds(3.0, 2.0), *[Seconds(0.5, 0.25)] * 20])
    monkeypatch.setattr(calibration, "timed", lambda piece, device: next(runs))
    nothing = Rate(Seconds(), Seconds())
    clock, piece = Clock(gpt2, nothing, nothing), lambda: None
    assert clock.seconds(Work(), [Rehearsal(piece, 10)]) == Seconds(2.5 + 5.0, 1.75 + 2.5)
    assert clock.seconds(Work(), [Rehearsal(piece, 4)]) == Seconds(2.0, 1.0)
    asked = Work(probes=frozenset({(15, 3)}))
    clock = Clock(gpt2, nothing, Rate(Seconds(1.0, 1.0), Seconds()))
    assert [clock.seconds(asked).wall for _ in range(2)] == [calibration.PROBE_PASSES, 0]


def test_rehearsals_of_the_sae_are_short_pieces_of_the_real_thing(gpt2: BridgeModel) -> None:
    entry, problem = METHODS.load("sae"), Problem(make_batches(gpt2, prompt_pairs(24)), logit_difference)
    few, many = (
        entry.work(gpt2, problem, entry.configure({"trials": str(n)})) for n in (1, 10)
    )  # training, the rest of a trial, and the probe, which is fitted once a head
    times = [[rehearsal.times for rehearsal in ahead.rehearsals] for ahead in (few, many)]
    assert times[1] == pytest.approx([10 * times[0][0], 10 * times[0][1], times[0][2]])
    assert times[0][2] == len(gpt2.graph.heads)
    start = time.perf_counter()
    for rehearsal in many.rehearsals:
        rehearsal.piece()
    assert time.perf_counter() - start < 30
    assert few.work == many.work


@pytest.mark.slow
@pytest.mark.parametrize("methods", [("activation-patching",), ("activation-patching", "sae")])
def test_the_seconds_come_true_within_a_factor_of_two(methods: tuple[str, ...]) -> None:
    """Processor time, for the clock on the wall hangs on who else works here."""
    from cli.prompt_source import draw_prompts

    model = load_model("plain-4l")
    pairs = draw_prompts(model, "ioi", None, form=None, corruption=None, n=200, seed=0).pairs
    plan = _plan(*methods, selection=Selection())
    ahead = plan_discovery(model, pairs, plan)
    start = time.process_time()
    discover(model, pairs, plan)
    took = time.process_time() - start
    assert 0.5 < took / ahead.seconds.cpu < 2, (took, ahead.seconds)
