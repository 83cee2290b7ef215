"""The comparison of ways to draw, at a tiny size."""

import json
import math
import sys

import pytest
import torch
from conftest import random_pictures, small_model
from test_recipes import bright_and_dark

from benchmarks import cascade, cnn, drawing, measures
from utils import checkpoints, mixture
from utils.sampling import stepwise_params


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(cascade, "FACTOR", 2)  # of 16x16 pictures
    monkeypatch.setattr(cascade, "COARSE", cascade.COARSE | {"nr_filters": 4})


@pytest.mark.parametrize("component, spread", [(0.5, 1.0), (1.0, 0.25), (2.0, 0.5)])
def test_two_temperatures_by_hand(component, spread):
    """Of the params at temperature 1: logits over T, scales times T, all else as it was."""
    model, x, y = small_model(fusion="all", nr_logistic_mix=3), random_pictures(2), torch.tensor([0, 2])
    torch.nn.init.normal_(model.fusion.maps["params"].weight, std=0.1)
    changed = drawing.with_temperatures(model, component, spread)
    with torch.no_grad():
        before, after = (mixture.parts(m(x, y)) for m in (model, changed))
    assert torch.allclose(after.logits, before.logits / component)
    assert torch.allclose(after.log_scales.exp(), before.log_scales.exp() * spread)
    assert torch.allclose(after.means, before.means) and torch.allclose(after.coeffs, before.coeffs)


def test_own_pixels_come_in_whole_rows():
    model, x, y = small_model(torch.float32), random_pictures(3, dtype=torch.float32), torch.tensor([0, 1, 2])
    read = drawing.own_pixels(0.5)(model, x, y)
    kept = (read == x).all(dim=1)  # (B, H, W)
    assert 0 < kept.all(dim=2).double().mean() < 1
    assert torch.isin(read, torch.arange(256.0) / 127.5 - 1).all()
    assert torch.equal(drawing.own_pixels(0.0)(model, x, y), x)


def test_coarse_to_fine_sees_the_coarse_picture_and_begins_as_the_network_was():
    start, data = small_model(torch.float32, num_classes=2, image_size=16), bright_and_dark(16)
    both = cascade.CoarseToFine(start, data, steps=0, coarse_steps=3, seed=0)
    x, y = data.tensors()
    both.fine.fusion.see(cascade.coarse_of(x))
    with torch.no_grad():
        assert torch.equal(both.fine(x, y), start.eval()(x, y)), "its last layer is zero"
    torch.nn.init.normal_(both.fine.fusion.tell.weight, std=0.3)
    x, y = x[:3], y[:3]
    coarse = cascade.coarse_of(x)
    assert abs(coarse[0, 1, 1, 0] - x[0, 1, 2:4, :2].mean()) < 1 / 255 + 1e-6
    both.fine.fusion.see(coarse)
    with torch.no_grad():
        direct = both.fine(x, y)
    both.fine.fusion.see(coarse)
    assert torch.allclose(stepwise_params(both.fine, x, y), direct, atol=1e-4), "row by row too"
    both.fine.fusion.see(coarse.flip(0))
    with torch.no_grad():
        assert not torch.allclose(both.fine(x, y), direct, atol=1e-2)


def test_the_bits_of_coarse_to_fine_are_those_of_both():
    data = bright_and_dark(16)
    both = cascade.CoarseToFine(small_model(torch.float32, num_classes=2, image_size=16), data, 2, 2, seed=0)
    x, y = data.tensors()
    coarse = cascade.coarse_of(x)
    both.fine.fusion.see(coarse)
    with torch.no_grad():
        nats = mixture.log_prob(both.fine(x, y), x) + mixture.log_prob(both.coarse(coarse, y), coarse)
    assert both.bits_per_dim(data) == pytest.approx(-float(nats.mean()) / (3 * 256 * math.log(2)), rel=1e-5)


def test_a_tiny_run_of_everything(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cnn, "WIDTHS", (4, 4, 8, 8))
    monkeypatch.setattr(measures, "DRAWS", 2)
    monkeypatch.setattr(drawing, "COARSE_STEPS", 5)
    data = bright_and_dark(16)
    monkeypatch.setattr(drawing, "load_split", lambda *_: data)
    model = small_model(torch.float32, num_classes=2, image_size=16, fusion="film,late")
    model.class_names = data.classes
    weights, out = tmp_path / "m.safetensors", tmp_path / "drawing.json"
    checkpoints.save_model(model, weights)
    flags = ["--checkpoint", str(weights), "--per-class", "6", "--steps", "3", "--epochs", "2", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["benchmarks.drawing", *flags])
    drawing.main()
    results = json.loads(out.read_text())
    assert list(results) == ["validation pictures", *drawing.SETTINGS]
    for name, row in results.items():
        assert row["pictures"] == (24 if name == "validation pictures" else 12)
        assert ("bits per dimension" in row) == (name in drawing.SETTINGS and drawing.SETTINGS[name].loss is not None)
    assert "| guidance 2 | " in capsys.readouterr().out
