"""A run that is killed at any moment and resumed ends as if nothing had happened, bit for bit."""

import functools
import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import pytest
import torch
from conftest import ALL_AT_ONCE, TIMING, tiny

from kit.__main__ import main
from kit.runs import Stopped, StopRequest, run_configs, seconds_of
from kit.train import train
from utils import UsageError, training

# started once, with PyTorch imported: each run is a fork of it
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["torch", "safetensors.torch", "tqdm.auto", "PIL.Image", "pytest"])


def configs(folder, precision="float32"):
    how = {"optimizer": "muon", "grad_clip": 1.0, "schedule": "cosine", "checkpoint_every": 1, "precision": precision}
    return tiny(folder, epochs=4, **how, **ALL_AT_ONCE)


def run_to_the_end(pictures, run, precision, fatal_call=None, fatal_step=None, delay=0.0):
    """In a process of its own, which kills itself at a call of the functions that make files durable (before it, or
    after it when the number is negative), or some seconds after a training step has begun."""
    torch.set_num_threads(1)
    die = functools.partial(os.kill, os.getpid(), signal.SIGKILL)
    calls = steps = 0

    def counted(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == fatal_call:
                die()
            result = function(*args, **kwargs)
            if -calls == fatal_call:
                die()
            return result

        return call

    for name in ("fsync", "replace", "link"):
        setattr(os, name, counted(getattr(os, name)))
    step = training.train_step

    def train_step(*args):
        nonlocal steps
        steps += 1
        if steps == fatal_step:
            threading.Timer(delay, die).start()
        return step(*args)

    training.train_step = train_step
    train(*configs(pictures, precision), run, resume=run.exists())


def start(*args) -> multiprocessing.Process:
    process = processes.Process(target=run_to_the_end, args=args)
    process.start()
    return process


def contents(run: Path) -> dict:
    """All that a run leaves, without what is time."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = {"metrics": [{k: v for k, v in line.items() if k not in TIMING} for line in lines]}
    for name in ("config.json", "best.safetensors", "last.safetensors"):
        found[name] = (run / name).read_bytes()
    found["state"] = bits(torch.load(run / "last.pt", weights_only=True))  # pickles of equal things may differ
    assert not list(run.glob(".*.tmp"))
    return found


def bits(value):
    """The same nest of dicts and lists with every tensor as its bytes."""
    if isinstance(value, dict):
        return {key: bits(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [bits(inner) for inner in value]
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_killed_at_random_moments(picture_folder, tmp_path, precision):
    start(picture_folder, tmp_path / "whole", precision).join()
    moments = random.Random(precision)
    limit = int(os.environ.get("KILLS", "5"))
    for kills in range(limit + 1):
        fatal_step = moments.randint(1, 4) if kills < limit else None
        process = start(picture_folder, tmp_path / "parts", precision, None, fatal_step, moments.uniform(0, 0.1))
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL, "it failed by itself"
    assert kills > 0 and process.exitcode == 0
    print(f"{kills} kills in {precision}")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_killed_at_every_step_of_saving(picture_folder, tmp_path):
    """Before and after each call that makes a file durable, in whichever order they come."""
    start(picture_folder, tmp_path / "whole", "float32").join()
    expected = contents(tmp_path / "whole")
    for fatal_call in (1, -1, 2, -2, 5, -6, 11, -12, 17):
        run = tmp_path / f"run{fatal_call}"
        process = start(picture_folder, run, "float32", fatal_call)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        process = start(picture_folder, run, "float32")
        process.join()
        assert process.exitcode == 0 and contents(run) == expected, fatal_call


def test_a_damaged_state_falls_back_to_the_one_before(picture_folder, tmp_path, capsys):
    whole = train(*configs(picture_folder), tmp_path / "whole")
    run = train(*configs(picture_folder), tmp_path / "run")
    last = run / "last.pt"
    last.write_bytes(last.read_bytes()[:-500])
    train(*configs(picture_folder), run, resume=True)
    said = capsys.readouterr()
    assert said.err.count("going on from previous.pt, epoch 3\n") == 1 and "note:" not in said.out
    assert contents(run) == contents(whole)
    last.write_bytes(b"")
    (run / "previous.pt").write_bytes(b"")
    with pytest.raises(UsageError, match=r"previous.pt cannot be read"):
        train(*configs(picture_folder), run, resume=True)


def test_file_systems_without_hard_links(picture_folder, tmp_path, monkeypatch):
    whole = train(*configs(picture_folder), tmp_path / "whole")
    monkeypatch.setattr(os, "link", mock.Mock(side_effect=PermissionError))
    assert contents(train(*configs(picture_folder), tmp_path / "drive")) == contents(whole)
    assert (tmp_path / "drive" / "previous.pt").stat().st_size > 1000


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_the_very_batch(picture_folder, tmp_path, number, monkeypatch):
    whole = train(*configs(picture_folder), tmp_path / "whole")
    steps = 0
    step = training.train_step

    def train_step(*args):
        nonlocal steps
        steps += 1
        if steps in (2, 6):  # the second of three batches; the last one of the second epoch
            os.kill(os.getpid(), number)
        return step(*args)

    monkeypatch.setattr(training, "train_step", train_step)
    with pytest.raises(Stopped, match=rf"{number.name} came in epoch 1, after 2 of 3 batches"):
        train(*configs(picture_folder), tmp_path / "parts")
    with pytest.raises(Stopped, match=rf"{number.name} came after epoch 2"):
        train(*configs(picture_folder), tmp_path / "parts", resume=True)
    train(*configs(picture_folder), tmp_path / "parts", resume=True)
    assert steps == 12, "no batch is trained twice"
    assert contents(tmp_path / "parts") == contents(whole)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_signal_stops_at_once():
    with StopRequest(1000) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.reason() == "SIGINT came"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)


def test_the_time_limit_ends_the_command_cleanly(picture_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PIXELCNN_RUNS", str(tmp_path / "runs"))
    flags = ["--nr-filters=4", "--nr-logistic-mix=1", "--image-size=8", "--device=cpu", "--batch-size=5"]
    command = ["train", "--dataset=folder", f"--data-root={picture_folder}", "--run=r", *flags, "--epochs=400000"]
    assert main([*command, "--time-limit=2s"]) == 0
    assert "stopped and saved: the time limit was reached" in capsys.readouterr().err
    done = torch.load(tmp_path / "runs" / "r" / "last.pt", weights_only=True)
    assert done["epoch"] + done["batch"] > 0
    assert main(["train", "--run=r", "--resume", "--time-limit=1s"]) == 0
    again = torch.load(tmp_path / "runs" / "r" / "last.pt", weights_only=True)
    assert again["epoch"] > done["epoch"]


@pytest.mark.parametrize("text,seconds", [("11h30m", 41400), ("90m", 5400), ("45s", 45), ("1h2m3s", 3723)])
def test_time_limits(text, seconds):
    assert seconds_of(text) == seconds
    assert seconds_of("") == float("inf")


@pytest.mark.parametrize("text", ["11", "h", "1.5h", "-1h", "1m1h", "soon", "9" * 400 + "s"])
def test_bad_time_limits(text):
    with pytest.raises(UsageError, match="written like 11h30m"):
        run_configs("starter", 2, time_limit=text)
