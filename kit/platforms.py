"""Laptop, Kaggle or Colab: which one this is, where its folders are, and what they hold."""

import contextlib
import glob
import netrc
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from utils import UsageError, checkpoints, data

from .console import KIT

KAGGLE_INPUT, KAGGLE_WORKING = Path("/kaggle/input"), Path("/kaggle/working")  # read-only; kept with the notebook
RUNS = checkpoints.RUNS  # in the kit
DEMO = "demo"  # the run that each demo replaces
COLAB_DRIVE = Path("/content/drive/MyDrive")  # there once Drive is mounted


def machine(device: torch.device) -> str:
    """One line: processor or GPU, cores, PyTorch."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        models = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
        name = models[0] if models else name
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, {name}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, {torch.get_num_threads()} threads, PyTorch {torch.__version__.split('+')[0]}"


def synchronise() -> None:
    """Returns when the GPUs have done what they were given, so that time can be taken."""
    for gpu in (torch.cuda, torch.mps):
        if gpu.is_available():
            gpu.synchronize()


def platform_name() -> str:
    """`kaggle`, `colab` or `laptop`. Kaggle is asked first: its image is built from Colab's."""
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ or KAGGLE_WORKING.is_dir():
        return "kaggle"
    return "colab" if "COLAB_RELEASE_TAG" in os.environ or "google.colab" in sys.modules else "laptop"


def runs_folder() -> Path:
    """Where runs are kept, absolute: $PIXELCNN_RUNS; else what outlives the session on Kaggle (working/runs) and on
    Colab (a mounted Drive); else checkpoints/runs in the kit."""
    if given := checkpoints.given_runs():
        return given
    where = platform_name()
    if where == "kaggle":
        return KAGGLE_WORKING / "runs"
    if where == "colab" and COLAB_DRIVE.is_dir():
        return COLAB_DRIVE / "pixelcnn-kit" / "runs"
    return RUNS


def runs_will_vanish() -> bool:
    """Whether runs are lost with this machine: on Colab without Drive."""
    return platform_name() == "colab" and not COLAB_DRIVE.is_dir() and not checkpoints.given_runs()


def try_to_write(folder: Path) -> Path:
    """-> the folder, or the nearest above it that is there; OSError unless one may write into it. Nothing is left."""
    existing = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    with tempfile.TemporaryFile(dir=existing, prefix="."):
        return existing


def check_writable(folder: str | Path) -> None:
    """Raises UsageError unless one may write into the folder, which need not exist: before long work, not after."""
    try:
        try_to_write(Path(folder))
    except OSError as error:
        raise UsageError(f"cannot write into {folder} ({error.strerror}): choose another folder") from None


def password_in_netrc(hosts: list[str]) -> str | None:
    """The password for the first of the hosts that $NETRC, ~/.netrc or ~/_netrc knows."""
    given = os.environ.get("NETRC")
    for path in [given] if given else ["~/.netrc", "~/_netrc"]:
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            file = netrc.netrc(os.path.expanduser(path))
            for login in filter(None, map(file.authenticators, hosts)):
                return login[2]
    return None


def secret(name: str) -> str | None:
    """What Kaggle or Colab keeps for the user under this name."""
    with contextlib.suppress(Exception):  # not there, not shared with this notebook, no network: all the same
        from kaggle_secrets import UserSecretsClient

        return UserSecretsClient().get_secret(name)
    with contextlib.suppress(Exception):
        from google.colab import userdata

        return userdata.get(name)
    return None


def check_name(run: str | Path) -> None:
    """Raises UsageError unless a new run may be called so: NAME or SWEEP/NAME; any absolute `Path` is a folder."""
    if isinstance(run, Path) and run.is_absolute():
        return
    name = run.as_posix() if isinstance(run, Path) else run
    parts = name.split("/")
    escapes = any(part in ("", ".", "..") or part != os.path.basename(part) for part in parts)
    if not name.isprintable() or any(part != part.strip() for part in parts):
        raise UsageError(f"--run {name!r}: a name has no space at its ends, and only letters that can be printed")
    if escapes or len(parts) > 2 or name.startswith("-") or parts[0].casefold() == DEMO:  # Mac and Windows fold case
        raise UsageError(f"--run takes a NAME or SWEEP/NAME, other than {DEMO!r}, not {name!r}")
    if name.casefold() in checkpoints.SHIPPED:
        raise UsageError(f"--run {name}: shipped weights are called so: choose another name")


def find_run(run: str | Path) -> Path:
    """A run's name or folder -> its folder, which need not exist. One that an earlier Kaggle session has left, and
    that is attached as read-only input, is copied to where it can go on."""
    folder = runs_folder() / run
    if not folder.exists() and not Path(run).is_absolute():
        for config in sorted(KAGGLE_INPUT.glob(f"**/{glob.escape(str(run))}/config.json")):
            unfinished = folder.with_name(f".{folder.name}.tmp")
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.copytree(config.parent, unfinished)
            unfinished.rename(folder)
            print(f"note: run {str(run)!r} was copied from {config.parent}")
            break
    return folder


def find_weights(name_or_path: str | Path) -> Path:
    """As `checkpoints.find_weights`, which looks for a run's weights where runs are kept here."""
    return checkpoints.find_weights(name_or_path, runs_folder())


def load_model(name_or_path: str | Path, device="cpu"):
    """As `checkpoints.load_model`, of what `find_weights` finds."""
    return checkpoints.load_model(find_weights(name_or_path), device)


def find_root(dataset: str, root: str | Path | None = None) -> str | Path | None:
    """The folder to read a data set from: `root` if given; else, for the course's data, that of Kaggle's input if it
    is attached there and the kit has none of its own; else None, and `data.load_split` looks where it always does."""
    if root is None and dataset == "cpen455":
        try:
            data.find_cpen455()
        except UsageError:
            attached = (found.parent for found in sorted(KAGGLE_INPUT.glob("**/validation.csv")))
            return next((folder for folder in attached if (folder / "train.csv").is_file()), None)
    return root


def load_pictures(
    dataset: str,
    split: str,
    root: str | Path | None,
    image_size: int,
    class_names: Sequence[str] | None = None,
    who: str = "the model",
) -> data.ImageDataset:
    """As `data.load_split`, from where `find_root` finds it; labels count along the `class_names` of `who`, if given.

    Raises UsageError also where the data set has other classes.
    """
    pictures = data.load_split(dataset, split, find_root(dataset, root), image_size)
    return pictures if class_names is None else pictures.with_classes(class_names, who)


def template(name: str) -> str:
    """A text of kit/templates/."""
    return (KIT / "kit" / "templates" / name).read_text(encoding="utf-8")
