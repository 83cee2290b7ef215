"""`make gpu` in tiny form on the CPU: nothing in it may be found wrong when minutes on a GPU are running."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import main
from kit.platforms import KIT
from utils.checkpoints import load_model

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

    def run(*arguments: str) -> dict:
        command = [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--device=cpu", "--dataset=cartoons"]
        command += ["--out", str(tmp_path / "out"), *arguments]
        done = subprocess.run(command, cwd=KIT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads((tmp_path / "out" / "results.json").read_text())

    return run


def test_right_and_fast(script):
    results = script("--parts=right,fast", "--minutes=6")
    assert results["tiny"] and "PyTorch" in results["machine"]
    assert [line["passed"] for line in results["right"]] == ["yes"] * 10
    whats = {line["what"] for line in results["fast"]}
    assert not [line for line in results["fast"] if not (line["value"] or 0) > 0]
    for what in ("training flagship, batch 2, float16", "100 samples of report, cached", "matrix product, bfloat16"):
        assert what in whats or what.replace("float16", "bfloat16") in whats
    assert any("compiled" in what for what in whats)


def test_train_then_its_hybrid_phase(script, tmp_path):
    out = tmp_path / "out"
    (line,) = script("--parts=train", "--minutes=0.3")["train"]
    epochs = line["train"]["epochs"]
    assert line["run"] == "gpu" and line["pictures seen"] == 16 * epochs and line["train"]["hybrid"] == 0
    assert len((out / "gpu.jsonl").read_text().splitlines()) == epochs
    assert (out / "gpu.png").is_file()
    joined = tmp_path / "joined.safetensors"
    joined.write_bytes(b"".join(path.read_bytes() for path in sorted(out.glob("gpu.safetensors.*"))))
    assert load_model(joined).config.to_dict() == line["model"]
    (line,) = script("--parts=train", "--minutes=0.3")["train"]
    assert line["run"] == "gpu-hybrid" and line["train"]["hybrid"] == 0.5 and line["train"]["init"] == "gpu"


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
