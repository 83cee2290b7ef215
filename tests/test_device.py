"""Which precision to compute in."""

import pytest
import torch

from utils import device


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
