"""Rounding in half precision, beside the effects that it may hide."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from circuits.donors import all_but_one, resample_donor
from circuits.methods.method import Problem
from circuits.metrics import logit_difference
from circuits.models.bridge import BridgeModel, load_model
from circuits.patching import measure
from circuits.precision import WORTH_A_WARNING, Rounding, rounding

MakeProblem = Callable[..., Problem]


def test_full_precision_is_not_asked(gpt2: BridgeModel, problem: MakeProblem) -> None:
    assert rounding(gpt2, problem(gpt2).batches[0], logit_difference) is None


@pytest.mark.parametrize("family", ["tiny-gpt2", "tiny-llama", "tiny-neox"])
def test_fewer_bits_round_more_and_by_about_what_the_true_effects_say(
    family: str, directory: Callable[[str], Path], tiny: Callable[[str], BridgeModel], problem: MakeProblem
) -> None:
    """The gap is held against what no user can ask for: the same effects in fp32."""
    full = tiny(family)
    batch = problem(full).batches[0]
    gaps = {}
    for dtype in ("bfloat16", "float16"):
        model = load_model(str(directory(family)), dtype=dtype)
        assert model.path == "exact engine"
        found = rounding(model, batch, logit_difference)
        assert found is not None
        assert found.gap is not None
        assert found.dtype == dtype
        keep, donor = all_but_one(full.graph, full.graph.components), resample_donor(batch.corrupt)
        clean = [
            measure(m, batch, logit_difference, keep=keep | True, donor=donor).metric for m in (full, model)
        ]
        true, half = (
            measure(m, batch, logit_difference, keep=keep, donor=donor).metric - start
            for m, start in zip((full, model), clean, strict=True)
        )
        # The engine's own share of the gap: it keeps the residual stream in fp32, so at most about all of it.
        assert float((true - half).abs().median()) < 3 * found.gap
        gaps[dtype] = found.gap
    assert gaps["bfloat16"] > 3 * gaps["float16"] > 0


def test_where_there_is_one_computation_alone_rounding_is_unknown_and_matters(
    directory: Callable[[str], Path], problem: MakeProblem
) -> None:
    model = load_model(str(directory("tiny-gemma2")), dtype="bfloat16")
    found = rounding(model, problem(model).batches[0], logit_difference)
    assert found is not None
    assert (found.gap, found.share, found.matters) == (None, None, True)


def test_the_warning_is_about_the_share() -> None:
    assert Rounding("bfloat16", 0.2, 1.0).matters
    assert not Rounding("bfloat16", WORTH_A_WARNING / 2, 1.0).matters
    assert torch.finfo(torch.bfloat16).eps > WORTH_A_WARNING / 100
