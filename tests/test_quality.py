"""The comparison with a CNN: every number it reports against one worked out another way, and a tiny run of it all."""

import json
import math

import numpy as np
import pytest
import torch
from conftest import random_pictures, save_small_model, small_model, write_pictures
from PIL import Image

from benchmarks import cnn, measures, quality
from utils import checkpoints, mixture
from utils.classify import class_log_likelihoods
from utils.data import load_split


@pytest.fixture
def many_pictures(tmp_path):
    """40 + 40 to train on, 10 + 10 to validate."""
    return write_pictures(tmp_path / "pictures", {"train": 40, "validation": 10}, {"dark": 20, "light": 180}, spread=60)


def test_auroc_by_counting_the_pairs():
    assert measures.auroc(torch.tensor([3.0, 2.0]), torch.tensor([1.0, 2.0])) == (1 + 1 + 1 + 0.5) / 4
    familiar, other = torch.randint(0, 9, (40,)).double(), torch.randint(2, 12, (30,)).double()  # with ties
    pairs = [(a > b) + 0.5 * (a == b) for a in familiar.tolist() for b in other.tolist()]
    assert measures.auroc(familiar, other) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


def test_frechet_distance_at_several_sizes_and_without_their_bias():
    """Of sets from the held-out set's own distribution the distance is 0: what is more is the bias, which sizes add."""
    features = {name: torch.randn(n, 6).double() for name, n in (("few", 160), ("more", 200))}
    lines = measures.frechet_distances(features, torch.randn(4000, 6).double())
    for line in lines:
        assert list(line) == ["pictures", "N = 40", "N = 53", "N = 80", "N = 160", "extrapolated"]
        means = list(line.values())[1:-1]
        assert means == sorted(means, reverse=True) and abs(line["extrapolated"]) < means[-1]
    moved = {"moved": features["few"] + 2}
    (line,) = measures.frechet_distances(moved, features["few"])
    assert line["N = 160"] == pytest.approx(6 * 4, rel=1e-6)


def test_rows_add_up_and_know_nothing_of_what_is_below():
    model, x = small_model(), random_pictures(5)
    rows = measures.row_log_likelihoods(model, x)  # (5, 3, 8)
    assert torch.allclose(rows.sum(2), class_log_likelihoods(model, x))
    covered, below = measures.half_grey(x, "lower half"), measures.half_grey(x, "upper half")
    assert torch.equal(covered[:, :, :4], x[:, :, :4]) and bool((covered[:, :, 4:] == measures.GREY).all())
    assert torch.equal(below[:, :, 4:], x[:, :, 4:]) and bool((below[:, :, :4] == measures.GREY).all())
    of_covered = measures.row_log_likelihoods(model, covered)
    assert torch.allclose(of_covered[:, :, :4], rows[:, :, :4], rtol=0, atol=1e-10)
    assert not torch.allclose(of_covered[:, :, 4:], rows[:, :, 4:])
    of_below = measures.row_log_likelihoods(model, below)
    assert not torch.allclose(of_below[:, :, 4:], rows[:, :, 4:]), "what stands above is looked at"


def test_bits_are_those_of_the_mean_over_the_labels():
    nats = torch.tensor([[-3.0, -4.0], [-5.0, -5.0]]).double()
    assert torch.allclose(measures.bits(nats, 1), -torch.log2(nats.exp().mean(1)) / 3)


def test_augmented_pictures_are_mirrored_and_shifted_ones():
    x, s = random_pictures(1), cnn.SHIFT
    padded = np.pad(x[0].numpy(), ((0, 0), (s, s), (s, s)), mode="edge")
    mirrored = np.pad(x[0].numpy()[:, :, ::-1], ((0, 0), (s, s), (s, s)), mode="edge")
    possible = {p[:, i : i + 8, j : j + 8].tobytes() for p in (padded, mirrored) for i in range(5) for j in range(5)}
    seen = {picture.numpy().tobytes() for picture in cnn.augment(x.expand(1000, -1, -1, -1))}
    assert seen == possible and len(possible) == 50


def test_nearest_other_leaves_out_itself():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]])
    assert measures.nearest_other(x).tolist() == pytest.approx([5 / 2**0.5, 1 / 2**0.5, 1 / 2**0.5])


def test_nearest_by_trying_all():
    a, b = torch.randn(7, 12).double(), torch.randn(9, 12).double()
    distances, which = measures.nearest(a, b)
    for n, query in enumerate(a):
        all_of_them = [float(((query - other) ** 2).mean().sqrt()) for other in b]
        assert distances[n] == pytest.approx(min(all_of_them)) and which[n] == int(np.argmin(all_of_them))


def test_pictures_of_no_class_are_what_they_are_called():
    x = random_pictures(6, dtype=torch.float32)
    sets = measures.pictures_of_no_class(x, "folder", torch.Generator().manual_seed(0))
    for pictures in sets.values():
        assert pictures.shape[1:] == x.shape[1:] and torch.allclose(mixture.to_levels(pictures), pictures, atol=1e-6)
    assert bool((sets["one colour"].flatten(2).std(2) < 1e-6).all())
    shuffled, original = sets["pixels shuffled"].flatten(2), x.flatten(2)
    for before, after in zip(original, shuffled, strict=True):  # whole pixels move, none is lost
        assert sorted(map(tuple, before.T.tolist())) == sorted(map(tuple, after.T.tolist()))
        assert not torch.equal(before, after)
    assert torch.equal(sets["upside down"][:, :, 0], x[:, :, -1])
    for dataset in ("cartoons", "cartoons-hard"):
        assert not any("cartoons" in name for name in measures.pictures_of_no_class(x, dataset, torch.Generator()))
    assert torch.equal(sets["upper half grey"][:, :, 4:], x[:, :, 4:])


def test_cartoons_without_their_grain_are_the_same_drawings():
    """What is left of the difference is the grain: 4 levels of every channel, where no end of the scale cuts it off."""
    usual, smooth = (
        d.images.double() for d in (load_split("cartoons", "validation"), measures.cartoons_without_grain(32))
    )
    grain = (usual - smooth)[(smooth > 20) & (smooth < 235)]
    assert abs(grain.mean()) < 0.05 and grain.std() == pytest.approx((16 + 1 / 12) ** 0.5, abs=0.05)
    assert torch.equal(load_split("cartoons", "validation").images.double(), usual), "only these are without"
    row = smooth[:, :, 0, :8]  # a corner of wall
    assert bool((row == row[:, :, :1]).all(2).all(1).double().mean() > 0.5)


def test_the_cnn_is_small():
    assert sum(p.numel() for p in cnn.SmallCNN(4).parameters()) < 1_400_000


def test_a_tiny_run_of_everything(many_pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cnn, "WIDTHS", (8, 8, 16, 16))
    monkeypatch.setattr(cnn, "LR", 2e-2)
    weights, out = save_small_model(tmp_path / "two.safetensors", 2), tmp_path / "out" / "quality.json"
    other = save_small_model(tmp_path / "other.safetensors", 2)
    flags = ["--checkpoint", str(weights), "--dataset", "folder", "--data-root", str(many_pictures), "--device", "cpu"]
    flags += ["--epochs", "60", "--per-class", "6", "--out", str(out)]
    assert quality.main([*flags, "--against", str(other)]) == 0
    printed, results = capsys.readouterr().out, json.loads(out.read_text())
    counts = {"CNN's training": 72, "held out": 8, "validation": 20, "drawn": 12}
    assert results["counts"] == counts and results["split"] == "folder validation"
    assert "--epochs 60" in results["command"]
    sections = results["sections"]
    assert len(sections) == 9 and all(title in printed for title in sections)

    best, generative = sections["classification"]
    assert best["accuracy"] == 1.0, "dark and light are easy"
    nats = class_log_likelihoods(
        checkpoints.load_model(weights), load_split("folder", "validation", many_pictures, 8).tensors()[0]
    )
    labels = torch.tensor([0] * 10 + [1] * 10)
    assert generative["accuracy"] == pytest.approx((nats.argmax(1) == labels).double().mean().item())
    for row in (best, generative):  # Wilson's interval by its formula
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
    covered = sections["half covered, accuracy"]
    assert [(row["missing"], row["model"]) for row in covered] == [
        (half, model) for half in ("lower half", "upper half") for model in ("CNN", str(weights))
    ]
    model, rows = checkpoints.load_model(weights), {}
    for half, seen in (("lower half", slice(0, 4)), ("upper half", slice(4, 8))):
        rows[half] = measures.row_log_likelihoods(model, measures.half_grey(x, half))[:, :, seen].sum(2)
    for own, of_cnn in zip(covered[1::2], covered[::2], strict=True):
        assert of_cnn["grey left out"] is None and own["whole"] == generative["accuracy"]
        right = (rows[own["missing"]].argmax(1) == labels).double().mean().item()
        assert own["grey left out"] == pytest.approx(right)
    distances = sections["Fréchet distance to 8 held-out training pictures, CNN's features"]
    assert list(distances[0]) == ["pictures", "N = 3", "N = 4", "N = 6", "N = 12", "extrapolated"]
    assert [row["pictures"] for row in distances] == ["drawn", "guided", "validation"]
    for row in distances[:2]:
        assert row["N = 12"] > distances[2]["N = 12"], "an untrained model's pictures are farther than real ones"
    pictures = sections["nearest training picture, root mean square distance"]
    assert [row["pictures"] for row in pictures] == 2 * ["drawn", "guided", "validation"]

    pairs = sections["paired tests"]
    own = str(weights)
    names = [(f"{own} --mirror", own), (f"{own} --calibrate 20", own), (str(other), own), (own, "CNN")]
    assert [(row["A"], row["B"]) for row in pairs] == [*names, (str(other), "CNN")]
    for row in pairs:
        assert (row["A alone right"] - row["B alone right"]) / 20 == pytest.approx(
            row["A's accuracy"] - row["B's accuracy"]
        )
        assert row["labels that differ"] >= row["A alone right"] + row["B alone right"]
    wrong = 20 - round(20 * generative["accuracy"])
    assert (pairs[3]["A alone right"], pairs[3]["B alone right"]) == (0, wrong), "the CNN is always right"
    assert pairs[3]["p"] == pytest.approx(2 / 2**wrong)
    worth, *_ = sections["what knowing the class is worth"]
    nats = class_log_likelihoods(model, x).double()
    saved = nats[torch.arange(20), labels] - (torch.logsumexp(nats, 1) - math.log(2))
    assert (
        worth["bits of a picture"] == pytest.approx(saved.mean().item() / math.log(2), abs=1e-4)
        and worth["at most"] == 1
    )
    with Image.open(out.with_suffix(".png")) as figure:
        assert figure.width > figure.height

    assert quality.TIMES not in sections
    assert quality.main([*flags, "--time"]) == 0
    timed = json.loads(out.read_text())
    assert [row["model"] for row in timed["sections"][quality.TIMES]] == ["CNN", own]
    assert all(row["ms an image"] > 0 and row["date"] and row["machine"] for row in timed["sections"][quality.TIMES])
    assert timed == results | {"sections": sections | {quality.TIMES: timed["sections"][quality.TIMES]}}
    flags[flags.index("60")] = "1"
    assert quality.main(flags) == 0
    again = json.loads(out.read_text())["sections"]
    assert again[quality.TIMES] == timed["sections"][quality.TIMES], "another run keeps the times"

    flags[flags.index(str(out))] = str(tmp_path / "alone.json")
    assert quality.main([*flags, "--time"]) == 2 and "run this without --time first" in capsys.readouterr().err
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
