"""What the engine is said to compute and hold, against what torch counts and allocates while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product as pairs_of
from typing import Any

import pytest
import torch
from tiny_models import COVERED, prompt_pairs
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from circuits.batches import Batch, make_batches
from circuits.donors import Donor, resample_donor, zero_donor
from circuits.engine import products
from circuits.engine.exact import ExactRun
from circuits.engine.footprint import Footprint, prompts_at_once
from circuits.engine.forward import n_bytes, trace
from circuits.engine.linear import engine_linear
from circuits.engine.weights import Weights
from circuits.errors import CircuitError
from circuits.metrics import METRICS, logit_difference
from circuits.models.bridge import BridgeModel
from circuits.readout import Readout
from circuits.work import ExactAccount, account, full_pass

Tiny = Callable[[str], BridgeModel]


@pytest.fixture
def plain_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own product, for torch's counter does not see oneDNN's."""
    monkeypatch.setattr(products, "_suits_onednn", lambda x, weight: False)


def counted(work: Callable[[], Any]) -> tuple[int, Any]:
    with FlopCounterMode(display=False) as counter:
        result = work()
    return counter.get_total_flops(), result


def allocated(work: Callable[[], Any]) -> int:
    """The most bytes that are held at once while `work` runs, above what was held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        kept = work()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    level = most = 0
    for event in sorted(events, key=lambda e: int(e.start_ns())):
        level += event.nbytes()
        most = max(most, level)
    del kept
    return most


def _weights(model: BridgeModel) -> Weights:
    assert model.weights is not None
    if model.weights.rotation:
        model.weights.rotation(24)  # computed once and kept
    return model.weights


def _batch(model: BridgeModel, n: int = 8) -> Batch:
    return make_batches(model, prompt_pairs(n), batch_size=64)[-1]


def _donors(batch: Batch) -> tuple[Donor, Donor]:
    return resample_donor(batch.corrupt), zero_donor()


ALIKE = ("tiny-neox-serial", "tiny-mistral", "tiny-qwen2")
"""Their products have the shapes of GPT-2's or Llama's: they add a rotation, a window, or biases."""


@pytest.mark.usefixtures("plain_products")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in COVERED]
)
def test_flops_are_those_that_torch_counts(name: str, tiny: Tiny) -> None:
    """Base runs, and rows of every kind: one, many, some that share a layer, everywhere and at some positions."""
    model = tiny(name)
    weights, batch = _weights(model), _batch(model)
    generator = torch.Generator().manual_seed(0)
    where = torch.zeros(batch.clean.shape, dtype=torch.bool)
    where[1, -6] = where[0, -4] = True
    for donor, metric in pairs_of(_donors(batch), METRICS.values()):
        flops, run = counted(lambda donor=donor: ExactRun(weights, batch.clean, donor, 2**30))
        said = account(model, batch.clean, donor)
        assert flops == said.begun.flops > 0
        readout = Readout(batch, metric)
        for n_rows, place, kept in pairs_of((1, 9), (None, where), (0.0, 0.5, 0.9)):
            keep = torch.rand(n_rows, len(model.graph.components), generator=generator) < kept
            flops, _ = counted(lambda run=run, keep=keep, r=readout, p=place: run.measure(keep, r, p))
            work = said.measure(keep, readout, place)
            assert work.flops == flops, (n_rows, place is None, kept)
            assert (work.rows, work.passes) == (n_rows, n_rows * len(batch))


@pytest.mark.usefixtures("plain_products")
def test_flops_do_not_hang_on_how_memory_cuts_rows(gpt2: BridgeModel) -> None:
    """Rows of a cut see no others, so what none of them keeps is not computed for them."""
    weights, batch = _weights(gpt2), _batch(gpt2)
    donor, readout = resample_donor(batch.corrupt), Readout(batch, logit_difference)
    keep = torch.rand(12, len(gpt2.graph.components), generator=torch.Generator().manual_seed(1)) < 0.3
    for memory in (1, 2**19, 2**30):
        said = account(gpt2, batch.clean, donor)
        assert isinstance(said, ExactAccount)
        run = ExactRun(weights, batch.clean, donor, memory)
        flops, _ = counted(lambda run=run: run.measure(keep, readout))
        assert replace(said, memory=memory).measure(keep, readout).flops == flops


@pytest.mark.usefixtures("plain_products")
@pytest.mark.parametrize("drops", [False, True])
def test_flops_of_gradients_are_those_that_torch_counts(covered: str, tiny: Tiny, drops: bool) -> None:
    model = tiny(covered)
    weights, batch = _weights(model), _batch(model)
    readout = Readout(batch, logit_difference)
    for donor in _donors(batch):
        said = account(model, batch.clean, donor)
        assert isinstance(said, ExactAccount)
        flops, _ = counted(
            lambda d=donor: list(engine_linear(weights, batch.clean, d, readout, drops).slopes)
        )
        # There and back: logits of a few tokens.
        reading = 2 * said.footprint.logits_flops(1, len(readout.tokens))
        assert said.footprint.linear_flops(drops=drops) + reading == flops


@pytest.mark.usefixtures("plain_products")
def test_flops_of_whole_passes_are_those_of_the_model_itself(covered: str, tiny: Tiny) -> None:
    """The engine's shapes tell what the model's own forward pass, through TransformerLens, multiplies."""
    model = tiny(covered)
    weights, tokens = _weights(model), _batch(model).clean[:1]
    model.run(tokens)
    flops, _ = counted(lambda: model.run(tokens))
    assert full_pass(model, tokens.shape[1]).flops == flops
    flops, _ = counted(lambda: trace(weights, weights.embed(tokens), answer_alone=True))
    shape = Footprint(weights, 1, tokens.shape[1], 0, resamples=False)
    assert shape.trace_flops(tokens.shape[1], answer_alone=True) == flops


def test_what_runs_hold_is_known_to_the_byte(covered: str, tiny: Tiny) -> None:
    model = tiny(covered)
    weights, batch = _weights(model), _batch(model)
    for donor in _donors(batch):
        run = ExactRun(weights, batch.clean, donor, 2**30)
        base, other = run.base, run.other
        kept = [*base.before, *base.between, *base.z, base.after]
        kept += [part for layer in base.attention for part in (layer.keys, layer.values)]
        kept += [*other.z, *other.mlp] if other else []
        assert n_bytes(kept) == run.footprint.held_bytes
        assert sum(part.untyped_storage().nbytes() for part in kept) == run.footprint.held_bytes


def _wide(model: BridgeModel, n_layers: int = 6) -> Weights:
    """The same architecture with more layers, for tiny ones are lost among odds and ends."""
    weights = _weights(model)
    return replace(weights, layers=(weights.layers * n_layers)[:n_layers])


def test_the_height_of_memory_is_near_what_torch_allocates(covered: str, tiny: Tiny) -> None:
    model = tiny(covered)
    weights, batch = _wide(model), _batch(model, 30)
    readout, generator = Readout(batch, logit_difference), torch.Generator().manual_seed(0)
    for donor in _donors(batch):
        making = allocated(lambda d=donor: ExactRun(weights, batch.clean, d, 2**30))
        run = ExactRun(weights, batch.clean, donor, 2**30)
        assert 0.7 < making / run.footprint.making_bytes < 1.4
        for n_rows in (8, 64):
            keep = torch.rand(n_rows, 6 * (weights.n_heads + 1), generator=generator) < 0.5
            keep[:, 0] = False  # all of them leave the base run in the first layer, so they run together
            measured = allocated(lambda run=run, keep=keep: run.measure(keep, readout))
            said = run.footprint.rows_bytes(n_rows, run.length - run.first)
            assert 0.7 < measured / said < 1.4, (n_rows, donor.tokens is None)


def test_the_memory_budget_is_filled_and_not_passed(covered: str, tiny: Tiny) -> None:
    """As many rows as fit, and not one more."""
    model = tiny(covered)
    for first, n_logits, room in pairs_of((0, 5), (0, 500), (10**5, 10**6, 10**8)):
        shape = Footprint(_weights(model), 7, 14, first)
        memory = shape.held_bytes + room
        n_rows = shape.rows_at_once(shape.n_columns, memory, n_logits)
        if n_rows > 1:
            assert shape.rows_bytes(n_rows, shape.n_columns, n_logits) <= room
        assert shape.rows_bytes(n_rows + 1, shape.n_columns, n_logits) > room
    assert Footprint(_weights(model), 7, 14, 0).rows_at_once(14, 0) == 1


class Budgeted:
    """A model with another memory budget."""

    def __init__(self, model: BridgeModel, memory: int) -> None:
        self.model, self.memory = model, memory

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama", "tiny-olmo2"])
def test_batches_are_as_large_as_memory_allows(name: str, tiny: Tiny) -> None:
    """Half the budget for base runs leaves half for rows; a budget for none is refused with the way out."""
    model = tiny(name)
    pairs = prompt_pairs(30)
    assert [len(b) for b in make_batches(model, pairs)] == [15, 15]
    for n in (1, 4):
        one = next(m for m in range(1, 10**6, 997) if _fits(model, m))
        some = make_batches(Budgeted(model, 2 * n * one), pairs)  # type: ignore[arg-type]
        assert max(map(len, some)) < 15
        assert sorted(i for b in some for i in b.index) == list(range(30))
    with pytest.raises(CircuitError, match=rf"tokens needs .* in {name}, .*1.0 KB.*--memory \d+MB"):
        make_batches(Budgeted(model, 1000), pairs)  # type: ignore[arg-type]


def _fits(model: BridgeModel, memory: int) -> bool:
    try:
        return prompts_at_once(Budgeted(model, memory), 15, 11) == 1  # type: ignore[arg-type]
    except CircuitError:
        return False


def test_a_batch_as_large_as_allowed_stays_within_the_budget(gpt2: BridgeModel) -> None:
    weights, batch = _weights(gpt2), _batch(gpt2, 30)
    one = Footprint(weights, 1, batch.clean.shape[1], 0, resamples=False)
    memory = 10 * (one.making_bytes + one.rows_bytes(1, batch.clean.shape[1]))
    n = prompts_at_once(Budgeted(gpt2, memory), batch.clean.shape[1], 11)  # type: ignore[arg-type]
    assert 1 < n < len(batch)
    few, readout = batch.until(n), Readout(batch.until(n), logit_difference)
    keep = torch.rand(40, len(gpt2.graph.components), generator=torch.Generator().manual_seed(0)) < 0.5

    def work(donor: Donor) -> Tensor:
        return ExactRun(weights, few.clean, donor, memory).measure(keep, readout).metric

    for donor in _donors(few):
        assert allocated(lambda d=donor: work(d)) < 1.1 * memory
