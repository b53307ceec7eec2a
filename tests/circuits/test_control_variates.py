"""Control variates against a loop over left-out prompts, exact patching itself, and their own promises."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from circuits.control_variates import (
    CLEARS,
    SCREENED,
    SHRINKAGE,
    UNDECIDED,
    BudgetedEffects,
    corrected,
    describe,
    estimate_on_budget,
    planned_rounds,
)
from circuits.errors import CircuitError
from circuits.scores import Scores

N, COMPONENTS = 256, 32
SATURATED = [1, 6, 12]
NAMES = tuple(f"a{i // 8}.h{i % 8}" for i in range(COMPONENTS))


class World:
    """Prompts drawn from a population whose mean effects are known, and a record of what was patched."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        sizes = 3 * np.exp(-np.arange(COMPONENTS) / 3.5 + rng.normal(0, 0.3, COMPONENTS))
        self.mean = sizes * rng.choice([-1, 1], COMPONENTS)
        shared, own, noise = (rng.normal(size=shape) for shape in ((N, 1), (N, COMPONENTS), (N, COMPONENTS)))
        self.effects = self.mean * (1 + 0.4 * shared + 0.3 * own) + 0.02 * noise
        error = (0.15 * sizes + 0.01) * rng.normal(size=(N, COMPONENTS))
        self.cheap = 0.7 * self.effects + error
        self.cheap[:, SATURATED] = 0.02 * rng.normal(size=(N, len(SATURATED)))
        self.calls: list[tuple[list[int], list[int]]] = []

    def exact(self, prompts: Sequence[int], components: Sequence[int]) -> np.ndarray:
        self.calls.append((list(prompts), list(components)))
        return self.effects[np.ix_(prompts, components)]


def estimate(effects: np.ndarray, cheap: np.ndarray, budget: int, **options: float) -> BudgetedEffects:
    return estimate_on_budget(cheap, lambda p, c: effects[np.ix_(p, c)], budget, **options)  # type: ignore[arg-type]


def test_the_estimate_is_the_mean_residual_from_slopes_without_the_prompt() -> None:
    world, prompts = World(0), np.random.default_rng(1).permutation(N)[:11]
    found = corrected(world.cheap, world.effects[prompts], prompts)
    for j in range(COMPONENTS):
        c, e, everyone = world.cheap[prompts, j], world.effects[prompts, j], world.cheap[:, j]
        residuals = []
        for i in range(11):
            others = np.arange(11) != i
            x, y = c[others] - c[others].mean(), e[others] - e[others].mean()
            slope = (x @ y) / (x @ x + SHRINKAGE * everyone.var())
            residuals.append(e[i] - slope * (c[i] - everyone.mean()))
        column = found.samples[:, j]
        assert column.mean() == pytest.approx(np.mean(residuals), abs=1e-12)
        # Variance of the mean residual, of the mean cheap effect, and twice their covariance.
        line = found.beta[j] * everyone
        together = (line - line.mean())[prompts] @ (residuals - np.mean(residuals))
        squared = np.var(residuals, ddof=1) / 11 + line.var(ddof=1) / N
        squared += 2 * together / np.sqrt(N * (N - 1) * 11 * 10)
        assert column.var(ddof=1) / N == pytest.approx(squared)


def test_patching_every_prompt_is_exact_patching() -> None:
    world = World(2)
    plain = Scores("exact", NAMES, world.effects)
    for budget in (N, 10 * N):
        found = estimate(world.effects, world.cheap, budget, refine=True)
        full = found.n_exact == N
        assert full[np.argmax(np.abs(world.mean))]
        assert not full.all()
        assert np.array_equal(found.samples[:, full], world.effects[:, full])
        assert np.array_equal(found.values[full], plain.values[full])
        assert np.array_equal(found.stderr[full], plain.stderr[full])


def test_scores_state_the_estimates_and_their_errors() -> None:
    world = World(3)
    found = estimate(world.effects, world.cheap, 32)
    scores = Scores("budget", NAMES, found.samples, unit="estimate")
    assert np.array_equal(scores.values, found.values)
    assert np.array_equal(scores.stderr, found.stderr)
    assert (found.stderr > 0).all()


def test_every_prompt_is_patched_once_and_the_account_counts_what_was_run() -> None:
    world = World(4)
    found = estimate_on_budget(world.cheap, world.exact, 64, seed=5)
    runs = np.zeros((N, COMPONENTS), dtype=int)
    for prompts, components in world.calls:
        runs[np.ix_(prompts, components)] += 1
    assert runs.max() == 1
    assert np.array_equal(runs.sum(0), found.n_exact)
    assert (
        [sum(len(p) for p, _ in world.calls[: k + 1]) for k in range(3)] == list(found.rounds) == [16, 32, 64]
    )
    assert set(world.calls[2][1]) < set(world.calls[1][1]) < set(world.calls[0][1])
    assert found.details(NAMES)["exact_runs"] == runs.sum() < 0.6 * 64 * COMPONENTS
    assert found.details(NAMES)["exact_runs_on_all_prompts"] == N * COMPONENTS


def test_the_same_seed_patches_the_same_prompts() -> None:
    first, again, other = (World(6) for _ in range(3))
    one = estimate_on_budget(first.cheap, first.exact, 20, seed=1)
    two = estimate_on_budget(again.cheap, again.exact, 20, seed=1)
    estimate_on_budget(other.cheap, other.exact, 20, seed=2)
    assert first.calls == again.calls != other.calls
    assert np.array_equal(one.samples, two.samples)


def test_refining_patches_what_clears_up_to_the_budget_and_nothing_that_was_screened_out() -> None:
    world = World(7)
    stopped, refined = (estimate(world.effects, world.cheap, 64, refine=r) for r in (False, True))
    for found in (stopped, refined):
        verdicts = np.array(found.verdicts)
        assert {CLEARS, SCREENED, UNDECIDED} == set(verdicts)
        assert (found.n_exact[verdicts == UNDECIDED] == 64).all()
        assert (found.settled[verdicts == UNDECIDED] == 0).all()
        rounds = np.array(found.rounds)[found.settled[verdicts == SCREENED] - 1]
        assert np.array_equal(found.n_exact[verdicts == SCREENED], rounds)
    clears = np.array(refined.verdicts) == CLEARS
    assert (refined.n_exact[clears] == 64).all()
    assert stopped.n_exact[clears].mean() < 48


def test_rounds_double_up_to_the_budget() -> None:
    assert planned_rounds(64) == (16, 32, 64)
    assert planned_rounds(100) == (25, 50, 100)
    assert planned_rounds(20) == (10, 20)
    assert planned_rounds(15) == (8, 15)
    assert planned_rounds(2) == (2,)


def test_intervals_cover_and_the_error_is_smaller_than_that_of_plain_patching() -> None:
    prompts, t = np.arange(16), stats.t.isf(0.025, 15)
    covered, errors, plain = [], [], []
    for seed in range(300):
        world = World(seed)
        samples = corrected(world.cheap, world.effects[:16], prompts).samples
        stderr = samples.std(0, ddof=1) / np.sqrt(N)
        covered.append(np.abs(samples.mean(0) - world.mean) <= t * stderr)
        goal = world.effects.mean(0)
        errors.append((samples.mean(0) - goal) / np.abs(world.mean))
        plain.append((world.effects[:16].mean(0) - goal) / np.abs(world.mean))
    assert 0.94 < np.mean(covered) < 0.965
    assert min(np.mean(covered, axis=0)) > 0.9
    ratio = np.sqrt(np.mean(np.square(errors), axis=0) / np.mean(np.square(plain), axis=0))
    seen = np.setdiff1d(np.arange(20), SATURATED)
    assert ratio[seen].max() < 0.75
    assert ratio[SATURATED].max() < 1.1


def test_the_mean_is_not_biased_by_the_fit_where_exact_is_curved_in_cheap() -> None:
    own, pooled = [], []
    for seed in range(1500):
        cheap = np.random.default_rng(seed).exponential(size=(N, 8))
        effects, seen = cheap + cheap**2, slice(8)
        found = corrected(cheap, effects[seen], np.arange(8))
        goal = effects.mean(0)
        own.append(found.samples.mean(0) - goal)
        pooled.append(effects[seen].mean(0) + found.beta * (cheap.mean(0) - cheap[seen].mean(0)) - goal)
    assert abs(np.mean(own)) < 0.05
    assert np.mean(pooled) < -0.3


def test_elimination_errs_less_often_than_it_says() -> None:
    wrong, decided, covered, runs = 0, [], [], []
    for seed in range(200):
        world = World(seed)
        found = estimate(world.effects, world.cheap, 64, seed=seed)
        size, verdicts = np.abs(world.mean), np.array(found.verdicts)
        threshold = 0.05 * size.max()
        wrong += bool(((verdicts == SCREENED) & (size >= threshold)).any())
        wrong += bool(((verdicts == CLEARS) & (size <= threshold)).any())
        decided.append(verdicts != UNDECIDED)
        covered.append(
            np.abs(found.values - world.mean) <= stats.t.isf(0.025, found.n_exact - 1) * found.stderr
        )
        runs.append(found.n_exact.sum() / (64 * COMPONENTS))
        assert verdicts[SATURATED[0]] == CLEARS
        assert verdicts[SATURATED[1]] != SCREENED
    assert wrong <= 0.05 * 200
    assert np.mean(decided) > 0.85
    # Stopping when an interval looks good enough costs a little coverage.
    assert 0.93 < np.mean(covered) < 0.97
    assert np.mean(runs) < 0.5


def test_bounds_hold_all_at_once() -> None:
    kept = 0
    for seed in range(200):
        world = World(seed)
        found = estimate(world.effects, world.cheap, 64, seed=seed)
        kept += bool((np.abs(world.mean) <= found.upper).all())
    assert kept >= 0.95 * 200


def test_prompts_that_are_all_the_same_by_luck_screen_nothing_out() -> None:
    world, order = World(8), np.random.default_rng(0).permutation(N)
    for seen, verdict in ((16, UNDECIDED), (32, SCREENED)):
        effects, cheap = world.effects.copy(), world.cheap.copy()
        cheap[:, 3], effects[:, 3] = 0, 5
        effects[order[:seen], 3] = 1e-9 * np.arange(seen)
        found = estimate(effects, cheap, seen)
        assert found.values[3] == pytest.approx(0, abs=1e-6)
        assert found.verdicts[3] == verdict


def test_a_constant_cheap_effect_leaves_plain_patching() -> None:
    world = World(9)
    world.cheap[:, 0] = 0.1
    found = corrected(world.cheap, world.effects[:12], np.arange(12))
    assert found.beta[0] == 0
    assert found.samples[:, 0].mean() == pytest.approx(world.effects[:12, 0].mean())
    stderr = world.effects[:12, 0].std(ddof=1) / np.sqrt(12)
    assert found.samples[:, 0].std(ddof=1) / np.sqrt(N) == pytest.approx(stderr)


@pytest.mark.parametrize("budget", [2, 5])
def test_two_prompts_are_enough_to_say_something(budget: int) -> None:
    effects = np.array([[2.0, 0.0], [4.0, 0.0]])
    found = estimate(effects, np.zeros((2, 2)), budget)
    assert found.values == pytest.approx([3.0, 0.0])
    assert found.stderr == pytest.approx([1.0, 0.0])
    json.dumps(found.details(("a0.h0", "a0.h1")), allow_nan=False)


def test_two_of_many_prompts_are_plain_patching() -> None:
    world = World(10)
    found = corrected(world.cheap, world.effects[:2], np.arange(2))
    assert found.samples.mean(0) == pytest.approx(world.effects[:2].mean(0))


def test_no_effect_at_all_settles_nothing_and_can_be_told() -> None:
    found = estimate(np.zeros((40, 3)), np.zeros((40, 3)), 40)
    assert set(found.verdicts) == {UNDECIDED}
    assert found.correlation is found.variance_reduction is found.largest_screened is None
    json.dumps(found.details("abc"), allow_nan=False)
    assert "Undecided at the budget (3): a, b, c." in describe(found, "abc")


def test_the_account_names_every_component_once_and_is_json() -> None:
    world = World(11)
    found = estimate(world.effects, world.cheap, 64)
    details = json.loads(json.dumps(found.details(NAMES), allow_nan=False))
    assert [row["verdict"] for row in details["components"].values()] == list(found.verdicts)
    assert details["correlation_with_exact"] > 0.5
    assert details["median_variance_reduction"] > 2
    screened = [row for row in details["components"].values() if row["verdict"] == SCREENED]
    assert details["largest_bound_screened_out"] == max(row["upper_bound"] for row in screened)
    assert details["largest_bound_screened_out"] < details["threshold"]
    lines = describe(found, NAMES)
    told = [name for line in lines if "): " in line for name in line.rstrip(".").split("): ")[1].split(", ")]
    assert sorted(told) == sorted(NAMES)
    assert f"{found.n_exact.sum():,} runs instead of 8,192" in lines[0]


@pytest.mark.parametrize("budget", [-1, 0, 1])
def test_too_small_a_budget_is_named_with_the_least_that_works(budget: int) -> None:
    with pytest.raises(CircuitError, match=rf"budget of {budget} .* least that works is 2"):
        estimate(np.ones((9, 2)), np.ones((9, 2)), budget)


def test_what_cannot_be_estimated_is_refused() -> None:
    ones, broken = np.ones((9, 2)), np.ones((9, 2))
    broken[3, 1] = np.nan
    with pytest.raises(CircuitError, match="cheap method gives no finite effect for 1 of 2"):
        estimate(ones, broken, 4)
    with pytest.raises(CircuitError, match="Patching gives no finite effect for 1 of 2"):
        estimate(broken, ones, 9)
    with pytest.raises(CircuitError, match="there is 1"):
        estimate(ones[:1], ones[:1], 4)
    for share in (0.0, 1.0):
        with pytest.raises(CircuitError, match=f"threshold of {share}"):
            estimate(ones, ones, 4, share=share)
