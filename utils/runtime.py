"""Where am I, on which device and in which precision: found by trying, not by asking."""

import contextlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

import torch

from . import UsageError

KIT = Path(__file__).resolve().parents[1]
KAGGLE_INPUT, KAGGLE_WORKING = Path("/kaggle/input"), Path("/kaggle/working")  # read-only; kept with the notebook
COLAB_DRIVE = Path("/content/drive/MyDrive")  # there once Drive is mounted
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the first of CUDA, MPS and the CPU that does a real convolution: a GPU may be listed although
    this build of PyTorch has no kernels for it. Raises UsageError when a device asked for by name does not work.
    """
    if name != "auto":
        try:
            device = torch.device(name)
            _try_convolution(device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"device {name!r} does not work here ({reason}); try --device cpu") from None
        return device
    available = [("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())]
    for kind, listed in available:
        if listed:
            try:
                _try_convolution(torch.device(kind))
                return torch.device(kind)
            except RuntimeError as error:
                print(f"note: {kind} is listed but does not work ({str(error).splitlines()[0]}); using the CPU")
    return torch.device("cpu")


def _try_convolution(device: torch.device) -> None:
    x = torch.ones(1, 1, 2, 2, device=device)
    torch.nn.functional.conv2d(x, x).cpu()


def pick_precision(device: torch.device, name: str = "auto") -> torch.dtype:
    """What autocast computes in: `auto` is bfloat16 where the hardware has it, float16 on older CUDA GPUs, else
    float32. Decided by capability: `torch.cuda.is_bf16_supported()` is true by emulation on GPUs without it.
    """
    if name != "auto":
        if name not in PRECISIONS:
            raise UsageError(f"unknown precision {name!r}: choose from auto, {', '.join(PRECISIONS)}")
        return PRECISIONS[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16
    if device.type == "cpu" and cpu_has_bfloat16():
        return torch.bfloat16
    return torch.float32


def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively (AVX512-BF16, AMX, or Arm's bf16 extension)."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def autocast(device: torch.device, precision: torch.dtype):
    """Autocast to `precision`; nothing at all for float32."""
    if precision == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, precision)


def memory_format(device: torch.device) -> torch.memory_format:
    """The faster layout of activations: tensor cores want channels last; oneDNN has a blocked layout of its own, and
    the elementwise work between its convolutions is quicker on plain NCHW.
    """
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def machine(device: torch.device) -> str:
    """One line: processor or GPU, cores, PyTorch."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, {name}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, {torch.get_num_threads()} threads, PyTorch {torch.__version__.split('+')[0]}"


def platform_name() -> str:
    """`kaggle`, `colab` or `laptop`. Kaggle is asked first: its image is built from Colab's."""
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ or KAGGLE_WORKING.is_dir():
        return "kaggle"
    return "colab" if "COLAB_RELEASE_TAG" in os.environ or "google.colab" in sys.modules else "laptop"


def runs_folder() -> Path:
    """Where runs are kept: $PIXELCNN_RUNS; else what outlives the session on Kaggle (working/runs) and on Colab (a
    mounted Drive); else checkpoints/runs in the kit."""
    if "PIXELCNN_RUNS" in os.environ:
        return Path(os.environ["PIXELCNN_RUNS"])
    where = platform_name()
    if where == "kaggle":
        return KAGGLE_WORKING / "runs"
    if where == "colab" and COLAB_DRIVE.is_dir():
        return COLAB_DRIVE / "pixelcnn-kit" / "runs"
    return KIT / "checkpoints" / "runs"


def runs_will_vanish() -> bool:
    """Whether runs are lost with this machine: on Colab without Drive."""
    return platform_name() == "colab" and not COLAB_DRIVE.is_dir() and "PIXELCNN_RUNS" not in os.environ


def doctor() -> bool:
    """Prints what was found here, a line each, and for what is wrong the command that mends it; -> all is well."""
    findings = [
        (
            sys.version_info >= (3, 10),
            f"Python {platform.python_version()} on {platform_name()}",
            "use Python 3.10 or newer",
        ),
        *_packages(),
        *_device(),
        *_resources(),
    ]
    for good, finding, mend in findings:
        print(f"{'ok  ' if good else 'MEND'}  {finding}" + ("" if good else f"\n      -> {mend}"))
    return all(good for good, _, _ in findings)


def _device() -> list[tuple[bool, str, str]]:
    device = pick_device()
    precision = str(pick_precision(device)).removeprefix("torch.")
    note = " (results are compared on CPU and CUDA; MPS may differ)" if device.type == "mps" else ""
    findings = [(True, f"device {device}, precision {precision}{note}", "")]
    for number in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(number)
        try:
            _try_convolution(torch.device("cuda", number))
            findings.append((True, f"GPU {number}: {name}", ""))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            mend = "choose another accelerator (GPU T4 x2 on Kaggle), or go on on the CPU"
            findings.append((False, f"GPU {number}: {name} is listed but does not work ({reason})", mend))
    return findings


def _packages() -> list[tuple[bool, str, str]]:
    findings = []
    for name in ("torch", "torchvision", "numpy", "safetensors", "matplotlib", "ipywidgets", "wandb", "pytorch-fid"):
        try:
            findings.append((True, f"{name} {importlib.metadata.version(name)}", ""))
        except importlib.metadata.PackageNotFoundError:
            findings.append((False, f"{name} is missing", f"pip install {name}"))
    if importlib.util.find_spec("torchvision"):
        try:
            importlib.import_module("torchvision")
        except (ImportError, RuntimeError) as error:
            pair = "pip install --force-reinstall torch torchvision"
            findings.append((False, f"torchvision does not fit torch: {str(error).splitlines()[0]}", pair))
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version("scipy")
        old = tuple(map(int, version.split(".")[:2])) < (1, 18)
        findings.append((old, f"scipy {version}", "pip install 'scipy<1.18' (pytorch-fid breaks with newer ones)"))
    return findings


def _resources() -> list[tuple[bool, str, str]]:
    from . import checkpoints, data
    from .fid import find_weights as inception_weights
    from .tracking import wandb_key

    here = Path(__file__).parent
    found = importlib.machinery.PathFinder.find_spec("utils")  # what `import utils` would take in a new kernel
    first = found is not None and Path(found.origin or "").parent == here
    runs = runs_folder()
    existing = next(folder for folder in (runs, *runs.parents) if folder.is_dir())
    free = shutil.disk_usage(existing).free / 2**30
    weights = [name for name in checkpoints.SHIPPED if (checkpoints.FOLDER / f"{name}.safetensors").is_file()]
    try:
        course = f"course's data in {os.path.relpath(data.find_cpen455())}"
    except UsageError:
        course = "course's data not found: cartoons need none; python -m utils data cpen455 fetches it"
    try:
        inception_weights()
        inception = "Inception weights found"
    except (UsageError, ImportError):
        inception = "Inception weights not found: FID is left out (python -m utils fid --download fetches them)"
    return [
        (
            first,
            f"utils is {os.path.relpath(here)}",
            f"put {here.parent} first on sys.path: another package of that name comes before",
        ),
        (
            not runs_will_vanish(),
            f"runs are kept in {os.path.relpath(runs) if KIT in runs.parents else runs}",
            "from google.colab import drive; drive.mount('/content/drive')   else they go with this machine",
        ),
        (free > 2, f"{free:.0f} GB free there", "make room: a long run with its checkpoints takes up to 2 GB"),
        (
            len(weights) == len(checkpoints.SHIPPED),
            f"shipped weights: {', '.join(weights) or 'none'}",
            "git checkout checkpoints",
        ),
        (True, course, ""),
        (True, f"W&B key {'found' if wandb_key() else 'not found: logging stays off'}", ""),
        (True, inception, ""),
    ]
