"""Weights & Biases as it is installed: what it writes offline, and that its failures cost a line, not the run."""

import json
import os
import struct
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kit import wandb_log
from kit.wandb_log import resolve_mode, wandb_key
from utils import UsageError

KEY = "0123456789abcdef" * 2 + "deadbeef"  # of the length that W&B's keys have
BEGINNING = """
import contextlib, json, os, signal, subprocess, sys, torch
from pathlib import Path
from kit import wandb_log
from utils.classify import score
wandb_log.START_SECONDS = wandb_log.FINISH_SECONDS = 3.0
folder = Path(sys.argv[1])
scores = score(torch.tensor([0, 1, 1, 1, 0]), torch.tensor([0, 1, 1, 0, -1]), 2)
line = {"epoch": 1, "step": 30, "lr": 0.002, "train_bpd": 4.5, "validation_bpd": 4.25, "validation_accuracy": 0.75}
def start(mode):
    return wandb_log.Tracker(mode, folder, {"nr_filters": 4, "fusion": ["late"]}, ("dark", "light"))
"""


@pytest.fixture(autouse=True)
def no_key(tmp_path, monkeypatch):
    """Neither the tester's key nor the tester's settings of wandb count; its own files are in the test's folder."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb"))
    monkeypatch.setitem(sys.modules, "kaggle_secrets", None)
    monkeypatch.setitem(sys.modules, "google.colab", None)


def run_script(text: str, folder: Path, **environment) -> subprocess.CompletedProcess:
    """A script in a process of its own, which cannot ask anything. wandb alone would wait for 90 seconds."""
    return subprocess.run(
        [sys.executable, "-c", BEGINNING + text, str(folder)],
        env=os.environ | environment,
        cwd=Path(__file__).parents[1],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=80,
    )


def records(path: Path) -> Iterator:
    """What wandb wrote: 7 bytes of header, then LevelDB's log format, blocks of 32 KiB of (crc, length, type, data)."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts = path.read_bytes(), 7, b""
    while position < len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a record in one part, or its last part
            yield Record.FromString(parts)
            parts = b""


def history(path: Path) -> list[dict]:
    lines = [record.history.item for record in records(path) if record.WhichOneof("record_type") == "history"]
    return [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in line} for line in lines]


def test_an_offline_run_and_its_resumption(tmp_path):
    folder = tmp_path / "run one"
    folder.mkdir()
    (folder / "best.safetensors").write_bytes(b"weights" * 5)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "gallery.png")
    script = """
for epoch in (1, 2):
    tracker = start("offline")
    tracker.log(line | {"epoch": epoch, "step": 30 * epoch}, scores)
    tracker.gallery(folder / "gallery.png", 30 * epoch)
    tracker.finish(folder / "best.safetensors")
"""
    done = run_script(script, folder, WANDB_API_KEY=KEY, WANDB_PROJECT="ours")
    assert done.returncode == 0 and done.stdout == "", done
    assert done.stderr.count("\n") == 2 and done.stderr.count("-m wandb sync") == 2, done.stderr
    logs = sorted((folder / "wandb").glob("offline-run-*/*.wandb"))
    remembered = json.loads((folder / "wandb.json").read_text())["id"]
    assert [log.name for log in logs] == [f"run-{remembered}.wandb"] * 2
    for epoch, log in enumerate(logs, start=1):
        found = list(records(log))
        run = next(record.run for record in found if record.WhichOneof("record_type") == "run")
        assert (run.run_id, run.display_name, run.project) == (remembered, "run one", "ours")
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert config["nr_filters"] == 4 and config["fusion"] == ["late"]
        line, picture = history(log)
        assert line["step"] == picture["step"] == 30 * epoch and line["validation_bpd"] == 4.25
        assert picture["gallery/_type"] == "image-file" and picture["gallery/width"] == 8
        (table,) = (log.parent / "files").rglob("*.table.json")
        cells = {tuple(row[:2]): row[2] for row in json.loads(table.read_text())["data"]}
        assert cells == {("dark", "dark"): 1, ("dark", "light"): 1, ("light", "dark"): 0, ("light", "light"): 2}
        artifacts = [record.artifact for record in found if record.WhichOneof("record_type") == "artifact"]
        (best,) = (artifact for artifact in artifacts if artifact.type == "model")
        assert best.name == "run-one-best" and best.manifest.contents[0].path == "best.safetensors"
    assert_key_is_nowhere(done, tmp_path)


def assert_key_is_nowhere(done: subprocess.CompletedProcess, folder: Path):
    assert KEY not in done.stdout + done.stderr
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files and not [path for path in files if KEY.encode() in path.read_bytes()]


def test_off_does_nothing_and_a_dead_network_costs_a_warning(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    script = """
tracker = start("off")
tracker.log(line, scores)
tracker.finish(folder / "best.safetensors")
print("wandb" in sys.modules, list(folder.iterdir()))
tracker = start("auto")
tracker.log(line, scores)
tracker.gallery(folder / "gallery.png", 30)
tracker.finish(folder / "best.safetensors")
print("trained")
"""
    done = run_script(script, folder, WANDB_API_KEY=KEY, WANDB_BASE_URL="http://127.0.0.1:9")
    assert done.returncode == 0 and done.stdout == "False []\ntrained\n"
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("warning: logging to W&B has stopped"), done.stderr
    assert_key_is_nowhere(done, tmp_path)


def test_wandb_dying_under_a_run_costs_a_warning(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    script = """
tracker = start("offline")
tracker.log(line)
for row in subprocess.check_output(["ps", "-A", "-o", "pid=,ppid="], text=True).splitlines():
    child, parent = map(int, row.split())
    if parent == os.getpid():  # wandb's process; ps itself has gone
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
for _ in range(100):
    tracker.log(line)
tracker.finish()
print("trained")
"""
    done = run_script(script, folder)
    assert done.returncode == 0 and done.stdout == "trained\n"
    assert done.stderr.count("warning: logging to W&B has stopped") == 1, done.stderr


@pytest.mark.parametrize(
    "mode,key,environment,expected",
    [
        ("auto", False, None, "off"),
        ("auto", True, None, "online"),
        ("auto", True, "online", "online"),
        ("auto", False, "offline", "offline"),
        ("auto", True, "offline", "offline"),
        ("auto", True, "disabled", "off"),
        ("auto", False, "online", "off"),
        ("online", True, "offline", "online"),
        ("offline", False, "disabled", "offline"),
        ("off", True, "online", "off"),
    ],
)
def test_modes(monkeypatch, mode, key, environment, expected):
    if key:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
    if environment:
        monkeypatch.setenv("WANDB_MODE", environment)
    assert resolve_mode(mode) == expected
    assert resolve_mode(expected) == expected  # what is resolved stays so


def test_modes_that_cannot_be(monkeypatch, capsys):
    for mode, word in (("online", "needs a key"), ("sometimes", "choose from auto, online, offline, off")):
        with pytest.raises(UsageError, match=word):
            resolve_mode(mode)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(wandb_log.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"not installed: .* -m pip install wandb"):
        resolve_mode("offline")
    assert resolve_mode("auto") == "off" and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("host", ["api.wandb.ai", "api.forge.coreweave.com"])
def test_a_key_in_netrc(tmp_path, monkeypatch, host):
    (tmp_path / "netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    assert wandb_key() == KEY and "WANDB_API_KEY" not in os.environ
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")  # another server, another key
    assert wandb_key() is None
    monkeypatch.setenv("WANDB_BASE_URL", "http://localhost:8080")
    (tmp_path / "netrc").write_text(f"machine localhost:8080\n  login user\n  password {KEY[::-1]}\n")
    assert wandb_key() == KEY[::-1]
    (tmp_path / "netrc").write_text("machine\n")
    assert wandb_key() is None


@pytest.mark.parametrize("platform", ["kaggle", "colab"])
def test_a_platforms_secret(monkeypatch, platform):
    secrets: dict[str, str] = {}
    client = types.SimpleNamespace(get_secret=secrets.__getitem__)
    colab = types.SimpleNamespace(userdata=types.SimpleNamespace(get=secrets.__getitem__))
    kaggle = types.SimpleNamespace(UserSecretsClient=lambda: client)
    name, module = {"kaggle": ("kaggle_secrets", kaggle), "colab": ("google.colab", colab)}[platform]
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, name, module)
    assert wandb_key() is None  # the platform raises when there is no such secret
    monkeypatch.setenv("WANDB_API_KEY", "")  # so that what the call sets is undone
    secrets["WANDB_API_KEY"] = KEY
    assert wandb_key() == KEY == os.environ["WANDB_API_KEY"]
