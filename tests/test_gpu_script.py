"""`make gpu` in tiny form on the CPU: nothing in it may be found wrong when minutes on a GPU are running."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import wait_for

from benchmarks.gpu.__main__ import main
from benchmarks.gpu.fast import name_of
from kit.platforms import KIT
from utils.checkpoints import load_model
from utils.device import pick_precision

ABSENT = ("wandb", "pytorch_fid", "ipywidgets", "matplotlib", "scipy", "pooch", "yaml", "requests", "IPython")
WITHOUT = f"""
import socket
from importlib.machinery import PathFinder

found = PathFinder.find_spec
PathFinder.find_spec = lambda name, *where: None if name.partition(".")[0] in {ABSENT} else found(name, *where)

def no_network(*_):
    raise OSError("no network here")

socket.socket.connect = no_network
"""


@pytest.fixture
def script(tmp_path):
    """Runs it where neither those packages nor a network are, and where nothing is compiled; -> results.json."""
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "sitecustomize.py").write_text(WITHOUT)
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path / "bare"), "PIXELCNN_RUNS": str(tmp_path / "runs"), "TORCH_COMPILE_DISABLE": "1",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip

    def run(*arguments: str, interrupt: str = "") -> dict:
        command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--device=cpu", "--dataset=cartoons"]
        command += ["--out", str(tmp_path / "out"), *arguments]
        log = tmp_path / "log"
        with open(log, "w") as file:
            given = {"cwd": KIT, "env": environment, "stdout": file, "stderr": file, "start_new_session": True}
            process = subprocess.Popen(command, **given)
            if interrupt:
                wait_for(lambda: interrupt in log.read_text())
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            status = process.wait(timeout=600)
        assert status == (130 if interrupt else 0), log.read_text()
        assert "Traceback" not in log.read_text()
        results = tmp_path / "out" / "results.json"
        return json.loads(results.read_text()) if results.is_file() else {}

    return run


def test_right_and_fast(script):
    results = script("--parts=right,fast", "--minutes=6")
    assert results["fast"]["tiny"] and "PyTorch" in results["fast"]["machine"]
    assert [line["passed"] for line in results["right"]["lines"]] == ["yes"] * 10
    whats = {line["what"] for line in results["fast"]["lines"]}
    assert not [line for line in results["fast"]["lines"] if not (line["value"] or 0) > 0]
    own = name_of(pick_precision(torch.device("cpu")))  # not every CPU multiplies bfloat16
    assert {f"training flagship, batch 2, {own}", "100 samples of report, cached", f"matrix product, {own}"} <= whats
    assert any("compiled" in what for what in whats)


def test_train_then_its_hybrid_phase(script, tmp_path):
    out = tmp_path / "out"
    (line,) = script("--parts=train", "--minutes=0.3")["gpu"]["lines"]
    epochs = line["train"]["epochs"]
    assert line["run"] == "gpu" and line["pictures seen"] == 16 * epochs and line["train"]["hybrid"] == 0
    assert len((out / "gpu.jsonl").read_text().splitlines()) == epochs
    assert (out / "gpu.png").is_file()
    joined = tmp_path / "joined.safetensors"
    joined.write_bytes(b"".join(path.read_bytes() for path in sorted(out.glob("gpu.safetensors.*"))))
    assert load_model(joined).config.to_dict() == line["model"]
    results = script("--parts=train", "--minutes=0.3")
    assert results["gpu"]["lines"] == [line], "what the first call found is kept"
    (line,) = results["gpu-hybrid"]["lines"]
    assert line["train"]["hybrid"] == 0.5 and line["train"]["init"] == str(
        out / "tiny-runs" / "gpu" / "best.safetensors"
    )


def test_an_interrupted_training_goes_on(script, tmp_path):
    script("--parts=train", "--minutes=5", interrupt='{"epoch": 2,')
    run = tmp_path / "out" / "tiny-runs" / "gpu"
    epochs = json.loads((run / "config.json").read_text())["train"]["epochs"]
    done = len((run / "metrics.jsonl").read_text().splitlines())
    assert 2 <= done < epochs and (run / "last.pt").is_file()
    script("--parts=train", "--minutes=0.2")  # stops by its own clock
    assert len((run / "metrics.jsonl").read_text().splitlines()) > done
    assert (tmp_path / "out" / "gpu.safetensors.1").is_file()


def test_a_check_that_fails_does_not_end_the_others(tmp_path, monkeypatch, capsys):
    from benchmarks.gpu import common, right

    def breaks(_job):
        yield "first", 2.0, 1.0
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(right, "forward", breaks)
    for name in ("accuracy", "samplers", "training_steps", "resumption", "galleries"):
        monkeypatch.setattr(right, name, lambda _job: iter([("good", 0.0, 0.0)]))
    job = common.Job(torch.device("cpu"), True, time.monotonic() + 60, "cartoons", tmp_path)
    found = [line["passed"] for line in right.lines(job)]
    assert found == ["NO", "NO: operation not permitted when stream is capturing", *["yes"] * 5]
    late = [line["passed"] for line in right.lines(replace(job, end=time.monotonic() - 1))]
    assert late == ["not measured: out of time"] * 7


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["--device=cpu", "--tiny", "--out", str(tmp_path / "file" / "out")]) == 2
    assert "cannot write in" in capsys.readouterr().err


def test_weights_come_home_in_small_files(tmp_path, monkeypatch):
    from benchmarks.gpu import train

    monkeypatch.setattr(train, "PIECE", 100_000)
    model = load_model("cartoons")
    folder = tmp_path / "gpu"
    train.checkpoints.save_model(model, folder / "best.safetensors")
    train.export(folder / "best.safetensors", tmp_path)
    pieces = sorted(tmp_path.glob("gpu.safetensors.*"), key=lambda path: int(path.suffix[1:]))
    assert len(pieces) > 9 and max(path.stat().st_size for path in pieces) <= 100_000
    Path(tmp_path / "joined.safetensors").write_bytes(b"".join(path.read_bytes() for path in pieces))
    for name, weight in load_model(tmp_path / "joined.safetensors").state_dict().items():
        assert (weight == model.state_dict()[name].half().float()).all()


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "no NVIDIA GPU works here"),
        (["--device=cpu", "--parts=fats"], "unknown part 'fats'"),
        (["--device=cpu", "--minutes=0"], "--minutes must be above 0"),
    ],
)
def test_bad_input_is_one_line(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["--out", str(tmp_path / "out"), *arguments]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()
