"""A training run on disk: its folder, its settings, the state it goes on from, and the wish that it should stop."""

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from utils import UsageError, at_home, checkpoints, listing
from utils.model import ModelConfig
from utils.training import TrainConfig, check_at_least, configs_for

from .platforms import find_run
from .wandb_log import MODES


class Stopped(Exception):
    """The run was asked to stop; it has saved where it is, and goes on with `resume`."""


def seconds_of(text: str) -> float:
    """`11h30m`, `90m` or `45s` -> seconds; no text is no limit. Raises UsageError for anything else."""
    parts = re.fullmatch(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", text)
    if not parts:
        raise UsageError(f"a time limit is written like 11h30m, 90m or 45s, not {text[:40]!r}")
    hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    return 3600 * hours + 60 * minutes + seconds if text else math.inf


@dataclass(frozen=True)
class RunConfig(TrainConfig):
    """`TrainConfig`, and how a run is kept and watched, which changes nothing of what is learned.

    Args:
        data_root: the data set's folder, when it is not where the kit looks.
        device: `auto`, `cpu`, `cuda` or `mps`.
        compile: train through `torch.compile`: a minute or two of warm-up, then faster steps on a GPU; on a CPU it
            needs a C++ compiler and gains nothing.
        validate_every: epochs between validations; the last epoch is always validated.
        validate_limit: validate on this many of the validation pictures, chosen at random, every class in its
            proportion; 0 is all.
        checkpoint_every: epochs between saves of `last.pt`, from which a run resumes.
        sample_every: epochs between galleries drawn with the averaged weights; 0 draws none.
        fid_every: epochs between rough FIDs, 25 samples of each class at 192 dims against the validation pictures,
            both at the model's size: for watching one run, not for comparing with others; 0 computes none.
        time_limit: `11h30m`, say: save and stop after this time, before a platform's own limit.
        wandb: Weights & Biases: `auto` (online if there is a key), `online`, `offline` or `off`.

    Raises:
        UsageError: a value is out of range.
    """

    data_root: str | None = None
    device: str = "auto"
    compile: bool = False
    validate_every: int = 1
    validate_limit: int = 0
    checkpoint_every: int = 1
    sample_every: int = 0
    fid_every: int = 0
    time_limit: str = ""
    wandb: str = "auto"

    def __post_init__(self):
        super().__post_init__()
        if self.data_root:  # a run is also read from other folders
            object.__setattr__(self, "data_root", os.path.abspath(at_home(self.data_root)))
        check_at_least(self, 1, "validate_every", "checkpoint_every")
        check_at_least(self, 0, "validate_limit", "sample_every", "fid_every")
        if self.wandb not in MODES:
            raise UsageError(f"unknown wandb mode {self.wandb!r}: choose from {', '.join(MODES)}")
        seconds_of(self.time_limit)


TRAINED = ("*.pt", "*.safetensors", "metrics.jsonl")  # what there is in a run's folder once it has been trained
LOST = "holds {} of a run whose config.json is lost: put it back"  # the files that are left
OF_THE_RUN = {field.name for field in fields(RunConfig)} - {field.name for field in fields(TrainConfig)}


def run_configs(preset: str, num_classes: int, **overrides) -> tuple[ModelConfig, RunConfig]:
    """As `training.configs_for`, whose errors it raises; `overrides` may hold the run's own fields too."""
    own = {name: overrides.pop(name) for name in OF_THE_RUN & overrides.keys()}
    model_config, config = configs_for(preset, num_classes, **overrides)
    return model_config, RunConfig(**vars(config), **own)


class StopRequest:
    """While open, Ctrl-C and SIGTERM are wishes to stop soon, not interruptions; so is a limit in seconds."""

    def __init__(self, limit: float):
        self.end = time.monotonic() + limit
        self.signal = ""

    def reason(self) -> str:
        """Why to stop; empty while there is no reason."""
        return self.signal or ("the time limit was reached" if time.monotonic() > self.end else "")

    def _on_signal(self, number, _frame) -> None:
        if self.signal:  # asked twice: at once
            raise KeyboardInterrupt
        self.signal = f"{signal.Signals(number).name} came"

    def __enter__(self) -> "StopRequest":
        self.old = {}
        if threading.current_thread() is threading.main_thread():  # others may not change what signals do
            self.old = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_error) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)


class RunState:
    """All that a run needs to go on as if nothing had happened, at any batch of any epoch.

    No generator is among it: order, flips and dropout follow from the seed and the step.
    """

    PARTS, NUMBERS = ("model", "averaged", "optimizer", "scaler"), ("epoch", "batch", "total", "skipped", "best")

    def __init__(self, model, averaged, optimizer, scaler):
        self.model, self.averaged, self.optimizer, self.scaler = model, averaged, optimizer, scaler
        self.rivals: Tensor | None = None  # (N,): of a hybrid run, for each training picture a wrong label
        self.epoch, self.batch = 0, 0  # done so far; batches in the epoch under way
        self.total = 0.0  # the loss of those batches, summed over pictures
        self.skipped = 0  # steps of that epoch whose gradient overflowed in float16
        self.best = math.inf
        self.seconds_saving = 0.0

    def save(self, folder: Path) -> None:
        """Writes last.pt; the one before stays as previous.pt."""
        started = time.perf_counter()
        if (folder / "last.pt").exists():
            checkpoints.write_atomically(folder / "previous.pt", lambda copy: _link(folder / "last.pt", copy))
        save_state(self.state_dict(), folder / "last.pt")
        self.seconds_saving = time.perf_counter() - started

    def state_dict(self) -> dict:
        parts = {name: getattr(self, name).state_dict() for name in self.PARTS}
        return parts | {name: getattr(self, name) for name in self.NUMBERS} | {"rivals": self.rivals}

    def load_state_dict(self, state: dict) -> None:
        """Raises UsageError if it is of another architecture."""
        state = {"skipped": 0} | state  # older files do not count them
        try:
            for name in self.PARTS:
                if state[name]:  # no scaler's, from a run in float32 that goes on in float16: a new one begins
                    getattr(self, name).load_state_dict(state[name])
            for name in self.NUMBERS:
                setattr(self, name, state[name])
            self.rivals = state.get("rivals")  # older files have none
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"the run's saved state does not fit its config.json ({reason})") from None


def save_state(state: dict, path: str | Path) -> None:
    """Writes training state (tensors, numbers, strings, lists, dicts)."""
    checkpoints.write_atomically(path, lambda temporary: torch.save(state, temporary))


def load_state(path: str | Path) -> dict:
    """Reads what `save_state` wrote; UsageError when it is missing or damaged, or holds anything but data."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"there is no {path} to resume from") from None
    except Exception as error:  # torch.load has no common class for damaged files
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"{path} cannot be read as training state: {reason}") from None
    kinds = {"epoch": int, "batch": int, "total": int | float, "best": int | float}
    if not isinstance(state, dict) or not all(isinstance(state.get(name), kind) for name, kind in kinds.items()):
        raise UsageError(f"{path} cannot be read as training state: it holds something else")
    return state


def _link(file: Path, copy: Path) -> None:
    try:
        os.link(file, copy)
    except OSError:  # Drive and some network file systems have no hard links
        shutil.copyfile(file, copy)


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """While open, no other process of this machine gets past here with the same folder, but a UsageError. The lock ends
    with its process, however that ends, and lies with the temporary files: a mounted Drive has no locks."""
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    lock = FileLock(Path(tempfile.gettempdir()) / f"pixelcnn-{name}.lock", timeout=0)
    with contextlib.ExitStack() as open_lock:
        try:
            open_lock.enter_context(lock)
        except Timeout:
            raise UsageError(f"another process trains {folder}: wait for its end, or choose another --run") from None
        yield


def trained_files(folder: Path) -> list[str]:
    """The names of the files that only training leaves in a run's folder."""
    return sorted(file.name for kind in TRAINED for file in folder.glob(kind) if file.stat().st_size)


def write_config(folder: Path, values: dict) -> None:
    """Writes config.json: {"model": ..., "train": ..., "classes": their names by label, "pictures": how many there are
    to learn from, "validation_pictures": and in the validation split}."""
    text = json.dumps(values, indent=2) + "\n"
    checkpoints.write_atomically(folder / "config.json", lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_values(folder: Path) -> dict:
    """What `write_config` wrote; older runs lack the last three. Raises UsageError: missing or damaged."""
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        if left := trained_files(folder):
            raise UsageError(f"{folder} {LOST.format(listing(left))}") from None
        raise UsageError(f"there is no run {str(folder.name)!r} to resume ({path} is missing)") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} is damaged: {error}") from None
    if not isinstance(values, dict) or not isinstance(values.get("train"), dict):
        raise UsageError(f"{path} is damaged: it holds something else than a run's settings")
    return values


def read_config(run: str | Path) -> tuple[ModelConfig, RunConfig]:
    """The configs of a run. Raises UsageError if there is no such run or its config.json is damaged."""
    folder = find_run(run)
    values = read_values(folder)
    try:
        return ModelConfig.from_dict(values["model"]), RunConfig(**values["train"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{folder / 'config.json'} is damaged: {error}") from None


def seed_step(seed: int, step: int, process: int) -> None:
    """Seeds PyTorch's generators for one training step of one process, so that none of them is part of the state."""
    torch.manual_seed(((seed * 1_000_003 + step) * 1_000_003 + process) % 2**64)
