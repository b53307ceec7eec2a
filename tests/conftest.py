"""What all tests share: no network, one thread, and tiny models that are built once a session."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["WANDB_MODE"] = "disabled"

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from tiny_models import ADDITIVE, COVERED, FAMILIES, Hooked, prompt_pairs, read_model, write_model

from circuits.methods.method import Problem
from circuits.models.bridge import BridgeModel, load_model

torch.set_num_threads(1)
# A busy machine is no failure; and the same code gives the same answer, so a gate does not fall by luck.
# `pytest --hypothesis-profile=search` looks for new examples.
quiet = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("search", **quiet)
settings.register_profile("tests", derandomize=True, **quiet)
settings.load_profile("tests")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of large files beside the checkout; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent")
    return SHARED


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name of a tiny family -> its Hugging Face directory. Read-only: copy it before you change it."""
    root = tmp_path_factory.mktemp("models")

    @cache
    def build(name: str) -> Path:
        write_model(name, root / name)
        return root / name

    return build


@pytest.fixture(scope="session")
def tiny(directory: Callable[[str], Path]) -> Callable[[str], BridgeModel]:
    """Name of a tiny family -> the model, as the command line would load it."""
    return cache(lambda name: load_model(str(directory(name))))


@pytest.fixture(scope="session")
def plain(directory: Callable[[str], Path]) -> Callable[[str], Hooked]:
    """Name of a tiny family -> the same weights through transformers alone."""
    return cache(lambda name: Hooked(read_model(directory(name)), FAMILIES[name]))


@pytest.fixture(scope="session")
def gpt2(tiny: Callable[[str], BridgeModel]) -> BridgeModel:
    return tiny("tiny-gpt2")


@pytest.fixture(scope="session", params=ADDITIVE)
def family(request: pytest.FixtureRequest) -> str:
    """Each family whose writes add up."""
    return str(request.param)


@pytest.fixture(scope="session", params=COVERED)
def covered(request: pytest.FixtureRequest) -> str:
    """Each family that the exact engine runs."""
    return str(request.param)


@pytest.fixture(scope="session")
def problem() -> Callable[..., Problem]:
    """Model and number of pairs -> a Problem in logit differences over prompts of two lengths."""
    from circuits.batches import make_batches
    from circuits.metrics import logit_difference

    def build(model: BridgeModel, n: int = 8, batch_size: int = 64, seed: int = 0) -> Problem:
        pairs = prompt_pairs(n, seed)
        return Problem(make_batches(model, pairs, batch_size=batch_size), logit_difference, seed=seed)

    return build
