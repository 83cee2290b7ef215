"""The comparison with a CNN: every number it reports against one worked out another way, and a tiny run of it all."""

import json
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import random_pictures, save_small_model, small_model, write_pictures
from PIL import Image

from benchmarks import quality
from utils import checkpoints, mixture
from utils.classify import class_log_likelihoods
from utils.data import load_split


@pytest.fixture
def many_pictures(tmp_path):
    """40 + 40 to train on, 10 + 10 to validate."""
    return write_pictures(tmp_path / "pictures", {"train": 40, "validation": 10}, {"dark": 20, "light": 180}, spread=60)


def test_auroc_by_counting_the_pairs():
    assert quality.auroc(torch.tensor([3.0, 2.0]), torch.tensor([1.0, 2.0])) == (1 + 1 + 1 + 0.5) / 4
    familiar, other = torch.randint(0, 9, (40,)).double(), torch.randint(2, 12, (30,)).double()  # with ties
    pairs = [(a > b) + 0.5 * (a == b) for a in familiar.tolist() for b in other.tolist()]
    assert quality.auroc(familiar, other) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


def test_frechet_distance_against_scipys_matrix_root():
    a, b = torch.randn(50, 6).double(), (torch.randn(40, 6) @ torch.randn(6, 6) + 1).double()
    cov_a, cov_b = np.cov(a.numpy().T), np.cov(b.numpy().T)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    gap = ((a.mean(0) - b.mean(0)) ** 2).sum().item()
    assert quality.frechet(a, b) == pytest.approx(gap + np.trace(cov_a + cov_b - 2 * root), rel=1e-9)
    assert quality.frechet(a, a) == pytest.approx(0, abs=1e-9)
    few = torch.randn(4, 6).double()  # fewer pictures than dimensions: covariances without an inverse
    assert quality.frechet(few, few + 2) == pytest.approx(6 * 4, rel=1e-6)


def test_rows_add_up_and_know_nothing_of_what_is_below():
    model, x = small_model(), random_pictures(5)
    rows = quality.row_log_likelihoods(model, x)  # (5, 3, 8)
    assert torch.allclose(rows.sum(2), class_log_likelihoods(model, x))
    covered = quality.half_covered(x)
    assert torch.equal(covered[:, :, :4], x[:, :, :4]) and bool((covered[:, :, 4:] == quality.GREY).all())
    of_covered = quality.row_log_likelihoods(model, covered)
    assert torch.allclose(of_covered[:, :, :4], rows[:, :, :4], rtol=0, atol=1e-10)
    assert not torch.allclose(of_covered[:, :, 4:], rows[:, :, 4:])


def test_bits_are_those_of_the_mean_over_the_labels():
    nats = torch.tensor([[-3.0, -4.0], [-5.0, -5.0]]).double()
    assert torch.allclose(quality.bits(nats, 1), -torch.log2(nats.exp().mean(1)) / 3)


def test_augmented_pictures_are_mirrored_and_shifted_ones():
    x, s = random_pictures(1), quality.SHIFT
    padded = np.pad(x[0].numpy(), ((0, 0), (s, s), (s, s)), mode="edge")
    mirrored = np.pad(x[0].numpy()[:, :, ::-1], ((0, 0), (s, s), (s, s)), mode="edge")
    possible = {p[:, i : i + 8, j : j + 8].tobytes() for p in (padded, mirrored) for i in range(5) for j in range(5)}
    seen = {picture.numpy().tobytes() for picture in quality.augment(x.expand(1000, -1, -1, -1))}
    assert seen == possible and len(possible) == 50


def test_nearest_by_trying_all():
    a, b = torch.randn(7, 12).double(), torch.randn(9, 12).double()
    distances, which = quality.nearest(a, b)
    for n, query in enumerate(a):
        all_of_them = [float(((query - other) ** 2).mean().sqrt()) for other in b]
        assert distances[n] == pytest.approx(min(all_of_them)) and which[n] == int(np.argmin(all_of_them))


def test_pictures_of_no_class_are_what_they_are_called():
    x = random_pictures(6, dtype=torch.float32)
    sets = quality.pictures_of_no_class(x, "folder", torch.Generator().manual_seed(0))
    for pictures in sets.values():
        assert pictures.shape[1:] == x.shape[1:] and torch.allclose(mixture.to_levels(pictures), pictures, atol=1e-6)
    assert bool((sets["one colour"].flatten(2).std(2) < 1e-6).all())
    shuffled, original = sets["pixels shuffled"].flatten(2), x.flatten(2)
    for before, after in zip(original, shuffled, strict=True):  # whole pixels move, none is lost
        assert sorted(map(tuple, before.T.tolist())) == sorted(map(tuple, after.T.tolist()))
        assert not torch.equal(before, after)
    assert torch.equal(sets["upside down"][:, :, 0], x[:, :, -1])
    assert "cartoons" in sets and "cartoons" not in quality.pictures_of_no_class(x, "cartoons", torch.Generator())


def test_the_cnn_is_small():
    assert sum(p.numel() for p in quality.SmallCNN(4).parameters()) < 1_400_000


def test_a_tiny_run_of_everything(many_pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(quality, "WIDTHS", (8, 8, 16, 16))
    monkeypatch.setattr(quality, "LR", 2e-2)
    weights, out = save_small_model(tmp_path / "two.safetensors", 2), tmp_path / "out" / "quality.json"
    flags = ["--checkpoint", str(weights), "--dataset", "folder", "--data-root", str(many_pictures), "--device", "cpu"]
    flags += ["--epochs", "60", "--per-class", "6", "--out", str(out)]
    assert quality.main(flags) == 0
    printed, results = capsys.readouterr().out, json.loads(out.read_text())
    counts = {"CNN's training": 72, "held out": 8, "validation": 20, "drawn": 12}
    assert results["counts"] == counts and results["split"] == "folder validation"
    assert "--epochs 60" in results["command"]
    sections = results["sections"]
    assert len(sections) == 7 and all(title in printed for title in sections)

    cnn, generative = sections["classification"]
    assert cnn["accuracy"] == 1.0, "dark and light are easy"
    nats = class_log_likelihoods(
        checkpoints.load_model(weights), load_split("folder", "validation", many_pictures, 8).tensors()[0]
    )
    labels = torch.tensor([0] * 10 + [1] * 10)
    assert generative["accuracy"] == pytest.approx((nats.argmax(1) == labels).double().mean().item())
    for row in (cnn, generative):  # Wilson's interval by its formula
        p, n, z = row["accuracy"], 20, 1.959963984540054
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        assert row["95 % from"] == pytest.approx((middle - half) / (1 + z * z / n))
        assert row["to"] == pytest.approx((middle + half) / (1 + z * z / n))
    moved = sections["moved to the right, the edge repeated"]
    x = load_split("folder", "validation", many_pictures, 8).tensors()[0]
    nats = class_log_likelihoods(checkpoints.load_model(weights), torch.cat([x[..., :1]] * 4 + [x[..., :4]], dim=3))
    assert moved[0][str(weights)] == generative["accuracy"] and moved[0]["CNN"] == 1.0
    assert moved[2]["pixels"] == 4
    assert moved[2][str(weights)] == pytest.approx((nats.argmax(1) == labels).double().mean().item())
    assert moved[2]["bits/dim"] == pytest.approx(
        (math.log(2) - torch.logsumexp(nats, 1)).mean().item() / (3 * 64 * math.log(2)), rel=1e-4
    )
    covered = sections["lower half grey, accuracy"]
    assert covered[0]["grey left out"] is None and covered[1]["whole"] == generative["accuracy"]
    distances = sections["Fréchet distance to held-out training pictures, CNN's features"]
    assert [row["count"] for row in distances] == [8, 8]
    assert distances[0]["distance"] > distances[1]["distance"], (
        "an untrained model's pictures are farther than real ones"
    )
    with Image.open(out.with_suffix(".png")) as figure:
        assert figure.width > figure.height

    flags[flags.index(str(out))] = str(tmp_path / "alone.json")
    assert quality.main([*flags, "--cnn-only"]) == 0
    alone = json.loads((tmp_path / "alone.json").read_text())
    assert list(alone["sections"]) == ["classification"] and not (tmp_path / "alone.png").exists()


@pytest.mark.parametrize(
    "classes, more, words",
    [(3, [], "2 classes"), (2, ["--epochs", "0"], "--epochs"), (2, ["--dataset", "mnist"], "unknown data set")],
)
def test_wrong_input_is_one_line_and_writes_nothing(many_pictures, tmp_path, capsys, classes, more, words):
    weights, out = save_small_model(tmp_path / "model.safetensors", classes), tmp_path / "out" / "quality.json"
    flags = ["--checkpoint", str(weights), "--dataset", "folder", "--data-root", str(many_pictures), "--out", str(out)]
    assert quality.main([*flags, *more]) == 2
    printed = capsys.readouterr()
    assert words in printed.err and printed.err.count("\n") == 1 and printed.out == ""
    assert not out.parent.exists()
