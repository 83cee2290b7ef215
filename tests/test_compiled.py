"""A widget's few pictures: by the compiled loop they are those of PyTorch, and without Numba they come as well."""

import sys
import threading

import pytest
import torch
from conftest import random_pictures, small_model, wait_for
from test_sampling import CONFIGS
from test_two_devices import PretendedGpu

from kit.widgets import compiled
from kit.widgets.compiled import generate, generate_compiled, on_cpu_if_quicker, seconds_a_row
from utils import UsageError, mixture, sampling
from utils.checkpoints import load_model
from utils.model import ConditionalPixelCNN, ModelConfig


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch):
    monkeypatch.setattr(compiled, "compiling", [])
    monkeypatch.setattr(compiled, "compiled", threading.Event())


def drawn(draw, model, labels, **how) -> torch.Tensor:
    return draw(model, labels, generator=torch.Generator().manual_seed(7), **how)


def check_equal(images: torch.Tensor, expected: torch.Tensor) -> None:
    """But for rounding: a sum in another order may take a colour to the next level; then all that follows differs."""
    assert torch.equal(images, mixture.to_levels(images)), "not on the levels"
    differ = images.ne(expected).any(dim=1).flatten(1)  # (B, H W)
    for nr in differ.any(dim=1).nonzero()[:, 0]:
        first = int(differ[nr].int().argmax())
        steps = (images - expected)[nr].flatten(1)[:, first].abs() * 127.5
        assert steps.max() < 1.5, f"picture {nr} differs from pixel {first} on"
    assert differ.any(dim=1).sum() <= 1


@pytest.mark.parametrize("config", [*CONFIGS, {"fusion": "all", "nr_filters": 7}], ids=str)
def test_the_loop_draws_the_pictures_that_float64_gives(config):
    """The random numbers are the same: `uniform_noise` takes them in float32."""
    labels = torch.tensor([0, 2, 1])
    images = drawn(generate_compiled, small_model(torch.float32, **config), labels)
    exact = drawn(sampling.generate, small_model(torch.float64, **config), labels)
    check_equal(images, mixture.to_levels(exact.float()))


@pytest.mark.parametrize("how", [{"temperature": 0.0}, {"temperature": 0.6}, {"prefix": 3}], ids=str)
def test_temperature_and_prefix(how):
    model, labels, rows = small_model(torch.float32, fusion="all"), torch.tensor([1, 1]), []
    how = how | ({"prefix": random_pictures(1, dtype=torch.float32)[:, :, :3]} if "prefix" in how else {})
    images = drawn(generate_compiled, model, labels, on_row=lambda i, images: rows.append((i, images.clone())), **how)
    check_equal(images, drawn(sampling.generate, model, labels, **how))
    assert [i for i, _ in rows] == list(range(8)) and torch.equal(rows[3][1][:, :, :4], images[:, :, :4])
    if "prefix" in how:
        assert torch.equal(images[:, :, :3], how["prefix"].expand(2, -1, -1, -1))


def test_the_shipped_networks():
    for name in ("cartoons", "cpen455"):
        model, labels = load_model(name), torch.tensor([3, 0])
        check_equal(drawn(generate_compiled, model, labels), drawn(sampling.generate, model, labels))


def test_a_wrong_label_is_refused():
    for draw in (generate, generate_compiled):
        with pytest.raises(UsageError, match="labels must be whole numbers from 0 to 2"):
            draw(small_model(torch.float32), torch.tensor([3]))


def ways_of(monkeypatch) -> list[str]:
    """By which way `generate` draws, as it goes on."""
    ways: list[str] = []
    for module, name in ((sampling, "generate"), (compiled, "generate_compiled")):
        way = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *of, way=way, name=name, **how: ways.append(name) or way(*of, **how))
    return ways


def test_pytorch_draws_until_the_loop_is_compiled(monkeypatch):
    ways, model, labels = ways_of(monkeypatch), small_model(torch.float32), torch.tensor([0, 1])
    before = torch.random.get_rng_state()
    images = [drawn(generate, model, labels)]
    wait_for(compiled.compiled.is_set)
    images += [drawn(generate, model, labels), drawn(generate, model, labels)]
    assert ways == ["generate", "generate_compiled", "generate_compiled"] and len(compiled.compiling) == 1
    check_equal(images[0], images[1])
    assert torch.equal(images[1], images[2]), "one setting, two pictures"
    assert torch.equal(torch.random.get_rng_state(), before), "compiling took others' random numbers"


def test_new_weights_are_drawn_with(monkeypatch):
    ways, model, labels = ways_of(monkeypatch), small_model(torch.float32), torch.tensor([0, 1])
    drawn(generate, model, labels)
    wait_for(compiled.compiled.is_set)
    first = drawn(generate, model, labels)
    with torch.no_grad():
        model.head.conv.bias += 0.5
    second = drawn(generate, model, labels)
    assert ways[1:] == ["generate_compiled"] * 2 and not torch.equal(first, second)
    check_equal(second, drawn(sampling.generate, model, labels))


def test_without_numba_pytorch_draws_on_without_a_word(monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "kit.widgets.pixel_loop", raising=False)
    ways, model, labels = ways_of(monkeypatch), small_model(torch.float32), torch.tensor([0, 1])
    drawn(generate, model, labels)
    compiled.compiling[0].join()
    images = drawn(generate, model, labels)
    assert ways == ["generate", "generate"] and torch.equal(images, drawn(sampling.generate, model, labels))
    assert capfd.readouterr() == ("", "")


def test_float64_is_left_to_pytorch(monkeypatch):
    ways = ways_of(monkeypatch)
    drawn(generate, small_model(torch.float64), torch.tensor([0, 1]))
    assert ways == ["generate"] and not compiled.compiling


@pytest.mark.parametrize("seconds, device", [({"cpu": 1, "cuda": 2}, "cpu"), ({"cpu": 2, "cuda": 1}, "cuda")])
def test_a_model_on_a_gpu_is_copied_to_the_cpu_where_that_is_quicker(monkeypatch, seconds, device):
    measured: list[str] = []

    def pretended(model, nr_pictures):
        measured.append(kind := model.head.conv.bias.device.type)
        return seconds[kind] * nr_pictures

    monkeypatch.setattr(compiled, "seconds_a_row", pretended)
    with PretendedGpu() as gpu:
        with gpu.fakes, torch.device("cuda", 0):
            model = ConditionalPixelCNN(ModelConfig(3, nr_resnet=1, nr_filters=6, image_size=8)).eval()
        for _ in range(2):
            chosen = on_cpu_if_quicker(model, 4)
            assert chosen.class_names == model.class_names and chosen.training == model.training
            assert chosen.head.conv.bias.device.type == device and (chosen is model) == (device == "cuda")
    assert sorted(measured) == ["cpu", "cuda"], "to be measured once"


def test_on_a_cpu_nothing_is_measured_or_copied(monkeypatch):
    monkeypatch.setattr(compiled, "seconds_a_row", None)
    model = small_model(torch.float32)
    assert on_cpu_if_quicker(model, 4) is model


def test_seconds_a_row_are_those_of_the_second():
    model = small_model(torch.float32, image_size=12)
    rows: list[int] = []
    start_row = sampling.CachedNetwork.start_row
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling.CachedNetwork, "start_row", lambda self, i: (rows.append(i), start_row(self, i))[1])
        assert 0 < seconds_a_row(model, 2) < 10
    assert rows == [0, 1]
