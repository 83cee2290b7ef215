"""The comparison of ways to draw, at a tiny size."""

import json
import sys

import pytest
import torch
from conftest import random_pictures, small_model
from test_recipes import bright_and_dark

from benchmarks import cnn, drawing, measures
from utils import checkpoints, mixture


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


def test_a_tiny_run_of_everything(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cnn, "WIDTHS", (4, 4, 8, 8))
    monkeypatch.setattr(measures, "DRAWS", 2)
    data = bright_and_dark()
    monkeypatch.setattr(drawing, "load_split", lambda *_: data)
    model = small_model(torch.float32, num_classes=2, fusion="film,late")
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
        assert ("bits per dimension" in row) == (name in drawing.SETTINGS and drawing.SETTINGS[name].goes_on)
    assert "| guidance 2 | " in capsys.readouterr().out
