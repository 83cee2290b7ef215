"""On an Apple GPU, which has no float64: here a tensor says that it lies on one, and refuses as PyTorch does there."""

import functools
import json

import pytest
import torch
from conftest import TINY
from torch.overrides import TorchFunctionMode

from kit.__main__ import main
from utils import device

MPS, CPU = torch.device("mps"), torch.device("cpu")
REFUSAL = "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64"
BRINGS_HOME = (torch.Tensor.cpu, torch.Tensor.tolist, torch.Tensor.item, torch.Tensor.numpy)


class OnMps(torch.Tensor):
    """A tensor in the computer's memory that says otherwise; what is computed with it says so too."""

    def __deepcopy__(self, memo):  # PyTorch's own does not know subclasses
        with torch._C.DisableTorchFunctionSubclass():
            copied = self.detach().clone().as_subclass(OnMps)
        memo[id(self)] = torch.nn.Parameter(copied, self.requires_grad) if self.requires_grad else copied
        return memo[id(self)]

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function == torch.Tensor.device.__get__:
            return MPS
        asked = [*args[1:], *(kwargs or {}).values()]
        others = {each.device for each in asked if isinstance(each, torch.Tensor)}  # `to(another tensor)`
        home = function in BRINGS_HOME or (
            function is torch.Tensor.to and (CPU in asked or "cpu" in asked or CPU in others)
        )
        result = super().__torch_function__(function, types, args, kwargs or {})
        if isinstance(result, torch.Tensor) and home:
            return result.as_subclass(torch.Tensor)
        for each in result if isinstance(result, tuple | list) else [result]:
            if isinstance(each, torch.Tensor) and each.dtype == torch.float64:
                raise TypeError(REFUSAL)
        return result


class Mac(TorchFunctionMode):
    """While open, whatever is asked to lie on `mps` becomes an `OnMps`."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        asked = [*args[1:], *kwargs.values()]
        there = MPS in [each for each in asked if isinstance(each, torch.device)]
        there |= function is torch.Tensor.to and any(isinstance(each, OnMps) for each in asked)
        if not there or function == torch.Tensor.device.__get__:
            return function(*args, **kwargs)

        def here(value):
            return CPU if value == MPS else value if not isinstance(value, OnMps) else value.as_subclass(torch.Tensor)

        args, kwargs = [here(each) for each in args], {name: here(value) for name, value in kwargs.items()}
        with torch._C.DisableTorchFunctionSubclass():
            result = function(*args, **kwargs)
        if result.dtype == torch.float64:
            raise TypeError(REFUSAL)
        return result.as_subclass(OnMps)


@pytest.fixture
def mac(monkeypatch, tmp_path):
    """A Mac: `auto` finds its GPU, and what `Module.to` brings there are parameters that say so."""
    monkeypatch.setattr(torch.backends.mps, "is_available", functools.cache(lambda: True))  # as PyTorch's is
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("PIXELCNN_RUNS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    replaces = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with Mac():
        yield
    torch.__future__.set_overwrite_module_params_on_conversion(replaces)


def test_such_tensors_refuse(mac):
    assert device.pick_device() == MPS and device.pick_precision(MPS) == torch.float32
    x = torch.ones(2, 3, device=MPS)
    for ask in (
        lambda: x.double(),
        lambda: x.to(torch.float64),
        lambda: x * torch.ones(3, dtype=torch.float64),
        lambda: torch.zeros(2, dtype=torch.float64, device=MPS),
        lambda: torch.ones(2, dtype=torch.float64).to(MPS),
        lambda: x.new_zeros(2, dtype=torch.float64),
        lambda: torch.std_mean(torch.ones(2).to(x).double(), dim=0),
    ):
        with pytest.raises(TypeError):
            ask()
    assert (x + 1).device == MPS and x.cpu().double().device == CPU and x.to("cpu").double().sum() == 6


def test_nothing_asks_an_apple_gpu_for_float64(mac, tmp_path, capsys):
    pictures = ["--dataset=cartoons"]
    small = [
        "--image-size=8",
        *(f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if "nr_" in name),
    ]

    def kit(*arguments: str) -> str:
        status = main([*arguments])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return printed.out

    learning = [
        "--optimizer=muon",
        "--lr=0.02",
        "--flip",
        "--shift=1",
        "--ema-decay=0.9",
        "--fusion=all",
        "--hybrid=0.1",
    ]
    kit("train", "--run=mac", *pictures, "--train-limit=24", "--epochs=2", "--sample-every=1", *learning, *small)
    assert (tmp_path / "mac" / "gallery.png").is_file()
    text = kit("evaluate", "--checkpoint=mac", *pictures, "--calibrate=24", "--mirror")
    assert "500 pictures" in text and "temperature" in text
    kit("generate", "--checkpoint=mac", "--per-class=1", "--out=drawn")
    assert "burger" in kit("classify", "--checkpoint=mac", "drawn/Class0_image_01.png")
    kit("report", "mac")
    assert "bits per dimension" in (tmp_path / "mac" / "report.html").read_text()
    assert json.loads((tmp_path / "mac" / "config.json").read_text())["train"]["device"] == "auto"
