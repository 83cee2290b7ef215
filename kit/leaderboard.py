"""The file that the course's leaderboard takes: a label for every picture of the test split.

Two formats are in use. 2024: no header, `test/0000021.jpg,2`. 2023: the header `id,label`, names without their
folder, and a last row with the FID of the samples, `fid,31.5`.
"""

import csv
import math
import re
from pathlib import Path, PurePosixPath

import numpy as np
from torch import Tensor

from utils import UsageError
from utils.checkpoints import write_atomically

from .console import typed

FORMATS = ("2024", "2023")


def rows(names: list[str], labels: list[int], format: str = "2024", fid: float | None = None) -> list[list[str]]:
    """What the file holds, row by row; names as in `test.csv`, labels 0 ... 3. Raises UsageError for another format,
    and when format and FID do not go together."""
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}: choose from {', '.join(FORMATS)}")
    if format == "2024":
        if fid is not None:
            raise UsageError("the 2024 format has no place for --fid: leave it out, or add --format 2023")
        return [[name, str(label)] for name, label in zip(names, labels, strict=True)]
    if fid is None or not math.isfinite(fid) or fid < 0:
        raise UsageError(f"the 2023 format ends in the samples' FID: give --fid NUMBER, that of `{typed('fid')}`")
    named = [[PurePosixPath(name).name, str(label)] for name, label in zip(names, labels, strict=True)]
    return [["id", "label"], *named, ["fid", f"{fid:g}"]]


def write(
    path: str | Path, names: list[str], labels: list[int], format: str = "2024", fid: float | None = None
) -> None:
    """Writes a submission and checks what is written; only then is it at `path`. Raises as `rows` and `check`."""
    table = rows(names, labels, format, fid)

    def write_and_check(temporary: Path) -> None:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(table)
        check(temporary, names, format)

    write_atomically(path, write_and_check)


def check(path: str | Path, names: list[str], format: str = "2024") -> list[int]:
    """The labels in a submission file; UsageError unless it has one valid label for each of `names`, in their order."""
    content = Path(path).read_bytes().decode()
    if "\r" in content or not content.endswith("\n"):
        raise UsageError("a submission's lines end in LF, the last one too")
    found = list(csv.reader(content.splitlines()))
    if format == "2023":
        first, last, found = found[0], found[-1], found[1:-1]
        if first != ["id", "label"] or not re.fullmatch(r"fid,\d\S*", ",".join(last)):
            raise UsageError("a submission of 2023 begins with id,label and ends with fid,NUMBER")
        names = [PurePosixPath(name).name for name in names]
    if len(set(names)) != len(names):
        twice = next(name for n, name in enumerate(names) if name in names[:n])
        raise UsageError(f"{twice} appears twice: every picture of the test split has one row")
    if len(found) != len(names):
        raise UsageError(f"a submission has {len(names)} rows, one a picture; this one has {len(found)}")
    for number, (row, name) in enumerate(zip(found, names, strict=True), start=1):
        if row[:1] != [name]:
            raise UsageError(f"picture {number} of a submission is {name}, as in test.csv, not {row[0] if row else ''}")
        if len(row) != 2 or row[1] not in ("0", "1", "2", "3"):
            raise UsageError(f"the label of {name} must be 0 to 3, not {','.join(row[1:])!r}")
    return [int(label) for _, label in found]


def write_log_likelihoods(path: str | Path, nats: Tensor) -> Path:
    """Keeps log p(x | y), (N, C) in the rows' order, next to a submission: its name with the suffix .npy."""
    beside = Path(path).with_suffix(".npy")
    if beside == Path(path):
        raise UsageError(f"--out {path} would be overwritten by the log-likelihoods: give it the suffix .csv")

    def save(temporary: Path) -> None:
        with open(temporary, "wb") as file:  # np.save would add a suffix to a name
            np.save(file, nats.cpu().numpy(), allow_pickle=False)

    write_atomically(beside, save)
    return beside
