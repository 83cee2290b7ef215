"""A run that fits the time there is: `train --minutes`."""

import json

import pytest
from conftest import TIMING, tiny

from kit import minutes, runs
from kit import train as loop
from kit.__main__ import main
from kit.train import train
from utils import UsageError, training


def lines(folder) -> list[dict]:
    every = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMING} for line in every]


@pytest.fixture
def clock(monkeypatch):
    """Time that passes as told: 2 s a batch (10 s in the first, slow ones), 0.5 s for a picture that is validated, 4 s
    for a save, 6 s for a gallery."""
    now = [1000.0]

    def takes(seconds, real):
        def work(*args, **kwargs):
            now[0] += seconds(*args) if callable(seconds) else seconds
            return real(*args, **kwargs)

        return work

    batches = iter([10.0, 10.0, 10.0])
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(training, "train_step", takes(lambda *_: next(batches, 2.0), training.train_step))
    monkeypatch.setattr(training, "validate", takes(lambda _, pictures: 0.5 * len(pictures), training.validate))
    monkeypatch.setattr(runs.RunState, "save", takes(4.0, runs.RunState.save))
    monkeypatch.setattr(loop, "draw_gallery", takes(6.0, lambda *_, **__: None))
    return now


def test_the_epochs_are_those_that_fit(picture_folder, tmp_path, clock, capsys):
    """12 batches of a picture are 24 s, 6 validated pictures 3 s, saving every 2nd epoch 3 s, a gallery every 3rd 2 s:
    32 s an epoch, of which 6 minutes hold 11, and 8 with a twentieth to spare, what the measurement took and a save
    before the first epoch."""
    configs = tiny(picture_folder, batch_size=1, checkpoint_every=2, sample_every=3, schedule="cosine")
    folder = train(*configs, tmp_path / "run", minutes=6)
    measuring = 3 * 10 + 6 * 2 + 4 + 0.5 + 3 + 6 + 4  # 9 batches and a save, 1 and 6 pictures, a gallery, a save
    assert json.loads((folder / "config.json").read_text())["train"]["epochs"] == int(
        (0.95 * (360 - measuring) - 4) / 32
    )
    assert 300 < clock[0] - 1000 <= 360, "it ends in time"
    assert "an epoch takes about 0.53 minutes here: 8 fit" in capsys.readouterr().out


def test_an_epoch_bears_its_part_of_a_validation_and_the_last_one_has_its_own(picture_folder, tmp_path, clock, capsys):
    """24 s of batches, a third of the 2 s that 4 pictures take, 6 s for saving: 30.67 s an epoch."""
    configs = tiny(picture_folder, batch_size=1, validate_every=3, validate_limit=4)
    seconds = 381.0
    folder = train(*configs, tmp_path / "run", minutes=seconds / 60)
    measuring = 3 * 10 + 6 * 2 + 4 + 0.5 + 2 + 4
    epochs = (0.95 * (seconds - measuring) - 4 - 2) / (24 + 2 / 3 + 1.5 * 4)
    assert 9.9 < epochs < 10 and len(lines(folder)) == 9, "without a last validation or a first save it would be ten"
    assert "an epoch takes about 0.51 minutes here: 9 fit" in capsys.readouterr().out and clock[0] - 1000 <= seconds


def test_it_is_the_run_of_so_many_epochs_bit_for_bit(picture_folder, tmp_path, clock):
    settings = dict(batch_size=5, schedule="cosine", ema_decay=0.9, dropout=0.3, warmup=4, optimizer="muon", lr=0.01)
    measured = train(*tiny(picture_folder, **settings), tmp_path / "measured", minutes=3)
    epochs = runs.read_config(measured)[1].epochs
    assert epochs > 1
    told = train(*tiny(picture_folder, **settings | {"epochs": epochs}), tmp_path / "told")
    assert lines(measured) == lines(told)
    for name in ("last.safetensors", "best.safetensors", "config.json"):
        assert (measured / name).read_bytes() == (told / name).read_bytes(), name


def test_all_the_time_there_is(picture_folder, tmp_path, clock):
    class Enough(Exception):
        pass

    def on_epoch(_line):
        raise Enough

    with pytest.raises(Enough):
        train(*tiny(picture_folder, batch_size=1), tmp_path / "run", on_epoch=on_epoch, minutes=1e300)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"]["epochs"] == 1_000_000


def test_too_little_time_leaves_nothing_behind(picture_folder, tmp_path, clock):
    with pytest.raises(UsageError, match=r"an epoch takes about 0\.55 minutes: give more --minutes"):
        train(*tiny(picture_folder, batch_size=1), tmp_path / "run", minutes=1)
    assert not (tmp_path / "run").exists()


def test_a_run_killed_while_it_measures_leaves_nothing_to_resume(picture_folder, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def validate(*_args, **_kwargs):
        raise Killed

    configs = tiny(picture_folder, batch_size=1, epochs=2)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(minutes.Stopwatch, "ENOUGH", 2)  # the measured part of the epoch ends, and has saved
        patch.setattr(training, "validate", validate)
        train(*configs, tmp_path / "run", minutes=5)
    assert not (tmp_path / "run").exists() and not list(tmp_path.glob(".measuring-*"))
    assert lines(train(*configs, tmp_path / "run")) == lines(train(*configs, tmp_path / "other"))


@pytest.mark.parametrize("flags", [["--minutes=0.1", "--epochs=3"], ["--minutes=5", "--resume"], ["--minutes=nan"]])
def test_what_does_not_go_together_is_refused(flags, capsys):
    assert main(["train", "--run=never", *flags]) == 2
    assert "--minutes, above 0, chooses the epochs of a new run" in capsys.readouterr().err


def test_the_command(picture_folder, tmp_path, clock, monkeypatch, capsys):
    monkeypatch.setenv("PIXELCNN_RUNS", str(tmp_path))
    small = ["--nr-filters=4", "--nr-logistic-mix=1", "--image-size=8", "--device=cpu", f"--data-root={picture_folder}"]
    assert main(["train", "--run=r", "--dataset=folder", "--minutes=3", *small]) == 0
    epochs = runs.read_config("r")[1].epochs
    assert epochs > 1 and f"{epochs} fit\n" in capsys.readouterr().out and len(lines(tmp_path / "r")) == epochs
