"""Saving is atomic, loading executes nothing and believes nothing."""

import json
import os
import pickle
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import random_pictures, small_model
from safetensors.torch import load_file, save_file

from kit.runs import load_state, save_state
from utils import UsageError, checkpoints
from utils.checkpoints import load_model, save_model


def test_a_saved_model_comes_back(tmp_path):
    model = small_model(torch.float32, fusion="all")
    model.class_names = ("a", "b", "c")
    save_model(model.train(), tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors")
    x, y = random_pictures(2, dtype=torch.float32), torch.tensor([0, 2])
    assert again.config == model.config and again.class_names == ("a", "b", "c")
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(x, y), model.eval()(x, y))
    assert sorted(os.listdir(tmp_path)) == ["m.safetensors"]


def test_half_precision_files_load_as_float32(tmp_path):
    model = small_model(torch.float32)
    save_model(model, tmp_path / "full.safetensors")
    save_model(model, tmp_path / "half.safetensors", dtype=torch.float16)
    half = load_model(tmp_path / "half.safetensors")
    assert all(p.dtype == torch.float32 for p in half.parameters())
    assert all(torch.allclose(a, b, atol=2e-3) for a, b in zip(half.parameters(), model.parameters(), strict=True))


def test_a_run_is_found_by_its_name_and_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXELCNN_RUNS", str(tmp_path / "runs"))
    save_model(small_model(torch.float32), tmp_path / "runs/mine/best.safetensors")
    assert load_model("mine").config == load_model(tmp_path / "runs" / "mine").config


def test_missing_weights():
    with pytest.raises(UsageError, match=r"no weights found for 'nothing': give a shipped name"):
        load_model("nothing")


@pytest.mark.parametrize("keep", [0, 4, 100, 5000])
def test_truncated_weights(tmp_path, keep):
    file = tmp_path / "m.safetensors"
    save_model(small_model(torch.float32), file)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UsageError, match=r"m.safetensors is not a readable safetensors file"):
        load_model(file)


def test_a_text_file(tmp_path):
    file = tmp_path / "m.safetensors"
    file.write_text("these are not weights, but a line of text that is long enough to look like something")
    with pytest.raises(UsageError, match="is not a readable safetensors file"):
        load_model(file)


class Bomb:
    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("writer", [torch.save, lambda value, file: file.write_bytes(pickle.dumps(value))])
def test_a_pickle_with_code_is_never_executed(tmp_path, writer):
    proof, file = tmp_path / "executed", tmp_path / "m.safetensors"
    writer({"model": Bomb(proof)}, file)
    with pytest.raises(UsageError, match="looks like a pickle"):
        load_model(file)
    with pytest.raises(UsageError, match="cannot be read as training state"):
        load_state(file)
    assert not proof.exists()


def forged(tmp_path, **changes) -> Path:
    """A well-formed file whose metadata have been changed."""
    file = tmp_path / "m.safetensors"
    model = small_model(torch.float32)
    save_model(model, file)
    about = {"config": model.config.to_dict(), "class_names": ["0", "1", "2"]} | changes
    save_file(load_file(file), file, {checkpoints.METADATA_KEY: json.dumps(about)})
    return file


@pytest.mark.parametrize(
    "config",
    [
        "text",
        [],
        {},
        None,
        {"num_classes": 3},
        *(
            small_model().config.to_dict() | change
            for change in (
                {"nr_filters": 10**9},
                {"nr_resnet": 10**6},
                {"nr_filters": "6"},
                {"nr_filters": True},
                {"image_size": 6},
                {"dropout": "much"},
                {"fusion": ["nowhere"]},
                {"fusion": 3},
                {"extra": 1},
            )
        ),
    ],
)
def test_forged_configs_are_refused(tmp_path, config):
    with pytest.raises(UsageError, match="config"):
        load_model(forged(tmp_path, config=config))


def test_another_architecture_is_refused(tmp_path):
    config = small_model().config.to_dict() | {"nr_filters": 512, "nr_resnet": 16}
    with pytest.raises(UsageError, match="do not fit the architecture"):
        load_model(forged(tmp_path, config=config))


def test_metadata_that_are_no_json(tmp_path):
    file = tmp_path / "m.safetensors"
    save_file({"weight": torch.zeros(2)}, file, {checkpoints.METADATA_KEY: "{"})
    with pytest.raises(UsageError, match="config in it is not valid"):
        load_model(file)


@pytest.mark.parametrize("names", [["a"], None, 3])
def test_forged_class_names_are_refused(tmp_path, names):
    with pytest.raises(UsageError, match=r"m\.safetensors"):
        load_model(forged(tmp_path, class_names=names))


def test_another_kits_weights_are_refused(tmp_path):
    file = tmp_path / "m.safetensors"
    save_file({"weight": torch.zeros(2)}, file)
    with pytest.raises(UsageError, match="holds no weights of this kit"):
        load_model(file)


def test_a_header_that_claims_more_than_the_file_holds(tmp_path):
    file = tmp_path / "m.safetensors"
    file.write_bytes(struct.pack("<Q", 2**40) + b"{}")
    with pytest.raises(UsageError, match="is not a readable safetensors file"):
        load_model(file)


REPO = Path(__file__).parents[1]
FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from conftest import small_model
from utils import UsageError
from kit.runs import save_state
from utils.checkpoints import save_model

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for save, what in ((save_model, small_model(torch.float32)), (save_state, {"a": torch.randn(9999)})):
    try:
        save(what, Path(sys.argv[1]))
    except UsageError as error:
        print(error)
"""


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path):
    """Files cannot grow beyond 4 kB, as on a full disk: the operating system's own limit, in a process of its own."""
    file = tmp_path / "kept"
    file.write_bytes(b"what was there before")
    command = [sys.executable, "-c", FULL_DISK, str(file)]
    path = os.pathsep.join([str(REPO), str(REPO / "tests")])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, check=True)
    messages = done.stdout.splitlines()
    assert len(messages) == 2
    for message in messages:
        reason = r"(.*File too large.*|the disk is full or not writable)"
        assert re.fullmatch(rf"cannot save .*kept: {reason}; what was there before is unchanged", message), message
    assert file.read_bytes() == b"what was there before"
    assert os.listdir(tmp_path) == ["kept"]


def test_a_disk_that_cannot_be_written(tmp_path, monkeypatch):
    def read_only(*_):
        raise OSError(30, "Read-only file system")

    file = tmp_path / "kept"
    file.write_bytes(b"before")
    monkeypatch.setattr(os, "replace", read_only)
    with pytest.raises(UsageError, match="Read-only file system"):
        save_state({"a": 1}, file)
    assert file.read_bytes() == b"before" and os.listdir(tmp_path) == ["kept"]


def test_a_place_that_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot save"):
        save_model(small_model(torch.float32), tmp_path / "file" / "m.safetensors")


@pytest.mark.parametrize("umask,mode", [(0o022, 0o644), (0o077, 0o600), (0o007, 0o660)])
def test_who_may_read_weights_is_for_the_umask_to_say(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        save_model(small_model(torch.float32), tmp_path / "m.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "m.safetensors").stat().st_mode & 0o777 == mode
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]
