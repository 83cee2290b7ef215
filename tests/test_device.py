"""Which precision to compute in."""

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from utils import UsageError, device


@pytest.mark.parametrize("capability,expected", [((6, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16")])
def test_precision_by_compute_capability_not_by_emulation(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_args: True)
    assert device.pick_precision(torch.device("cuda")) == device.PRECISIONS[expected]


def test_float32_is_float32(monkeypatch):
    """PyTorch's default rounds what a GPU's float32 convolutions read to 10 bits (TF32)."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    device.pick_device("cpu")
    assert not torch.backends.cudnn.allow_tf32


def test_a_compiler_that_does_not_work_is_found_by_trying(tmp_path):
    """In a process of its own, since what was compiled once is kept; nothing but the one line may be printed."""
    code = "import torch; from utils.device import check_compile; check_compile(torch.device('cpu'))"
    root = Path(__file__).parents[1]
    for compiler, words in (("no-such-compiler", "No working C++ compiler"), ("false", "torch.compile does not work")):
        caches = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / compiler)}
        environment = os.environ | caches | {"CXX": compiler}
        start = [sys.executable, "-c", code]
        done = subprocess.run(start, capture_output=True, text=True, cwd=root, env=environment)
        *_, last = done.stderr.splitlines()
        assert last.startswith("utils.UsageError: torch.compile does not work here (") and words in last, done.stderr
        assert last.endswith("): leave out --compile") and len(last) < 300
        assert done.stdout == "" and done.stderr.startswith("Traceback"), done.stderr


def test_a_compiler_that_works_is_tried_in_silence(monkeypatch, capsys, caplog):
    asked = []

    def compile_loudly(function, **_how):
        asked.append(function)
        logging.getLogger("torch._inductor").warning("loud")
        warnings.warn("loud", stacklevel=1)
        print("loud", file=sys.stderr)
        return function

    monkeypatch.setattr(torch, "compile", compile_loudly)
    device.check_compile(torch.device("cpu"))
    assert len(asked) == 1 and not logging.root.manager.disable
    assert capsys.readouterr() == ("", "") and caplog.records == []


@pytest.mark.parametrize("name", ["foo", "", "cpu:9", "meta", "CUDA", "cuda:", "cuda:-1", "mps:0"])
def test_a_device_that_is_none(name):
    with pytest.raises(UsageError, match=f"device {name!r} is unknown: choose from auto, cpu, cuda, mps"):
        device.pick_device(name)


def test_an_apple_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"^device 'mps' does not work here.{0,99}cpu, cuda, mps$"):
        device.pick_device("mps")
