"""A training run on disk: its folder, its settings, the state it goes on from, and the wish that it should stop."""

import contextlib
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from utils import UsageError, checkpoints
from utils.model import ModelConfig
from utils.training import TrainConfig, check_at_least, configs_for

from .platforms import find_run, synchronise
from .wandb_log import MODES


class Stopped(Exception):
    """The run was asked to stop; it has saved where it is, and goes on with `resume`."""


def seconds_of(text: str) -> float:
    """`11h30m`, `90m` or `45s` -> seconds; no text is no limit. Raises UsageError for anything else."""
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not parts:
        raise UsageError(f"a time limit is written like 11h30m, 90m or 45s, not {text!r}")
    hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    return 3600 * hours + 60 * minutes + seconds if text else math.inf


@dataclass(frozen=True)
class RunConfig(TrainConfig):
    """`TrainConfig`, and how a run is kept and watched, which changes nothing of what is learned.

    Args:
        data_root: the data set's folder, when it is not where the kit looks.
        device: `auto`, `cpu`, `cuda` or `mps`.
        compile: train through `torch.compile`: a minute or two of warm-up, then faster steps; on a CPU it needs
            a C++ compiler.
        checkpoint_every: epochs between writings of `last.pt`, from which a run resumes.
        sample_every: epochs between galleries drawn with the averaged weights; 0 draws none.
        fid_every: epochs between rough FIDs, 25 samples of each class at 192 dims against the validation pictures,
            both at the model's size: for watching one run, not for comparing with others; 0 computes none.
        time_limit: `11h30m`, say: save and stop when so much time has passed, before a platform's own limit.
        wandb: Weights & Biases: `auto` (online if there is a key), `online`, `offline` or `off`.

    Raises:
        UsageError: a value is out of range.
    """

    data_root: str | None = None
    device: str = "auto"
    compile: bool = False
    checkpoint_every: int = 1
    sample_every: int = 0
    fid_every: int = 0
    time_limit: str = ""
    wandb: str = "auto"

    def __post_init__(self):
        super().__post_init__()
        check_at_least(self, 1, "checkpoint_every")
        check_at_least(self, 0, "sample_every", "fid_every")
        if self.wandb not in MODES:
            raise UsageError(f"unknown wandb mode {self.wandb!r}: choose from {', '.join(MODES)}")
        seconds_of(self.time_limit)


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


class Stopwatch:
    """In the place of a `StopRequest`: times batches of the loop itself, and stops it when it has seen enough."""

    WARM_UP, ENOUGH = 3, 20  # batches: in the first ones kernels are loaded, chosen, compiled

    def __init__(self):
        self.times = [time.perf_counter()]

    def reason(self) -> str:
        synchronise()
        self.times.append(time.perf_counter())
        warm = self.times[self.WARM_UP :]
        return "measured" if len(warm) > self.ENOUGH or (len(warm) > 4 and warm[-1] - warm[0] > 10) else ""

    def seconds_a_batch(self) -> float:
        warm = self.times[self.WARM_UP :] if len(self.times) > self.WARM_UP + 1 else self.times
        return statistics.median(after - before for before, after in itertools.pairwise(warm))


class RunState:
    """All that a run needs to go on as if nothing had happened, at any batch of any epoch.

    No generator is among it: order, flips and dropout follow from the seed and the step.
    """

    PARTS, NUMBERS = ("model", "averaged", "optimizer", "scaler"), ("epoch", "batch", "total", "skipped", "best")

    def __init__(self, model, averaged, optimizer, scaler):
        self.model, self.averaged, self.optimizer, self.scaler = model, averaged, optimizer, scaler
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
        return parts | {name: getattr(self, name) for name in self.NUMBERS}

    def load_state_dict(self, state: dict) -> None:
        for name in self.PARTS:
            if state[name]:  # no scaler's, from a run in float32 that goes on in float16: a new one begins
                getattr(self, name).load_state_dict(state[name])
        for name in self.NUMBERS:
            setattr(self, name, state[name])

    def load(self, folder: Path) -> None:
        """Reads last.pt, or previous.pt where it is damaged. Raises UsageError if both are missing or damaged, or of
        another architecture."""
        try:
            state = load_state(folder / "last.pt")
        except UsageError as damage:
            if not (folder / "previous.pt").exists():
                raise
            print(f"note: {damage}; going on from previous.pt")
            state = load_state(folder / "previous.pt")
        try:
            self.load_state_dict({"skipped": 0} | state)  # older files do not count them
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"the run's last.pt does not fit its config.json ({reason})") from None


def save_state(state: dict, path: str | Path) -> None:
    """Writes training state (tensors, numbers, strings, lists, dicts)."""
    checkpoints.write_atomically(path, lambda temporary: torch.save(state, temporary))


def load_state(path: str | Path) -> dict:
    """Reads what `save_state` wrote; UsageError when it is missing or damaged, or holds anything but data."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"there is no {path} to resume from") from None
    except Exception as error:  # torch.load has no common class for damaged files
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"{path} cannot be read as training state: {reason}") from None


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


def write_config(folder: Path, values: dict) -> None:
    """Writes config.json: {"model": ..., "train": ...}."""
    text = json.dumps(values, indent=2) + "\n"
    checkpoints.write_atomically(folder / "config.json", lambda temporary: temporary.write_text(text))


def read_config(run: str | Path) -> tuple[ModelConfig, RunConfig]:
    """The configs of a run. Raises UsageError if there is no such run or its config.json is damaged."""
    path = find_run(run) / "config.json"
    try:
        values = json.loads(path.read_text())
        return ModelConfig.from_dict(values["model"]), RunConfig(**values["train"])
    except FileNotFoundError:
        raise UsageError(f"there is no run {str(run)!r} to resume ({path} is missing)") from None
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise UsageError(f"{path} is damaged: {error}") from None


def read_metrics(path: Path) -> list[dict]:
    """The lines of a metrics.jsonl so far. One that is half written is left for the next time."""
    lines = []
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text(errors="replace").split("\n"):
            with contextlib.suppress(json.JSONDecodeError):
                lines.append(json.loads(line))
    return lines


def best_epoch(folder: Path) -> dict:
    """The line of metrics.jsonl whose weights are in best.safetensors."""
    return min(read_metrics(folder / "metrics.jsonl"), key=lambda line: line["validation_bpd"])


def keep_metrics(folder: Path, count: int) -> None:
    """Keeps the first lines of metrics.jsonl: those of epochs that were not saved will be written again."""
    file = folder / "metrics.jsonl"
    if file.exists():
        lines = file.read_text().splitlines(keepends=True)[:count]
        checkpoints.write_atomically(file, lambda temporary: temporary.write_text("".join(lines)))


def seed_step(seed: int, step: int, process: int) -> None:
    """Seeds PyTorch's generators for one training step of one process, so that none of them is part of the state."""
    torch.manual_seed((seed * 1_000_003 + step) * 1_000_003 + process)
