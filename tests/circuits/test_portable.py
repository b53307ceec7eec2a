"""The portable path: rows that resume in the middle of the base run equal plain hooks on the whole model.

Hooked knows none of our code, and ExactRun shares none of the arithmetic: three routes to each number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import FAMILIES, Hooked, prompt_pairs
from torch import Tensor

from circuits.batches import Batch, make_batches
from circuits.donors import (
    Donor,
    all_but_one,
    first_difference,
    keep_masks,
    mean_donor,
    resample_donor,
    zero_donor,
)
from circuits.engine.exact import ExactRun
from circuits.engine.portable import PortableRun
from circuits.graph import Graph
from circuits.metrics import logit_difference
from circuits.model import Resume, Resumption, Site
from circuits.models.bridge import BridgeModel, load_model
from circuits.readout import Readout

Tiny = Callable[[str], BridgeModel]
Plain = Callable[[str], Hooked]
Values = dict[tuple[str, int], Tensor]

UNLIKE = "tiny-phi3-long"
"""Keys of the columns before the first difference are not those that the whole prompt would give."""


def _batch(model: BridgeModel, n: int = 3) -> Batch:
    (batch,) = make_batches(model, prompt_pairs(n, templates=1))
    return batch


@pytest.fixture
def own(directory: Callable[[str], Path]) -> Callable[[str], BridgeModel]:
    """A model that no other test sees."""
    return lambda name: load_model(str(directory(name)))


# Two routes to one number.


def _donor(
    kind: str, model: BridgeModel, by_hand: Hooked, batch: Batch, base: Tensor
) -> tuple[Donor, Values]:
    """The donor, and what it puts out by plain hooks."""
    other = batch.corrupt if base is batch.clean else batch.clean
    values = by_hand.values(other)
    if kind == "resample":
        return resample_donor(other), values
    if kind == "zero":
        return zero_donor(), {place: torch.zeros_like(value) for place, value in values.items()}
    both = by_hand.values(torch.cat([batch.clean, batch.corrupt]))
    return mean_donor(model, [batch]), {
        place: value.mean(0).expand_as(values[place]) for place, value in both.items()
    }


def _by_plain_hooks(
    by_hand: Hooked, graph: Graph, base: Tensor, given: Values, keep: Tensor, where: Tensor | None
) -> Tensor:
    """Last logits of each row of `keep`, through the whole model: [row, prompt, vocab]."""
    inside = torch.ones(base.shape, dtype=torch.bool) if where is None else where
    by_name = {name: ~keep[:, column, None, None] & inside for column, name in enumerate(graph.components)}
    heads = range(graph.n_heads)

    def change(kind: str, layer: int) -> Callable[[Tensor], Tensor]:
        def edit(value: Tensor) -> Tensor:
            value = value.unflatten(0, (len(keep), len(base)))
            if kind == "mlp":
                replaced = by_name[f"m{layer}"][..., None]
            else:
                replaced = torch.stack([by_name[f"a{layer}.h{head}"] for head in heads], -1)[..., None]
            return torch.where(replaced, given[kind, layer], value).flatten(0, 1)

        return edit

    logits = by_hand.logits(base.repeat(len(keep), 1), {place: change(*place) for place in given})
    return logits.view(len(keep), len(base), -1)


def _rows(graph: Graph) -> Tensor:
    """Every component alone, and circuits that leave many."""
    circuits = [(), graph.components, graph.heads, ("a0.h1", "a1.h2", "m2"), ("m0", "a1.h0", "a1.h1", "m1")]
    return torch.cat([all_but_one(graph, graph.components), keep_masks(graph, circuits)])


def _places(batch: Batch) -> Iterator[Tensor | None]:
    """All positions; single ones; another one in each prompt, and none in one prompt."""
    yield None
    length = batch.clean.shape[1]
    for column in (0, batch.pairs[0].positions["S2"], length - 2, length - 1):
        yield torch.arange(length).expand(len(batch), -1) == column
    yield torch.arange(length) == torch.tensor([[length - 1], [length + 1], [length - 3]])


@pytest.mark.parametrize(
    ("kind", "direction"),
    [
        ("resample", "noising"),
        ("resample", "denoising"),
        # Another donor is another value in the same place.
        pytest.param("mean", "noising", marks=pytest.mark.slow),
        pytest.param("zero", "denoising", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_row_is_what_plain_hooks_give(
    name: str, kind: str, direction: str, tiny: Tiny, plain: Plain
) -> None:
    model, by_hand = tiny(name), plain(name)
    batch = _batch(model)
    base = batch.clean if direction == "noising" else batch.corrupt
    donor, given = _donor(kind, model, by_hand, batch, base)
    keep, readout = _rows(model.graph), Readout(batch, logit_difference, accuracy=True)
    runs: list[Any] = [PortableRun(model, base, donor)]
    if model.weights is not None and base.shape[1] <= model.weights.longest:
        runs.append(ExactRun(model.weights, base, donor, model.memory))
    clean = logit_difference(by_hand.logits(base), batch.answers, batch.distractors)
    for where in _places(batch):
        logits = _by_plain_hooks(by_hand, model.graph, base, given, keep, where)
        theirs = logit_difference(logits, batch.answers, batch.distractors)
        for run in runs:
            ours = run.measure(keep, readout, where)
            torch.testing.assert_close(ours.metric, theirs, atol=1e-4, rtol=0)
            torch.testing.assert_close(run.unpatched(readout).metric[0], clean, atol=1e-4, rtol=0)
        if where is None:
            assert (theirs - clean).abs().amax(1).min() < 1e-5
            assert ((theirs - clean).abs().amax(1) > 1e-3).sum() > len(keep) / 2


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_resumes_where_it_can(name: str, tiny: Tiny) -> None:
    """Without this the test above would hold for runs that leave out nothing."""
    model = tiny(name)
    batch = _batch(model)
    column = first_difference(batch.clean, resample_donor(batch.corrupt))
    assert column > 6
    assert model.resumption(batch.clean.shape[1], column) == Resumption(True, name != UNLIKE)
    assert model.resumption(batch.clean.shape[1], 0) == Resumption(True, True)


def test_keys_that_depend_on_the_length_are_known_by_length_and_column(tiny: Tiny) -> None:
    """Above 12 tokens everything turns otherwise: prefixes of more than that, and short prompts, are their own."""
    model = tiny(UNLIKE)
    assert model.resumption(15, 13).columns
    assert not model.resumption(15, 11).columns
    assert model.resumption(12, 9).columns


# What is left out.


@contextmanager
def _watched(model: BridgeModel) -> Iterator[list[tuple[int, tuple[int, ...]]]]:
    """(layer, shape of the residual stream) of every block that runs, by hooks on transformers' own modules."""
    seen: list[tuple[int, tuple[int, ...]]] = []

    def watch(layer: int) -> Callable[..., None]:
        def note(module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["hidden_states"]
            seen.append((layer, tuple(x.shape[:2])))

        return note

    handles = [
        block.original_component.register_forward_pre_hook(watch(layer), with_kwargs=True)
        for layer, block in enumerate(model._bridge.blocks)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-gemma2", "tiny-mixtral", "tiny-gptj"])
def test_blocks_below_and_columns_before_do_not_run(name: str, tiny: Tiny) -> None:
    model = tiny(name)
    batch, graph = _batch(model), model.graph
    prompts, length = batch.clean.shape
    first = first_difference(batch.clean, resample_donor(batch.corrupt))
    run, readout = (
        PortableRun(model, batch.clean, resample_donor(batch.corrupt)),
        Readout(batch, logit_difference),
    )
    for layer in range(3):
        with _watched(model) as seen:
            run.measure(all_but_one(graph, [f"a{layer}.h0", f"a{layer}.h2"]), readout)
        assert seen == [(above, (2 * prompts, length - first)) for above in range(layer, 3)]
    last = torch.arange(length).expand(prompts, -1) == length - 1
    model.resumption(length, length - 1)
    with _watched(model) as seen:
        run.measure(all_but_one(graph, ["m2"]), readout, last)
        run.measure(all_but_one(graph, ["m2"]), readout, last)
    prefix = [(layer, (prompts, length - 1)) for layer in range(3)]
    assert seen == [*prefix, (2, (prompts, 1)), (2, (prompts, 1))]
    with _watched(model) as seen:
        run.measure(keep_masks(graph, [graph.components]), readout)
        run.measure(all_but_one(graph, graph.components), readout, last & False)
        run.unpatched(readout)
    assert seen == []


def test_the_base_run_and_the_donors_share_their_prefix(gpt2: BridgeModel) -> None:
    batch = _batch(gpt2)
    prompts, length = batch.clean.shape
    first = first_difference(batch.clean, resample_donor(batch.corrupt))
    gpt2.resumption(length, first), gpt2.resumption(length, 0)
    with _watched(gpt2) as seen:
        PortableRun(gpt2, batch.clean, resample_donor(batch.corrupt))
    assert [shape for layer, shape in seen if layer == 0] == [
        (prompts, first),
        *[(prompts, length - first)] * 2,
    ]
    with _watched(gpt2) as seen:
        PortableRun(gpt2, batch.clean, zero_donor())
    assert [shape for layer, shape in seen if layer == 0] == [(prompts, length)]


def test_rows_are_packed_by_the_memory_that_there_is(
    own: Callable[[str], BridgeModel],
) -> None:
    model = own("tiny-gemma2")
    batch, keep = _batch(model), all_but_one(model.graph, ["a1.h0", "a1.h1", "a1.h2", "a1.h3"])
    run, readout = PortableRun(model, batch.clean, zero_donor()), Readout(batch, logit_difference)
    outcomes = {}
    for rows in (1, 3, 4):
        model.memory = run.held_bytes + rows * run.row_bytes(0)
        with _watched(model) as seen:
            outcomes[rows] = run.measure(keep, readout).metric
        assert [shape[0] // len(batch) for layer, shape in seen if layer == 1] == {
            1: [1, 1, 1, 1],
            3: [3, 1],
            4: [4],
        }[rows]
        torch.testing.assert_close(outcomes[rows], outcomes[1], atol=1e-5, rtol=0)


# A trick that does not hold is left off.


def _shifted_past(model: BridgeModel) -> Callable[[Tensor], object]:
    """Keys and values of other tokens: what a model would go on from whose cache is not what we think."""
    right = model.past
    return lambda tokens: right(tokens.flip(1))


def _failing(*args: object) -> object:
    raise AttributeError("'MambaCache' object has no attribute 'layers'")


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ({"past": _shifted_past}, Resumption(True, False)),
        ({"past": lambda model: _failing}, Resumption(True, False)),
        ({"_as_block_output": lambda model: lambda residual: residual * 1.01}, Resumption(False, True)),
        ({"_as_block_output": lambda model: lambda residual: (residual, None)}, Resumption(False, True)),
        ({"past": _shifted_past, "_as_block_output": lambda model: _failing}, Resumption(False, False)),
    ],
)
def test_what_does_not_hold_on_a_model_is_left_off(
    own: Callable[[str], BridgeModel],
    plain: Plain,
    broken: dict[str, Callable[[BridgeModel], object]],
    expected: Resumption,
) -> None:
    model, by_hand = own("tiny-cohere"), plain("tiny-cohere")
    for name, make in broken.items():
        setattr(model, name, make(model))
    batch, keep = _batch(model), _rows(model.graph)
    donor, given = _donor("resample", model, by_hand, batch, batch.clean)
    run = PortableRun(model, batch.clean, donor)
    assert model.resumption(batch.clean.shape[1], first_difference(batch.clean, donor)) == expected
    for where in _places(batch):
        logits = _by_plain_hooks(by_hand, model.graph, batch.clean, given, keep, where)
        theirs = logit_difference(logits, batch.answers, batch.distractors)
        ours = run.measure(keep, Readout(batch, logit_difference), where).metric
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_the_path_is_told_in_words(own: Callable[[str], BridgeModel], tiny: Tiny) -> None:
    model = own("tiny-olmo2")
    assert model.path == "portable: the engine does not know olmo2"
    model.resumption(15, 9)
    assert model.path == (
        "portable: the engine does not know olmo2; rows share layers and columns with the base run"
    )
    model.past = _failing  # type: ignore[method-assign]
    model.resumption(15, 8)
    assert "rows share layers with the base run" in model.path
    assert own("tiny-gpt2").path == "exact engine"
    assert tiny("tiny-mistral-window").path.startswith("exact engine up to 6 tokens, portable beyond")


# Nothing of a resumed run stays behind.


def test_blocks_run_again_behind_a_resumed_run_and_behind_one_that_fails(gpt2: BridgeModel) -> None:
    batch = _batch(gpt2)
    before = gpt2.run(batch.clean, capture=[Site("input", 2)])
    resume = Resume(2, before.captured[Site("input", 2)])

    def fail(value: Tensor) -> Tensor:
        raise ZeroDivisionError

    assert torch.equal(gpt2.run(batch.clean, resume=resume).logits, before.logits)
    with pytest.raises(ZeroDivisionError):
        gpt2.run(batch.clean, resume=resume, edit={Site("z", 2): fail})
    assert torch.equal(gpt2.run(batch.clean).logits, before.logits)
    assert not any("forward" in vars(module) for module in gpt2._bridge.modules())


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-gemma2", "tiny-mistral-window", "tiny-gptj"])
def test_a_past_serves_any_number_of_rows_and_stays_as_it_is(name: str, tiny: Tiny) -> None:
    model = tiny(name)
    batch = _batch(model)
    past = model.past(batch.clean[:, :9])
    whole = model.run(batch.clean).logits
    for rows in (1, 3, 2, 1):
        logits = model.run(batch.clean[:, 9:].repeat(rows, 1), resume=Resume(past=past)).logits
        torch.testing.assert_close(logits, whole.repeat(rows, 1), atol=1e-5, rtol=0)
