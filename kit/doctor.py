"""What is installed, found and missing here, a line each, and for what is wrong the command that fixes it."""

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
from safetensors import SafetensorError, safe_open

from utils import UsageError, checkpoints, data
from utils.device import pick_device, pick_precision, try_convolution

from .console import install, quoted, shown, typed
from .platforms import KIT, find_root, platform_name, runs_folder, runs_will_vanish, try_to_write

Finding = tuple[bool, str, str]  # is it well, what was found, what fixes it
PACKAGES = (  # of requirements.txt, but for the tests; of the notebooks' server only what `report` needs
    "torch", "torchvision", "numpy", "pillow", "safetensors", "tqdm", "filelock", "pooch", "matplotlib", "ipywidgets",
    "wandb", "pyyaml", "jinja2", "pytorch-fid", "imagehash", "scipy", "ipykernel", "psutil", "nbformat", "nbclient",
    "nbconvert",
)  # fmt: skip


def doctor() -> bool:
    """Prints what was found here, a line each, and for what is wrong the command that fixes it; -> all is well."""
    python = f"Python {platform.python_version()} on {platform_name()}"
    findings = [(sys.version_info >= (3, 10), python, "use Python 3.10 or newer")]
    findings += _packages() + _device() + _runs() + _resources()
    for good, finding, fix in findings:
        print(f"{'ok  ' if good else 'FIX '}  {finding}" + ("" if good else f"\n      -> {fix}"))
    return all(good for good, _, _ in findings)


def _device() -> list[Finding]:
    device = pick_device()
    precision = str(pick_precision(device)).removeprefix("torch.")
    note = " (results are compared on CPU and CUDA; MPS may differ)" if device.type == "mps" else ""
    findings = [(True, f"device {device}, precision {precision}{note}", "")]
    for number in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(number)
        try:
            try_convolution(torch.device("cuda", number))
            findings.append((True, f"GPU {number}: {name}", ""))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            fix = "choose another accelerator (GPU T4 x2 on Kaggle), or go on on the CPU"
            findings.append((False, f"GPU {number}: {name} is listed but does not work ({reason})", fix))
    return findings


def _packages() -> list[Finding]:
    findings = []
    for name in PACKAGES:
        try:
            findings.append((True, f"{name} {importlib.metadata.version(name)}", ""))
        except importlib.metadata.PackageNotFoundError:
            findings.append((False, f"{name} is missing", install(name)))
    if importlib.util.find_spec("torchvision"):
        try:
            importlib.import_module("torchvision")
        except (ImportError, RuntimeError) as error:
            pair = install("--force-reinstall", "torch", "torchvision")
            findings.append((False, f"torchvision does not fit torch: {str(error).splitlines()[0]}", pair))
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version("scipy")
        if tuple(map(int, version.split(".")[:2])) >= (1, 18):
            findings.append((False, f"scipy {version}: pytorch-fid breaks with it", install("scipy<1.18")))
    return findings


def _runs() -> list[Finding]:
    """Whether runs can be kept where they are to be: found by writing there."""
    runs = runs_folder()
    try:
        free = shutil.disk_usage(try_to_write(runs)).free / 2**30
    except OSError as error:
        other = os.path.join(os.path.expanduser("~"), "runs")  # any where one may write
        how = (
            quoted("setx", "PIXELCNN_RUNS", other) if os.name == "nt" else "export " + quoted(f"PIXELCNN_RUNS={other}")
        )
        return [(False, f"runs cannot be kept in {shown(runs)} ({error.strerror})", how)]
    drive = "from google.colab import drive; drive.mount('/content/drive')  # else they go with this machine"
    return [
        (not runs_will_vanish(), f"runs are kept in {shown(runs)}", drive),
        (free > 2, f"{free:.0f} GB free there", "make room: a long run with its checkpoints takes up to 2 GB"),
    ]


def _resources() -> list[Finding]:
    from .fid import find_weights as inception_weights
    from .wandb_log import wandb_key

    found = importlib.machinery.PathFinder.find_spec("utils")  # what `import utils` would take in a new kernel
    first = found is not None and Path(found.origin or "").parent == KIT / "utils"
    weights = [name for name in checkpoints.SHIPPED if _readable(checkpoints.shipped(name))]
    rest = [name for name in checkpoints.SHIPPED if name not in weights]
    try:
        course = f"course's data in {shown(data.find_cpen455(find_root('cpen455')))}"
    except UsageError:
        course = f"course's data not found: cartoons need none; {typed('data', 'cpen455')} fetches it"
    inception = (True, "Inception weights found", "")
    try:
        inception_weights()
    except ImportError:
        inception = (True, "Inception weights not looked for: FID is left out", "")
    except UsageError as error:
        left_out = f"FID is left out: {str(error).partition(': ')[0]}"
        inception = (not os.environ.get("FID_INCEPTION"), left_out, "set FID_INCEPTION to that file, or to nothing")
    shadowed = f"put {KIT} first on sys.path: another package of that name comes before"
    shipped = f"shipped weights: {', '.join(weights) or 'none'}"
    shipped += f"; missing or damaged: {', '.join(rest)}" if rest else ""
    return [
        (first, f"utils is {shown(KIT / 'utils')}", shadowed),
        (not rest, shipped, quoted("git", "-C", shown(KIT), "checkout", "checkpoints")),
        (True, course, ""),
        (True, f"W&B key {'found' if wandb_key() else 'not found: logging stays off'}", ""),
        inception,
    ]


def _readable(file: Path) -> bool:
    """Whether these are weights, and all of them: an empty file or a pointer to one elsewhere is none."""
    with contextlib.suppress(OSError, SafetensorError), safe_open(file, framework="pt"):
        return True
    return False
