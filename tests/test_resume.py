"""A run goes on as it was, whatever has happened to its files meanwhile, or is refused and left as it is."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ALL_AT_ONCE, TIMING, tiny, write_pictures

from kit import report, runs, sweep
from kit import train as loop
from kit.__main__ import main
from kit.commands.demo import print_epoch
from kit.metrics import add_metrics, best_epoch, keep_metrics, read_metrics, validated, whole
from kit.runs import Stopped, read_config, seed_step
from kit.train import train
from utils import UsageError, checkpoints, training
from utils.data import ImageDataset, load_split
from utils.device import pick_precision


def state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def numbers(folder: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k not in TIMING} for line in read_metrics(folder / "metrics.jsonl")]


@pytest.fixture
def finished(picture_folder, tmp_path) -> Path:
    return train(*tiny(picture_folder, epochs=3, lr=0.01), tmp_path / "run")


class Cut(Exception):
    pass


def cut_after(epoch: int):
    def on_epoch(line):
        if line["epoch"] == epoch:
            raise Cut

    return on_epoch


# --- what is lost


@pytest.mark.parametrize("damage", ["lost", "empty", "zeros", "a list", "other numbers"])
def test_without_last_pt_it_goes_on_from_previous_pt_and_says_so_once(finished, picture_folder, capsys, damage):
    expected, lines = state(finished), numbers(finished)
    last = finished / "last.pt"
    if damage == "lost":
        last.unlink()
    elif damage in ("a list", "other numbers"):
        torch.save([torch.ones(2)] if damage == "a list" else {"weights": torch.ones(2)}, last)
    else:
        last.write_bytes(bytes(5000 if damage == "zeros" else 0))
    train(*tiny(picture_folder, epochs=3, lr=0.01), finished, resume=True)
    said = capsys.readouterr().err
    assert said.count("note: ") == 1 and f"{last}" in said and "going on from previous.pt, epoch 2\n" in said
    assert numbers(finished) == lines
    for name in ("last.safetensors", "best.safetensors", "config.json"):
        assert (finished / name).read_bytes() == expected[name]


def test_a_damaged_last_pt_does_not_become_previous_pt(finished, picture_folder):
    """Killed again before it could save: what is whole is still there."""
    (finished / "last.pt").write_bytes(b"damaged")
    with pytest.raises(Cut):
        train(*tiny(picture_folder, epochs=9, lr=0.01, checkpoint_every=9), finished, True, cut_after(3))
    assert [runs.load_state(finished / name)["epoch"] for name in ("last.pt", "previous.pt")] == [2, 2]


@pytest.mark.parametrize("kept", ["metrics.jsonl", "best.safetensors", "last.safetensors"])
def test_a_run_that_has_epochs_but_no_state_is_not_begun_anew(finished, picture_folder, kept):
    for path in finished.iterdir():
        if path.name not in ("config.json", kept):
            path.unlink()
    before = state(finished)
    with pytest.raises(UsageError, match=rf"no .*last.pt .*no .*previous.pt .*holds {kept}: put one of them back"):
        train(*tiny(picture_folder, epochs=4), finished, resume=True)
    assert state(finished) == before


@pytest.mark.parametrize("kept", ["metrics.jsonl", "best.safetensors", "last.pt", "previous.pt"])
def test_a_new_run_does_not_begin_in_a_folder_whose_config_is_lost(finished, picture_folder, kept):
    for path in finished.iterdir():
        if path.name != kept:
            path.unlink()
    before = state(finished)
    with pytest.raises(UsageError, match=rf"holds {kept} of a run whose config.json is lost: put it back"):
        train(*tiny(picture_folder), finished)
    assert state(finished) == before


def test_a_run_that_was_killed_before_it_first_saved_begins_anew(finished, picture_folder, capsys):
    expected = state(finished)
    for path in finished.iterdir():
        if path.name != "config.json":
            path.unlink()
    (finished / "metrics.jsonl").touch()
    train(*read_config(finished), finished, resume=True)
    assert "note" not in capsys.readouterr().err
    assert (finished / "last.safetensors").read_bytes() == expected["last.safetensors"]


def test_killed_long_before_the_first_checkpoint_it_begins_anew(picture_folder, tmp_path):
    """Lines and the best weights are there then, and a state from before the first epoch: nothing is lost."""
    configs = tiny(picture_folder, epochs=4, checkpoint_every=4, lr=0.01)
    whole = train(*configs, tmp_path / "whole")
    with pytest.raises(Cut):
        train(*configs, tmp_path / "parts", on_epoch=cut_after(2))
    assert len(numbers(tmp_path / "parts")) == 2 and (tmp_path / "parts" / "best.safetensors").exists()
    parts = train(*configs, tmp_path / "parts", resume=True)
    assert numbers(parts) == numbers(whole)
    assert (parts / "last.safetensors").read_bytes() == (whole / "last.safetensors").read_bytes()


@pytest.mark.parametrize("lost", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_best_weights_that_were_lost_are_written_again(finished, picture_folder, lost):
    lost(finished / "best.safetensors")
    configs = tiny(picture_folder, epochs=5, lr=1e-12)
    metrics_file = finished / "metrics.jsonl"
    first, *rest = metrics_file.read_text().splitlines()
    metrics_file.write_text("\n".join([json.dumps(json.loads(first) | {"validation_bpd": 0.001}), *rest]) + "\n")
    runs.save_state(runs.load_state(finished / "last.pt") | {"best": 0.001}, finished / "last.pt")  # none is better
    train(*configs, finished, resume=True)
    assert best_epoch(finished)["epoch"] > 3 and is_best(finished, picture_folder)


def is_best(folder, pictures) -> bool:
    """Whether the best weights give what the best line says."""
    weights = checkpoints.load_model(folder / "best.safetensors")
    precision = pick_precision(torch.device("cpu"), "auto")
    bits, _ = training.validate(weights, load_split("folder", "validation", pictures, 8), precision=precision)
    return bits == pytest.approx(best_epoch(folder)["validation_bpd"], abs=2e-5)


@pytest.mark.parametrize("name", ["best", "last"])
def test_weights_that_a_finished_run_has_lost_are_written_again(finished, picture_folder, name):
    file, lines = finished / f"{name}.safetensors", numbers(finished)
    expected = file.read_bytes()
    runs.save_state(runs.load_state(finished / "last.pt") | {"best": 0.001}, finished / "last.pt")
    file.unlink()
    for _ in range(2):  # the second has nothing to do
        train(*tiny(picture_folder, epochs=3, lr=0.01), finished, resume=True)
    assert [line["epoch"] for line in numbers(finished)] == [1, 2, 3]
    if name == "last":
        assert file.read_bytes() == expected and numbers(finished) == lines
    else:
        assert best_epoch(finished)["epoch"] == 3 and is_best(finished, picture_folder)
        assert runs.load_state(finished / "last.pt")["best"] > 0.001


def test_a_lost_line_of_a_run_whose_best_weights_are_lost_too(finished, picture_folder):
    (finished / "best.safetensors").unlink()
    (finished / "metrics.jsonl").write_text((finished / "metrics.jsonl").read_text().partition("\n")[0] + "\n")
    train(*tiny(picture_folder, epochs=3, lr=0.01), finished, resume=True)
    assert best_epoch(finished)["epoch"] == 3 and is_best(finished, picture_folder)


def test_the_epoch_it_stands_at_is_validated_when_it_becomes_the_last(picture_folder, tmp_path):
    with pytest.raises(Cut):
        train(*tiny(picture_folder, epochs=9, validate_every=9), tmp_path / "run", on_epoch=cut_after(2))
    last = tmp_path / "run" / "last.safetensors"
    assert checkpoints.find_weights("run", tmp_path) == last, "it has no best weights yet"
    folder = train(*tiny(picture_folder, epochs=2, validate_every=9), tmp_path / "run", resume=True)
    assert ["validation_bpd" in line for line in numbers(folder)] == [False, True]
    assert best_epoch(folder)["epoch"] == 2 and is_best(folder, picture_folder)
    assert checkpoints.find_weights("run", tmp_path) == folder / "best.safetensors"


def test_an_earlier_validation_does_not_stand_for_the_last_epochs(picture_folder, tmp_path):
    with pytest.raises(Cut):
        train(*tiny(picture_folder, epochs=9, validate_every=2), tmp_path / "run", on_epoch=cut_after(3))
    folder = train(*tiny(picture_folder, epochs=3, validate_every=2), tmp_path / "run", resume=True)
    assert ["validation_bpd" in line for line in numbers(folder)] == [False, True, True]
    assert is_best(folder, picture_folder)


def test_an_epoch_under_way_cannot_be_left_out(picture_folder, tmp_path, monkeypatch):
    stopped_in_mid_epoch(picture_folder, tmp_path / "run", monkeypatch)
    with pytest.raises(UsageError, match=r"has begun its epoch 2, it cannot end at 1: give --epochs 2 or more"):
        train(*tiny(picture_folder, epochs=1, batch_size=2), tmp_path / "run", resume=True)


def stopped_in_mid_epoch(pictures, folder, monkeypatch) -> None:
    """In the second epoch, after 4 of 6 batches."""
    asked = iter([False] * 10 + [True] * 9)
    with monkeypatch.context() as patch, pytest.raises(Stopped, match="in epoch 2, after 4 of 6 batches"):
        patch.setattr(runs.StopRequest, "reason", lambda _self: "enough" if next(asked) else "")
        train(*tiny(pictures, epochs=3, batch_size=2), folder)


def test_a_run_does_not_end_before_what_it_has_learned(finished, picture_folder):
    before = state(finished)
    with pytest.raises(UsageError, match=r"trained for 3 epochs, it cannot end at 2: give --epochs 3 or more"):
        train(*tiny(picture_folder, epochs=2, lr=0.01), finished, resume=True)
    assert state(finished) == before


def test_left_overs_of_killed_processes_go(finished, picture_folder):
    for name in (".gallery.png.123.tmp", ".last.pt.7.tmp"):
        (finished / name).write_bytes(b"half")
    train(*tiny(picture_folder, epochs=3, lr=0.01), finished, resume=True)
    assert not list(finished.glob(".*"))


# --- config.json


def test_a_config_with_a_byte_order_mark_is_read(finished):
    expected = read_config(finished)
    (finished / "config.json").write_text((finished / "config.json").read_text(), encoding="utf-8-sig")
    assert read_config(finished) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(b"", bytes(200), b'{"model": {', b"\xff\xfe\x00", b"[]"),
        *(b'{"model": 3, "train": {}}', b'{"model": {}, "train": 1}'),
        b'{"model": {"num_classes": 2}, "train": {"epochs": "many"}}',
    ],
)
def test_a_damaged_config_is_one_line(finished, text, monkeypatch, capsys):
    monkeypatch.setenv("PIXELCNN_RUNS", str(finished.parent))
    (finished / "config.json").write_bytes(text)
    before = state(finished)
    assert main(["train", "--run=run", "--resume"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "config.json is damaged: " in said
    assert state(finished) == before


# --- metrics.jsonl


def test_lines_are_whole_and_one_for_each_epoch(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for torn in (b'{"epoch": 2, "tr', b"\0" * 70, b"\n\n", b'"a word"\n', b'{"no epoch": 1}\n', b""):
        path.write_bytes(b'{"epoch": 1, "a": 0}\n{"epoch": 1, "a": 5}\n' + torn)
        assert read_metrics(path) == [{"epoch": 1, "a": 5}]
        add_metrics(tmp_path, {"epoch": 2, "a": 6})
        assert path.read_bytes().endswith(b'\n{"epoch": 2, "a": 6}\n')
        assert read_metrics(path) == [{"epoch": 1, "a": 5}, {"epoch": 2, "a": 6}]
        keep_metrics(tmp_path, 1)
        assert path.read_bytes() == b'{"epoch": 1, "a": 5}\n'


def test_lines_that_are_kept_are_those_of_saved_epochs(finished, picture_folder):
    """Torn lines, and those of epochs whose state is lost, are not counted among them."""
    lines, path = numbers(finished), finished / "metrics.jsonl"
    first, second, third = path.read_text().splitlines(keepends=True)
    path.write_text(first[:40] + "\n" + first + third + '{"epoch": 9}\n' + second[:30])
    shutil.copy(finished / "previous.pt", finished / "last.pt")  # after epoch 2
    train(*tiny(picture_folder, epochs=4, lr=0.01), finished, resume=True)
    assert [line["epoch"] for line in numbers(finished)] == [1, 3, 4]  # a line that was lost cannot be had again
    assert [numbers(finished)[i] for i in (0, 1)] == [lines[0], lines[2]]


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UsageError, match=r"cannot save .*metrics.jsonl: "):
        add_metrics(tmp_path, {"epoch": 1})


# --- classes meet by name


def with_classes(monkeypatch, order) -> None:
    """Folders are read as if their classes stood in another order, or had other names."""
    real = loop.load_pictures.__globals__["data"].load_split

    def load(*args, **kwargs):
        pictures = real(*args, **kwargs)
        names = tuple(order)
        if sorted(names) != sorted(pictures.classes):
            return ImageDataset(pictures.images, pictures.labels, names, pictures.names)
        return pictures.with_classes(names, "the test")

    monkeypatch.setattr("utils.data.load_split", load)


@pytest.mark.parametrize("names_in", ["config.json", "last.safetensors", "best.safetensors"])
def test_a_resumed_run_keeps_its_order_of_classes(picture_folder, tmp_path, monkeypatch, names_in):
    """Older runs have the names in their weights only."""
    configs = tiny(picture_folder, epochs=4, fusion="all", lr=0.01)
    whole = train(*configs, tmp_path / "whole")
    with pytest.raises(Cut):
        train(*configs, tmp_path / "parts", on_epoch=cut_after(2))
    parts = tmp_path / "parts"
    values = json.loads((parts / "config.json").read_text())
    assert values.pop("classes") == ["dark", "light"] and values.pop("pictures") == 12
    if names_in != "config.json":
        (parts / "config.json").write_text(json.dumps(values))
        other = {"last.safetensors", "best.safetensors"} - {names_in}
        (parts / other.pop()).write_bytes(b"")
    with_classes(monkeypatch, ["light", "dark"])
    train(*configs, parts, resume=True)
    assert numbers(parts) == numbers(whole)
    for name in ("last.safetensors", "best.safetensors", "config.json"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("old", [False, True])
def test_a_resumed_run_refuses_other_classes(finished, picture_folder, monkeypatch, old):
    if old:
        values = json.loads((finished / "config.json").read_text())
        del values["classes"]
        (finished / "config.json").write_text(json.dumps(values))
    before = state(finished)
    for others, match in ((["dark", "grey"], "dark, grey; run .* has others: dark, light"), (["a", "b"], "a, b; run")):
        with monkeypatch.context() as patch, pytest.raises(UsageError, match=match):
            with_classes(patch, others)
            train(*tiny(picture_folder, epochs=4, lr=0.01), finished, resume=True)
    assert state(finished) == before


def test_a_new_run_takes_the_order_of_the_weights_it_begins_with(picture_folder, tmp_path, monkeypatch):
    first = train(*tiny(picture_folder, fusion="all", epochs=3, lr=0.01), tmp_path / "first")
    given = checkpoints.load_model(first / "last.safetensors")
    for rows in given.fusion.maps.values():
        rows.weight.data = rows.weight.data.flip(0)
    given.class_names = ("light", "dark")
    checkpoints.save_model(given, tmp_path / "turned.safetensors")
    lines, start = [], {"fusion": "all", "epochs": 1, "lr": 1e-12}
    for name, weights in (("a", first / "last.safetensors"), ("b", tmp_path / "turned.safetensors")):
        folder = train(*tiny(picture_folder, init=str(weights), **start), tmp_path / name)
        lines.append(numbers(folder)[0]["validation_bpd"])
        order = ["dark", "light"] if name == "a" else ["light", "dark"]
        assert json.loads((folder / "config.json").read_text())["classes"] == order
        assert [*checkpoints.load_model(folder / "best.safetensors").class_names] == order
    assert (
        lines[0] == pytest.approx(lines[1], abs=2e-5) == pytest.approx(numbers(first)[-1]["validation_bpd"], abs=2e-5)
    )
    given.class_names = ("light", "grey")
    checkpoints.save_model(given, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match=r"dark, light; --init .*other.safetensors has others: light, grey"):
        train(*tiny(picture_folder, init=str(tmp_path / "other.safetensors"), **start), tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("bases", [{"dark": 20}, {"dark": 20, "grey": 100, "light": 200}])
def test_a_network_for_another_number_of_classes(tmp_path, bases):
    pictures = write_pictures(tmp_path / "folder", {"train": 4, "validation": 2}, bases, spread=40)
    with pytest.raises(UsageError, match=rf"folder has {len(bases)} classes \(dark.*\), the network is made for 2"):
        train(*tiny(pictures), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pictures_that_came_or_went_are_refused(finished, picture_folder):
    extra = picture_folder / "train" / "dark" / "more.png"
    shutil.copy(picture_folder / "train" / "dark" / "0.png", extra)
    before = state(finished)
    with pytest.raises(UsageError, match=r"learned from 12 pictures, now there are 13: bring them back, or begin"):
        train(*tiny(picture_folder, epochs=4, lr=0.01), finished, resume=True)
    assert state(finished) == before
    extra.unlink()
    train(*tiny(picture_folder, epochs=4, lr=0.01), finished, resume=True)


def change_config(folder, **changes) -> None:
    """None takes a field away."""
    values = json.loads((folder / "config.json").read_text()) | changes
    kept = {name: value for name, value in values.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


def test_validation_pictures_that_came_or_went_are_refused(finished, picture_folder):
    (picture_folder / "validation" / "light" / "1.png").unlink()
    before = state(finished)
    with pytest.raises(UsageError, match=r"validated on 6 pictures, now there are 5 in that split: bring them back"):
        train(*tiny(picture_folder, epochs=4, lr=0.01), finished, resume=True)
    assert state(finished) == before
    change_config(finished, validation_pictures=None)
    train(*tiny(picture_folder, epochs=4, lr=0.01), finished, resume=True)  # an older run does not say


@pytest.mark.parametrize("removed,lines", [(2, True), (4, False), (6, True)])
def test_pictures_of_an_older_run_are_counted_by_its_batches(picture_folder, tmp_path, monkeypatch, removed, lines):
    stopped_in_mid_epoch(picture_folder, tmp_path / "run", monkeypatch)
    change_config(tmp_path / "run", pictures=None)
    for path in sorted((picture_folder / "train" / "dark").glob("*"))[: removed // 2]:
        path.unlink()
        (picture_folder / "train" / "light" / path.name).unlink()
    if not lines:
        (tmp_path / "run" / "metrics.jsonl").unlink()
    had = 6 if lines else 5
    before = state(tmp_path / "run")
    with pytest.raises(UsageError, match=rf"had {had} batches an epoch, now it has {6 - removed // 2}: bring them"):
        train(*tiny(picture_folder, epochs=3, batch_size=2), tmp_path / "run", resume=True)
    assert state(tmp_path / "run") == before


@pytest.mark.parametrize(
    "change",
    [
        *({"classes": [1, 2]}, {"classes": "dark"}, {"classes": {"dark": 1}}),
        *({"pictures": "12"}, {"pictures": 12.0}, {"validation_pictures": [6]}, {"validation_pictures": True}),
    ],
)
def test_a_config_that_was_changed_by_hand_is_damaged(finished, picture_folder, change):
    change_config(finished, **change)
    with pytest.raises(UsageError, match=rf"config.json is damaged: {next(iter(change))} cannot be "):
        train(*tiny(picture_folder, epochs=4, lr=0.01), finished, resume=True)


def test_of_a_run_whose_config_is_lost_nobody_says_that_it_is_not_there(finished, monkeypatch, capsys):
    monkeypatch.setenv("PIXELCNN_RUNS", str(finished.parent))
    (finished / "config.json").unlink()
    before = state(finished)
    assert main(["train", "--run=run", "--resume"]) == 2
    said = capsys.readouterr().err
    assert "holds best.safetensors, " in said and "of a run whose config.json is lost: put it back" in said
    assert state(finished) == before


@pytest.mark.parametrize("part,value", [("epoch", "3"), ("batch", None), ("total", "much"), ("best", [1.0])])
def test_a_state_with_something_else_for_a_number_is_damaged(finished, picture_folder, capsys, part, value):
    runs.save_state(runs.load_state(finished / "last.pt") | {part: value}, finished / "last.pt")
    train(*tiny(picture_folder, epochs=3, lr=0.01), finished, resume=True)
    assert "going on from previous.pt, epoch 2" in capsys.readouterr().err


def test_numbers_that_are_no_numbers_are_no_line(tmp_path):
    good = {"epoch": 1, "train_bpd": 4.0, "seconds": 3, "images_per_second": 2.5}
    both = {"validation_bpd": 4.5, "validation_accuracy": 0.5}
    odd = [{"epoch": 2} | {name: value} for name in ("train_bpd", "step", "fid") for value in ("x", None, True, [1])]
    odd += [{"epoch": 2, "seconds": value} for value in (float("nan"), float("inf"), 10**400)]
    odd += [{"epoch": value} for value in ("2", True, 2.0, 10**400)]
    text = "".join(json.dumps(line) + "\n" for line in [good | both, *odd, {"epoch": 3} | both, {"epoch": 4}])
    (tmp_path / "metrics.jsonl").write_text(text)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["epoch"] for line in lines] == [1, 3, 4] and lines[0] == good | both
    assert whole(lines) == [good | both] and [line["epoch"] for line in validated(lines)] == [1, 3]
    assert validated([{"epoch": 5, "validation_bpd": 1.0}]) == []
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_metrics(tmp_path)


def test_refused_before_anything_is_written(picture_folder, tmp_path, monkeypatch):
    def no_compiler(_device):
        raise UsageError("no compiler")

    monkeypatch.setattr(loop, "check_compile", no_compiler)
    with pytest.raises(UsageError, match="no compiler"):
        train(*tiny(picture_folder, compile=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="shipped weights"):
        train(*tiny(picture_folder), "cartoons")


# --- seeds


def test_seeds_of_any_size(picture_folder, tmp_path):
    for seed in (20261127, 2**64 - 1):
        seed_step(seed, 7, 1)
    train(*tiny(picture_folder, epochs=1, seed=2**64 - 1), tmp_path / "run")
    with pytest.raises(UsageError):
        train(*tiny(picture_folder, seed=2**64), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_small_seeds_mean_what_they_always_did():
    seed_step(3, 5, 1)
    expected = torch.rand(4, generator=torch.Generator().manual_seed((3 * 1_000_003 + 5) * 1_000_003 + 1))
    assert torch.equal(torch.rand(4), expected)


# --- validation that is not of every epoch, or not of every picture


def test_epochs_that_are_not_validated(picture_folder, tmp_path, monkeypatch, capsys):
    counts = []
    real = training.validate
    monkeypatch.setattr(training, "validate", lambda model, x, **how: (counts.append(len(x)), real(model, x, **how))[1])
    how = dict(epochs=5, validate_every=3, validate_limit=4, sample_every=5)
    folder = train(*tiny(picture_folder, lr=0.01, **how), tmp_path / "run", on_epoch=print_epoch)
    lines = numbers(folder)
    assert [line["epoch"] for line in lines if "validation_bpd" in line] == [3, 5] and counts == [4, 4]
    assert [line["epoch"] for line in lines if "validation_accuracy" in line] == [3, 5]
    assert best_epoch(folder)["epoch"] in (3, 5)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 5 and [i for i, text in enumerate(said, 1) if "validation" in text] == [3, 5]
    assert f"train {lines[0]['train_bpd']:.3f} bits/dim   " in said[0]
    assert f"validation {lines[2]['validation_bpd']:.3f} bits/dim, accuracy" in said[2]


@pytest.mark.parametrize("by", ["crash", "signal"])
def test_stopped_between_validations_it_is_the_same_run_bit_for_bit(picture_folder, tmp_path, monkeypatch, by):
    configs = tiny(picture_folder, epochs=7, validate_every=3, validate_limit=4, checkpoint_every=2, **ALL_AT_ONCE)
    whole = train(*configs, tmp_path / "whole")
    if by == "crash":
        with pytest.raises(Cut):
            train(*configs, tmp_path / "parts", on_epoch=cut_after(5))
    else:
        asked = []
        monkeypatch.setattr(runs.StopRequest, "reason", lambda _self: "enough" if asked else "")
        with pytest.raises(Stopped, match="in epoch 3"):
            train(*configs, tmp_path / "parts", on_epoch=lambda line: asked.append(1) if line["epoch"] == 2 else None)
        assert not (tmp_path / "parts" / "best.safetensors").exists()
        asked.clear()
    parts = train(*configs, tmp_path / "parts", resume=True)
    assert numbers(parts) == numbers(whole)
    for name in ("last.safetensors", "best.safetensors"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


def test_the_report_draws_what_was_validated(picture_folder, tmp_path, monkeypatch):
    folder = train(*tiny(picture_folder, epochs=3, validate_every=2), tmp_path / "run")
    figures, tables = [], []
    monkeypatch.setattr(report, "picture", lambda figure, _alt: figures.append(figure))
    monkeypatch.setattr(report, "table", lambda columns: tables.append(columns))
    config = read_config(folder)[1]
    run = SimpleNamespace(name="r", lines=read_metrics(folder / "metrics.jsonl"), config=config, times={})
    report.curves([run])
    report.timing([run])
    bits, accuracy = figures[0].axes
    assert [[*line.get_xdata()] for line in (*bits.lines, *accuracy.lines)] == [[1, 2, 3], [2, 3], [2, 3]]
    assert "validation included in one of 2" in tables[0][0][1]["an epoch, median"]


def test_a_sweep_reads_the_best_of_the_validated_epochs(picture_folder, tmp_path):
    folder = train(*tiny(picture_folder, epochs=3, validate_every=2), tmp_path / "all")
    sweep.summarise(tmp_path, {"epochs": [3]}, {"all": {"epochs": 3}})
    assert f"| {best_epoch(folder)['validation_bpd']:.3f} |" in (tmp_path / "table.md").read_text()
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "train_bpd": 4.0}\n')
    with pytest.raises(UsageError, match=r"metrics.jsonl holds no line of an epoch that was validated"):
        best_epoch(folder)


def test_the_best_weights_are_those_of_a_validated_epoch(picture_folder, tmp_path):
    model_config, config = tiny(picture_folder, epochs=4, validate_every=2, lr=0.01, precision="float32")
    folder = train(model_config, config, tmp_path / "run")
    best = checkpoints.load_model(folder / "best.safetensors")
    bits, _ = training.validate(best, load_split("folder", "validation", picture_folder, 8))
    assert bits == pytest.approx(best_epoch(folder)["validation_bpd"], abs=2e-5)


def test_weights_that_are_not_finite_do_not_reach_a_checkpoint_without_a_validation(
    picture_folder, tmp_path, monkeypatch
):
    model_config, config = tiny(picture_folder, epochs=5, validate_every=5)
    good = {}

    def spoil(line):
        good.update(state(tmp_path / "run"))
        real = training.update_average

        def update(averaged, *rest):
            real(averaged, *rest)
            next(averaged.parameters()).data.fill_(np.nan)

        monkeypatch.setattr(training, "update_average", update)

    with pytest.raises(loop.Diverged, match="weights became NaN or infinite in epoch 2"):
        train(model_config, config, tmp_path / "run", on_epoch=spoil)
    assert state(tmp_path / "run") == good


def test_how_much_is_validated_may_not_change_on_resume_but_how_often_may(finished, monkeypatch, capsys):
    monkeypatch.setenv("PIXELCNN_RUNS", str(finished.parent))
    assert main(["train", "--run=run", "--resume", "--validate-limit=2"]) == 2
    assert "it cannot resume with 2" in capsys.readouterr().err
    assert main(["train", "--run=run", "--resume", "--validate-every=2", "--epochs=5"]) == 0
    assert ["validation_bpd" in line for line in numbers(finished)] == [True, True, True, True, True]


def test_bad_numbers(picture_folder):
    for values in ({"validate_every": 0}, {"validate_limit": -1}):
        with pytest.raises(UsageError, match=f"{next(iter(values))} must be at least"):
            tiny(picture_folder, **values)


def test_a_validation_split_without_labels_is_refused(course_data, tmp_path):
    (course_data / "validation.csv").write_text((course_data / "test.csv").read_text())
    configs = runs.run_configs("starter", 4, dataset="cpen455", data_root=str(course_data), image_size=8)
    with pytest.raises(UsageError, match=r"none of the 5 validation pictures of cpen455 has a label"):
        train(*configs, tmp_path / "run")
    assert not (tmp_path / "run").exists()
