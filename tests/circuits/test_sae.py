"""The autoencoder: its written-out gradients against autograd, unit norm, bytes by seed, and the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import Tensor

from circuits import sae
from circuits.errors import RunFolderError

SETTINGS = sae.Settings(features=24, epochs=40, learning_rate=1e-2)


def _data(rows: int = 30, d_model: int = 12) -> Tensor:
    return torch.randn(rows, d_model, generator=torch.Generator().manual_seed(7))


def _start(features: int = 24, d_model: int = 12, seed: int = 1) -> sae.SparseAutoencoder:
    return sae.untrained(d_model, features, torch.Generator().manual_seed(seed))


def _trained_by_autograd(start: sae.SparseAutoencoder, x: Tensor, settings: sae.Settings) -> list[Tensor]:
    """The paper's loop by the other route: autograd, a hook that projects, norms set before each pass."""
    we, be, wd, b = (getattr(start, n).clone().requires_grad_() for n in sae.TENSORS)
    for w in (we, wd):
        w.register_hook(lambda g, w=w: g - (g * w).sum(-1, keepdim=True) * w / w.norm(dim=-1, keepdim=True))
    adam = torch.optim.Adam([we, be, wd, b], lr=settings.learning_rate)
    for _ in range(settings.epochs):
        for w in (we, wd):
            w.data /= w.data.norm(dim=-1, keepdim=True)
        c = torch.relu((x - b) @ we.T + be)
        loss = ((c @ wd.T + b - x) ** 2).mean() + settings.l1 * c.norm(p=1, dim=-1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    for w in (we, wd):
        w.data /= w.data.norm(dim=-1, keepdim=True)
    return [we.detach(), be.detach(), wd.detach(), b.detach()]


def test_training_equals_autograd() -> None:
    trained = sae.train(_start(), _data(), SETTINGS)
    for name, other in zip(sae.TENSORS, _trained_by_autograd(_start(), _data(), SETTINGS), strict=True):
        assert torch.allclose(getattr(trained, name), other, atol=2e-4), name


def test_gradients_follow_finite_differences_across_the_rows() -> None:
    start, x = _start(), _data().double()
    start = sae.SparseAutoencoder(*(getattr(start, n).double() for n in sae.TENSORS))
    encoder, *_ = sae.gradients(start, x, l1=0.1)
    along = torch.randn(encoder.shape, generator=torch.Generator().manual_seed(3), dtype=torch.double)
    along -= (along * start.encoder).sum(-1, keepdim=True) * start.encoder
    step = 1e-6
    up, down = (
        sae.SparseAutoencoder(start.encoder + s * step * along, start.encoder_bias, start.decoder, start.bias)
        for s in (1, -1)
    )
    slope = (up.loss(x, 0.1) - down.loss(x, 0.1)) / (2 * step)
    assert float((encoder * along).sum()) == pytest.approx(float(slope), rel=1e-4)


def test_unit_norm_is_kept_over_the_last_dim_of_each_weight() -> None:
    trained = sae.train(_start(), _data(), SETTINGS)
    for weight, rows in ((trained.encoder, 24), (trained.decoder, 12)):
        assert torch.allclose(weight.norm(dim=-1), torch.ones(rows), atol=1e-5)
    encoder, _, decoder, _ = sae.gradients(trained, _data(), 0.02)
    assert (encoder * trained.encoder).sum(-1).abs().max() < 1e-6
    assert (decoder * trained.decoder).sum(-1).abs().max() < 1e-6


def test_the_start_is_as_published() -> None:
    start = _start(features=500, d_model=16)
    assert not start.bias.any()
    assert start.encoder_bias.abs().max() <= 1 / 4
    assert start.encoder_bias.abs().max() > 0.24
    assert torch.allclose(start.encoder.norm(dim=-1), torch.ones(500))
    assert start.decoder.shape == (16, 500)


def test_training_lowers_the_loss_and_leaves_the_start_alone() -> None:
    start, x = _start(), _data()
    before = start.encoder.clone()
    trained = sae.train(start, x.reshape(5, 6, 12), SETTINGS)
    assert trained.loss(x, SETTINGS.l1) < start.loss(x, SETTINGS.l1)
    assert torch.equal(start.encoder, before)


def test_a_seed_means_the_same_bytes() -> None:
    first, second = (sae.train(_start(), _data(), SETTINGS) for _ in range(2))
    other = sae.train(_start(seed=2), _data(), SETTINGS)
    for name in sae.TENSORS:
        assert getattr(first, name).numpy().tobytes() == getattr(second, name).numpy().tobytes()
    assert not torch.equal(first.encoder, other.encoder)


def test_codes_are_the_strongest_feature_and_zero_where_all_are_silent() -> None:
    encoder, decoder = torch.eye(3), torch.eye(3)
    dictionary = sae.SparseAutoencoder(encoder, torch.zeros(3), decoder, torch.zeros(3))
    x = torch.tensor([[[0.1, 0.9, 0.2], [-1.0, -2.0, -3.0], [0.0, 0.5, 0.5]]])
    assert sae.encode(dictionary, x).tolist() == [[1, 0, 1]]


def test_the_file_gives_back_the_dictionary_and_its_settings(tmp_path: Path) -> None:
    trained = sae.train(_start(), _data(), SETTINGS)
    for name in ("a", "b"):
        sae.save(trained, tmp_path / name, SETTINGS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded, settings = sae.load(tmp_path / "a")
    assert settings == SETTINGS
    x = _data()[None]
    assert np.array_equal(sae.encode(loaded, x), sae.encode(trained, x))
    assert all(torch.equal(getattr(loaded, n), getattr(trained, n)) for n in sae.TENSORS)
    rebuilt = sae.from_tensors(trained.tensors())
    assert torch.equal(rebuilt.decoder, trained.decoder)


def test_a_file_of_plain_tensors_is_read_without_settings(tmp_path: Path) -> None:
    save_file(_start().tensors(), tmp_path / "sae.safetensors")
    loaded, settings = sae.load(tmp_path / "sae.safetensors")
    assert settings is None
    assert torch.equal(loaded.encoder, _start().encoder)


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all"])
def test_a_file_that_is_no_dictionary_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "sae.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"sae\.safetensors holds no sparse autoencoder"):
        sae.load(path)
