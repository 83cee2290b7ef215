"""`submit` on data sets other than the course's: whose numbers and names are handed in, and what is said of hybrids."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import small_model, tiny

from kit.__main__ import main
from kit.train import train
from utils import cartoons, checkpoints, note
from utils.classify import class_log_likelihoods
from utils.data import CPEN455_CLASSES, load_split


def submitted(capsys, tmp_path, *flags, status=0):
    """The rows of the file that `submit` writes, and what it says."""
    capsys.readouterr()
    note.cache_clear()  # it says nothing twice
    command = ["submit", "--device=cpu", "--out", tmp_path / "team.csv", *flags]
    assert main(list(map(str, command))) == status
    said = capsys.readouterr()
    return [row.split(",") for row in (tmp_path / "team.csv").read_text().split()], said


def saved(path, class_names):
    model = small_model(torch.float32, num_classes=len(class_names))
    model.class_names = class_names
    checkpoints.save_model(model, path)
    return model


@pytest.mark.parametrize("dataset", ["cartoons", "cartoons-hard"])
def test_cartoons(tmp_path, capsys, monkeypatch, dataset):
    draw = cartoons.draw

    def few(split, image_size, hard):
        """Of 24 brightnesses, so that the model calls them differently."""
        images, labels = draw(split, image_size, hard=hard)
        return (images[:24] * np.linspace(0, 1, 24)[:, None, None, None]).astype(np.uint8), labels[:24]

    monkeypatch.setattr(cartoons, "draw", few)
    model = saved(tmp_path / "model.safetensors", ("pizza", "koala", "burger", "panda"))
    flags = ["--checkpoint", tmp_path / "model.safetensors", "--dataset", dataset, "--keep-log-likelihoods"]
    rows, said = submitted(capsys, tmp_path, *flags)
    test = load_split(dataset, "test", image_size=8)
    with torch.no_grad():
        nats = class_log_likelihoods(model, test.tensors()[0])
    names = [model.class_names[n] for n in nats.argmax(dim=1).tolist()]
    assert len(set(names)) > 1
    assert rows == [[f"test/{n:04d}", str(cartoons.CLASSES.index(name))] for n, name in enumerate(names)]
    columns = [model.class_names.index(name) for name in cartoons.CLASSES]
    np.testing.assert_allclose(np.load(tmp_path / "team.npy"), nats[:, columns].numpy(), rtol=1e-5)
    assert f"team.csv: {dataset} test split, 24 pictures" in said.out and not said.err


def test_ten_classes(tmp_path, capsys, monkeypatch):
    import torchvision.datasets

    class Official:
        """A stand-in for torchvision's reader: the official files cannot be fetched in a test."""

        classes = tuple("jihgfedcba")

        def __init__(self, root, train, download):
            self.data = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
            self.data[:] = self.data.mean(axis=(1, 2), keepdims=True) * np.linspace(0.2, 2, 30)[:, None, None, None]
            self.targets = [0] * 30

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Official)
    model = saved(tmp_path / "model.safetensors", tuple("abcdefghij"))
    rows, _ = submitted(capsys, tmp_path, "--checkpoint", tmp_path / "model.safetensors", "--dataset=cifar10")
    with torch.no_grad():
        nats = class_log_likelihoods(model, load_split("cifar10", "test", image_size=8).tensors()[0])
    expected = [9 - n for n in nats.argmax(dim=1).tolist()]  # the data set's order is the model's backwards
    assert [int(label) for _, label in rows] == expected and max(expected) > 3
    assert [name for name, _ in rows] == [f"test/{n:05d}" for n in range(30)]


def test_a_folder(picture_folder, tmp_path, capsys):
    saved(tmp_path / "model.safetensors", ("light", "dark"))
    flags = ["--checkpoint", tmp_path / "model.safetensors", "--dataset=folder", "--data-root", picture_folder]
    rows, _ = submitted(capsys, tmp_path, *flags)
    assert [name for name, _ in rows] == load_split("folder", "test", picture_folder, 8).names
    for name in ("train", "validation", "test"):
        (picture_folder / name / "dark").rename(picture_folder / name / "dusk")
    _, said = submitted(capsys, tmp_path, *flags, status=2)
    assert said.err.startswith("error: the data set has the classes dusk, light;") and said.err.count("\n") == 1
    _, said = submitted(capsys, tmp_path, *flags[:3], status=2)
    assert "'folder' needs --data-root" in said.err
    _, said = submitted(capsys, tmp_path, *flags[:2], "--dataset=cats", status=2)
    assert "unknown data set 'cats'" in said.err


def test_hybrids_are_told_how_the_file_is_to_be_called(picture_folder, course_data, tmp_path, capsys, monkeypatch):
    runs = tmp_path / "runs"
    monkeypatch.setenv("PIXELCNN_RUNS", str(runs))
    train(*tiny(picture_folder, epochs=1, hybrid=0.1), "both")
    train(*tiny(picture_folder, epochs=1), "plain")
    capsys.readouterr()
    folder = ["--dataset=folder", "--data-root", picture_folder]
    word = "not purely generative: call the file TEAM-hybrid.csv or TEAM-hybrid/submission.csv"

    def said(*flags):
        return submitted(capsys, tmp_path, *folder, *flags)[1].err

    assert said("--checkpoint=plain") == ""
    assert said("--checkpoint=both") == f"note: both was trained with --hybrid, so the labels are {word}\n"
    assert "note: both was trained" in said("--checkpoint=plain", "--ensemble=both", "--mirror")
    (tmp_path / "team-hybrid").mkdir()
    assert word in said("--checkpoint=both", "--out", tmp_path / "team-hybrid" / "team.csv")
    for name in ("team-Hybrid.csv", "team-hybrid/submission.csv"):
        assert said("--checkpoint=both", "--out", tmp_path / name) == ""
    (runs / "both" / "config.json").write_text(json.dumps({"train": 3}))  # nothing that a run has written
    assert said("--checkpoint", runs / "both" / "best.safetensors") == ""

    saved(tmp_path / "cpen455-hybrid.safetensors", CPEN455_CLASSES)  # as the shipped weights are called
    shutil.copy(tmp_path / "cpen455-hybrid.safetensors", tmp_path / "cpen455.safetensors")
    for name, expected in (("cpen455-hybrid", True), ("cpen455", False)):
        flags = ["--checkpoint", tmp_path / f"{name}.safetensors", "--data-root", course_data]
        assert (word in submitted(capsys, tmp_path, *flags)[1].err) == expected
