"""metrics.jsonl in a run's folder: one line of numbers for each epoch."""

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from utils import UsageError, checkpoints

OF_AN_EPOCH = ("train_bpd", "images_per_second", "seconds")  # what every epoch has
VALIDATION = ("validation_bpd", "validation_accuracy")
NUMBERS = ("step", "lr", "skipped_steps", *OF_AN_EPOCH, *VALIDATION, "seconds_saving", "fid", "fid_dims")


def read_metrics(path: Path) -> list[dict]:
    """The lines of a metrics.jsonl so far, one for each epoch, in order: if it has several, its last. What is no whole
    line, half written or damaged, or has something else for a number, is passed over, but not what has been appended
    to it. Raises UsageError: it cannot be read."""
    lines = {}
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    for text in texts:
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(text[max(0, text.rfind('{"epoch"')) :])
            if isinstance(line, dict) and type(line.get("epoch")) is int and all(map(is_number, numbers_of(line))):
                lines[line["epoch"]] = line
    return [lines[epoch] for epoch in sorted(lines)]


def numbers_of(line: dict) -> list:
    return [line[name] for name in ("epoch", *NUMBERS) if name in line]


def is_number(value) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300  # not a NaN, not infinite


def whole(lines: Sequence[dict]) -> list[dict]:
    """Those that have what every epoch has."""
    return [line for line in lines if all(name in line for name in OF_AN_EPOCH)]


def validated(lines: Sequence[dict]) -> list[dict]:
    """Those of epochs that were validated."""
    return [line for line in lines if all(name in line for name in VALIDATION)]


def best_epoch(folder: Path) -> dict:
    """The line of metrics.jsonl whose weights are in best.safetensors: the last that says so, in older runs that of
    fewest validation bits. Raises UsageError if no epoch was validated."""
    path = folder / "metrics.jsonl"
    if not (lines := validated(read_metrics(path))):
        raise UsageError(f"{path} holds no line of an epoch that was validated")
    said = [line for line in lines if line.get("best") is True]  # not that of fewest bits where its weights were lost
    return said[-1] if said else min(lines, key=lambda line: line["validation_bpd"])


def keep_metrics(folder: Path, epoch: int) -> None:
    """Keeps the lines up to this epoch: those of epochs that were not saved will be written again."""
    file = folder / "metrics.jsonl"
    if file.exists():
        text = "".join(json.dumps(line) + "\n" for line in read_metrics(file) if line["epoch"] <= epoch)
        checkpoints.write_atomically(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def add_metrics(folder: Path, line: dict) -> None:
    """Appends to metrics.jsonl; a torn last line, which a full disk leaves, is ended first."""
    path = folder / "metrics.jsonl"
    try:
        with open(path, "ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
            torn = file.read(1) not in (b"", b"\n")
            file.write(b"\n" * torn + json.dumps(line).encode() + b"\n")
    except OSError as error:
        raise UsageError(f"cannot save {path}: {error.strerror}; the run goes on from its last checkpoint") from None
