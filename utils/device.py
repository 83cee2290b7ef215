"""Which device, precision and memory layout to compute with: found by trying, not by asking."""

import contextlib
import io
import logging
import re
import warnings
from pathlib import Path

import torch

from . import UsageError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the first of CUDA, MPS and the CPU that does a real convolution: a GPU may be listed although
    this build of PyTorch has no kernels for it. Raises UsageError when a device asked for by name does not work.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?|mps", name):
        raise UsageError(f"device {name!r} is unknown: choose from auto, cpu, cuda, mps (cuda:1 is the second GPU)")
    listed = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "mps" and not listed["mps"]:
        raise UsageError("device 'mps' does not work here (no Apple GPU is found); choose from auto, cpu, cuda, mps")
    for kind in [kind for kind in listed if listed[kind]] if name == "auto" else [name]:
        try:
            device = torch.device(kind)
            try_convolution(device)
            torch.backends.cudnn.allow_tf32 = False  # else a GPU's float32 convolutions round to 10 bits
            return device
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            if name != "auto":
                raise UsageError(f"device {name!r} does not work here ({reason}); try --device cpu") from None
            print(f"note: {kind} is listed but does not work ({reason}); using the CPU")
    return torch.device("cpu")


def try_convolution(device: torch.device) -> None:
    x = torch.ones(1, 1, 2, 2, device=device)
    torch.nn.functional.conv2d(x, x).cpu()


def check_compile(device: torch.device) -> None:
    """Raises UsageError where `torch.compile` does not work on a device, for want of a C++ compiler say."""
    before = logging.root.manager.disable
    logging.disable()  # its parts have loggers of their own, which say it at length
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.ones(8, device=device)).cpu()
    except Exception as error:  # of whatever class its parts raise
        lines = [line for line in str(error).splitlines() if line.strip() and not line.endswith("raised:")]
        reason = lines[0].strip()[:150] if lines else type(error).__name__
        raise UsageError(f"torch.compile does not work here ({reason}): leave out --compile") from None
    finally:
        logging.disable(before)


def pick_precision(device: torch.device, name: str = "auto") -> torch.dtype:
    """What autocast computes in: `auto` is bfloat16 where the hardware has it, float16 on older CUDA GPUs, else
    float32. Decided by capability: `torch.cuda.is_bf16_supported()` is true by emulation on GPUs without it.
    """
    if name in PRECISIONS:
        return PRECISIONS[name]
    if name != "auto":
        raise UsageError(f"unknown precision {name!r}: choose from auto, {', '.join(PRECISIONS)}")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    if device.type == "cpu" and cpu_has_bfloat16():
        return torch.bfloat16
    return torch.float32


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively (AVX512-BF16, AMX, or Arm's bf16 extension)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def autocast(device: torch.device, precision: torch.dtype):
    """Autocast to `precision`; nothing at all for float32."""
    if precision == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, precision)


def memory_format(device: torch.device) -> torch.memory_format:
    """The faster layout of activations: convolutions read all channels of a pixel at once, here and on tensor cores."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last
