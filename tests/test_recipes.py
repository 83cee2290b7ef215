"""The comparisons of training recipes and of ways to train for the label, at a tiny size."""

import json
import sys
import time

import pytest
import torch
from conftest import random_pictures, small_model
from PIL import Image

from benchmarks import labels, recipes
from utils import training
from utils.classify import class_log_likelihoods
from utils.data import ImageDataset, to_bytes


def bright_and_dark(size: int = 8) -> ImageDataset:
    """24 pictures in two classes."""
    x = random_pictures(24, size, torch.float32) * 0.3 + torch.tensor([-0.5, 0.5]).repeat(12)[:, None, None, None]
    return ImageDataset(to_bytes(x), torch.arange(24) % 2, ("dark", "bright"), [str(n) for n in range(24)])


@pytest.fixture
def tiny_data(monkeypatch):
    data = bright_and_dark()
    for module in (recipes, labels):
        monkeypatch.setattr(module, "load_split", lambda *_: data)
    monkeypatch.setattr(recipes, "BASE", recipes.BASE | {"nr_filters": 4, "image_size": 8, "warmup": 2})
    threads = torch.get_num_threads()
    yield data
    torch.set_num_threads(threads)  # the scripts take one


def ran(module, monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, arguments)])
    module.main()


@pytest.mark.parametrize("name", [name for name in recipes.RECIPES if name != "schedule-free"])
def test_each_recipe_trains(name, tiny_data):
    recipe = recipes.RECIPES[name]
    untrained, _ = recipes.trained(recipe, tiny_data, 0, 1e-9)
    model, run = recipes.trained(recipe, tiny_data, 0, 60)
    assert run["steps"] > 3 and run["pictures seen"] >= 4 * run["steps"]
    assert len(run["cost of a step"]) == (2 if recipe.batch else 1)
    before, after = (recipes.judged(m.eval(), tiny_data, True) for m in (untrained, model))
    assert after["bits"] < before["bits"] and set(after["accuracy moved"]) == {"1", "4", "8"}


def test_a_dearer_step_is_made_less_often(tiny_data, monkeypatch):
    monkeypatch.setattr(recipes, "relative_cost", lambda *_: 2.5)
    assert recipes.trained(recipes.RECIPES["batch-16"], tiny_data, 0, 10)[1]["steps"] == 4


def test_relative_cost():
    def nap(seconds):
        return lambda: time.sleep(seconds)

    assert recipes.relative_cost(nap(0.03), nap(0.01), pairs=3) == pytest.approx(3, rel=0.3)


def test_what_was_made_is_not_made_again(tiny_data, tmp_path, monkeypatch, capsys):
    out = tmp_path / "recipes.json"
    ran(recipes, monkeypatch, "muon", "--steps", 4, "--seeds", 2, "--out", out)
    first = json.loads(out.read_text())
    assert list(first) == ["muon,0", "muon,1"]
    ran(recipes, monkeypatch, "muon", "adam", "--steps", 4, "--seeds", 2, "--out", out)
    results = json.loads(out.read_text())
    assert {key: results[key] for key in first} == first and len(results) == 4
    assert "| Muon, 0.02, batches of 8, cosine | " in capsys.readouterr().out


def test_the_place_says_where_a_pixel_was_before_it_was_moved():
    layer = recipes.ToldPlace(torch.nn.Identity(), recipes.LATTICE)
    layer.moves = torch.tensor([[0, 3], [0, -2]])  # the second picture 3 down and 2 to the left
    told = layer(torch.zeros(2, 4, 12, 12))[:, 4:]
    rows, columns = told[:, :8].argmax(1), told[:, 8:].argmax(1)
    assert told.sum(1).eq(2).all()
    assert rows[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3] == columns[0, 0].tolist()
    assert rows[1, 3:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0]
    assert columns[1, 0, :10].tolist() == [2, 3, 4, 5, 6, 7, 0, 1, 2, 3]


def losses(loss, x, y, reference, weight=0.5):
    torch.manual_seed(0)
    model = small_model(fusion="all")  # three classes
    return model, *loss(model, x, y, reference, weight)


def test_losses_by_hand():
    x, y = random_pictures(3), torch.tensor([0, 1, 2])
    reference = torch.tensor([[5.0, 1.0, 2.0], [0.0, 1.0, -1.0], [7.0, 8.0, 9.0]], dtype=torch.float64)
    rivals = torch.tensor([2, 0, 1])
    for loss, before in ((labels.two_labels, 0.0), (labels.contrastive, torch.tensor([3.0, 1.0, 1.0]))):
        model, minimised, bits = losses(loss, x, y, reference)
        nats = class_log_likelihoods(model, x)
        rows = torch.arange(3)
        margin = nats[rows, y] - nats[rows, rivals] - before
        assert torch.allclose(bits, -nats[rows, y] / (3 * 64 * torch.tensor(2.0, dtype=torch.float64).log()))
        expected = bits + 0.5 * torch.log1p(torch.exp(-margin / training.SOFTNESS))
        assert torch.allclose(minimised, expected)
    model, minimised, bits = losses(labels.distilled, x, y, reference)
    ours, theirs = (
        torch.log_softmax(n.double() / training.SOFTNESS, 1) for n in (class_log_likelihoods(model, x), reference)
    )
    assert torch.allclose(minimised.double(), bits + 0.5 * -(theirs.exp() * ours).sum(1))


def test_every_way_goes_on_from_one_network(tiny_data, tmp_path, monkeypatch, capsys):
    start, out = tmp_path / "start.safetensors", tmp_path / "labels.json"
    ways = ["generative", "hybrid, 4", "two_labels, 4", "contrastive, 4", "distilled, 4"]
    ran(labels, monkeypatch, *ways, "--start", start, "--start-steps", 20, "--steps", 20, "--seeds", 1, "--out", out)
    results = json.loads(out.read_text())
    teachers = [f"{labels.ALONE}, seed {seed}" for seed in range(3)]
    assert list(results) == ["start, seed 0", *teachers, *(f"{name}, seed 0" for name in (labels.TOGETHER, *ways))]
    assert {path.name for path in tmp_path.glob("*.safetensors")} == {f"start{n}.safetensors" for n in ("", "-1", "-2")}
    assert results["generative, seed 0"]["bits"] < results["start, seed 0"]["bits"]
    assert all(results[f"{way}, seed 0"]["pictures seen"] > 0 for way in ways)
    assert "| contrastive, 4 | " in capsys.readouterr().out
    assert Image.open(out.with_suffix(".png")).width > 500
