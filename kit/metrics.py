"""metrics.jsonl in a run's folder: one line of numbers for each epoch."""

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from utils import UsageError, checkpoints


def read_metrics(path: Path) -> list[dict]:
    """The lines of a metrics.jsonl so far, one for each epoch, in order: if it has several, its last. What is no whole
    line, half written or damaged, is passed over, but not what has been appended to it."""
    lines = {}
    with contextlib.suppress(FileNotFoundError):
        for text in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            with contextlib.suppress(ValueError, RecursionError):
                line = json.loads(text[max(0, text.rfind('{"epoch"')) :])
                if isinstance(line, dict) and isinstance(line.get("epoch"), int):
                    lines[line["epoch"]] = line
    return [lines[epoch] for epoch in sorted(lines)]


def validated(lines: Sequence[dict]) -> list[dict]:
    """Those of epochs that were validated."""
    return [line for line in lines if "validation_bpd" in line]


def best_epoch(folder: Path) -> dict:
    """The line of metrics.jsonl whose weights are in best.safetensors. Raises UsageError if no epoch was validated."""
    path = folder / "metrics.jsonl"
    if not (lines := validated(read_metrics(path))):
        raise UsageError(f"{path} holds no line of an epoch that was validated")
    return min(lines, key=lambda line: line["validation_bpd"])


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
