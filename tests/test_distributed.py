"""Two processes do what one does: the same curve, the same scores, the same pictures, and one of them writes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import TIMING, small_model
from safetensors.torch import load_file

from kit import distributed
from utils import UsageError, checkpoints

ROOT = Path(__file__).parents[1]
SCRIPT = Path(__file__).with_name("two_processes.py")
# preset cartoons: no dropout, whose masks are each process's own; 13 pictures: the last batch is one picture, of one
CARTOONS = ["--train-limit=13", "--nr-filters=6", "--image-size=8", "--batch-size=4", "--epochs=5"]
TRAIN = [
    "train",
    "--preset=cartoons",
    *CARTOONS,
    "--flip",
    "--warmup=1",
    "--optimizer=muon",
    "--lr=0.05",
    "--adam-lr=2e-2",
    "--precision=float32",
    "--device=cpu",
]


def environment(tmp_path, **more) -> dict:
    one_thread = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return os.environ | one_thread | {"PIXELCNN_RUNS": str(tmp_path / "runs")} | more


def run(tmp_path, processes: int, losses: Path, *arguments, **more) -> subprocess.CompletedProcess:
    start = [sys.executable]
    if processes > 1:
        start = [*distributed.TORCHRUN, "--standalone", f"--nproc_per_node={processes}", "--"]
    command = [*start, str(SCRIPT), str(losses), *arguments]
    return subprocess.run(command, env=environment(tmp_path, **more), capture_output=True, text=True, timeout=600)


def curve(file: Path) -> torch.Tensor:
    return torch.tensor([float(line) for line in file.read_text().split()], dtype=torch.float64)


def metrics(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMING} for line in lines]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Twenty steps by one process and by two."""
    folder = tmp_path_factory.mktemp("trained")
    for name, processes in (("one", 1), ("two", 2)):
        done = run(folder, processes, folder / name, *TRAIN, f"--run={name}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("epoch ") == 5 and done.stdout.count("done:") == 1
    return folder


def test_the_same_curve(trained):
    one, two = curve(trained / "one"), curve(trained / "two")
    assert len(one) == len(two) == 20 and one[:4].mean() - one[-4:].mean() > 0.2, "it learns"
    assert (one - two).abs().max() < 1e-5
    for a, b in zip(metrics(trained / "runs" / "one"), metrics(trained / "runs" / "two"), strict=True):
        assert a["step"] == b["step"] and a["validation_accuracy"] == pytest.approx(b["validation_accuracy"], abs=0.005)
        assert a["train_bpd"] == pytest.approx(b["train_bpd"], abs=2e-5)
        assert a["validation_bpd"] == pytest.approx(b["validation_bpd"], abs=2e-5)
    one, two = (load_file(trained / "runs" / name / "last.safetensors") for name in ("one", "two"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-3


def test_a_mean_over_processes_would_be_wrong_here(trained):
    """The short batch: its one picture counts once in the epoch's mean, as in the mean by hand."""
    steps = curve(trained / "two")[:4]
    by_hand = (steps * torch.tensor([4.0, 4.0, 4.0, 1.0])).sum() / 13
    assert metrics(trained / "runs" / "two")[0]["train_bpd"] == pytest.approx(float(by_hand), abs=2e-5)
    assert abs(float(steps.mean() - by_hand)) > 1e-4


@pytest.mark.parametrize("first,then", [(1, 2), (2, 1)])
def test_a_run_goes_on_with_another_number_of_processes(trained, tmp_path, first, then):
    stopped = run(tmp_path, first, tmp_path / "a", *TRAIN, "--run=r", "--epochs=2")
    assert stopped.returncode == 0, stopped.stderr
    config = tmp_path / "runs" / "r" / "config.json"  # as if it had been stopped on its way to 5
    config.write_text(config.read_text().replace('"epochs": 2', '"epochs": 5'))
    done = run(tmp_path, then, tmp_path / "b", "train", "--run=r", "--resume")
    assert done.returncode == 0, done.stderr
    assert [line["epoch"] for line in metrics(tmp_path / "runs" / "r")] == [1, 2, 3, 4, 5]
    assert len(curve(tmp_path / "b")) == 12


def test_when_one_dies_the_others_end_and_the_run_goes_on(trained, tmp_path):
    started = time.monotonic()
    died = run(tmp_path, 2, tmp_path / "a", *TRAIN, "--run=r", DIE_AT_STEP="10")
    assert died.returncode != 0 and time.monotonic() - started < 60
    assert len(metrics(tmp_path / "runs" / "r")) == 2, "two epochs of four steps were saved"
    done = run(tmp_path, 1, tmp_path / "b", "train", "--run=r", "--resume")
    assert done.returncode == 0, done.stderr
    rest = curve(tmp_path / "b")
    assert len(rest) == 12 and (rest - curve(trained / "one")[8:]).abs().max() < 1e-4


def test_evaluating_and_drawing_are_shared_out(tmp_path):
    model = small_model(torch.float32, num_classes=4)
    model.class_names = ("burger", "panda", "koala", "pizza")
    checkpoints.save_model(model, tmp_path / "m.safetensors")
    weights = f"--checkpoint={tmp_path / 'm.safetensors'}"
    said, drawn, against = [], [], ["--against", weights.partition("=")[2], "--mirror"]
    for processes in (1, 2):
        done = run(tmp_path, processes, tmp_path / "unused", "evaluate", weights, "--device=cpu", *against)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
        for guidance in (0, 2):
            out = tmp_path / f"{guidance}-{processes}"
            what = (f"--out={out}", f"--guidance={guidance}", "--per-class=1", "--classes=0,1,2")
            done = run(tmp_path, processes, tmp_path / "unused", "generate", weights, *what)
            assert done.returncode == 0, done.stderr
            drawn.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert "500 pictures" in said[0] and said[0] == said[1] and said[0].count(" as above ") == 1
    assert len(drawn[0]) == 4 and drawn[:2] == drawn[2:] and drawn[0] != drawn[1]


def test_fewer_pictures_than_processes(monkeypatch):
    monkeypatch.setattr(distributed, "size", lambda: 2)
    with pytest.raises(UsageError, match=r"more processes \(2\) than pictures \(1\): draw more"):
        distributed.generate(small_model(), torch.tensor([0]), seed=0)


def test_a_share_and_its_inverse(monkeypatch):
    """As each of three processes would see it, without any of them."""
    rows = torch.arange(8)
    monkeypatch.setattr(distributed, "size", lambda: 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts.append(distributed.share(rows))
    assert [part.tolist() for part in parts] == [[0, 3, 6], [1, 4, 7], [2, 5]]

    def all_gather(out, own):
        for place, part in zip(out, parts, strict=True):
            place[: len(part)] = part
            place[len(part) :] = -1

    monkeypatch.setattr(distributed.dist, "all_gather", all_gather)
    assert distributed.gather(parts[2], 8).tolist() == rows.tolist()


def test_launch_streams_what_the_processes_print(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("PIXELCNN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    distributed.launch([*TRAIN, "--run=from-a-notebook", "--epochs=1"], processes=2)
    assert "epoch   1" in capfd.readouterr().out
    assert (tmp_path / "runs" / "from-a-notebook" / "last.pt").exists()
    with pytest.raises(UsageError, match=r"train --run=nothing --resume ended with status"):
        distributed.launch(["train", "--run=nothing", "--resume"], processes=1)
    assert "no run 'nothing' to resume" in capfd.readouterr().out
