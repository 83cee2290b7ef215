"""The file that the course's leaderboard takes: a label for every picture of the test split.

Two formats are in use. 2024: no header, `test/0000021.jpg,2`. 2023: the header `id,label`, names without their
folder, and a last row with the FID of the samples, `fid,31.5`. What is written keeps to a format byte by byte; what
others hand in may have its rows in any order, and be saved by a spreadsheet.
"""

import csv
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from torch import Tensor

from utils import UsageError, composed, listing
from utils.checkpoints import write_atomically
from utils.data import read_rows
from utils.figures import shortened

from .console import typed

FORMATS = ("2024", "2023")
HEADER = ["id", "label"]  # of 2023
MOST_BYTES = 20_000_000  # of a table of pictures and labels


@dataclass(frozen=True)
class Submission:
    """What a file says: the pictures' labels, in the order in which they were asked for; `claimed_fid` is the number
    that a file of 2023 ends in."""

    labels: list[int]
    format: str
    claimed_fid: float | None


def rows(names: list[str], labels: list[int], format: str = "2024", fid: float | None = None) -> list[list[str]]:
    """What the file holds, row by row; names as in `test.csv`, labels from 0. Raises UsageError for another format,
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
    return [HEADER, *named, ["fid", f"{fid:g}"]]


def write(
    path: str | Path, names: list[str], labels: list[int], format: str = "2024", fid: float | None = None,
    nr_classes: int = 4,
) -> None:  # fmt: skip
    """Writes a submission and checks what is written; only then is it at `path`. Raises as `rows` and `check`."""
    table = rows(names, labels, format, fid)

    def write_and_check(temporary: Path) -> None:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(table)
        check(temporary, names, format, nr_classes)

    write_atomically(path, write_and_check)


def check(path: str | Path, names: list[str], format: str = "2024", nr_classes: int = 4) -> list[int]:
    """The labels in a submission file; UsageError unless it has one valid label for each of `names`, in their order,
    as the course's own script demands it."""
    content = Path(path).read_bytes().decode()
    if "\r" in content or not content.endswith("\n"):
        raise UsageError("a submission's lines end in LF, the last one too")
    _, found, _ = parts(path, format)
    if len(found) != len(names):
        raise UsageError(f"a submission has {len(names)} rows, one a picture; this one has {len(found)}")
    for number, ((_, row), name) in enumerate(zip(found, expected(names, format), strict=True), start=1):
        if row[0] != name:
            raise UsageError(f"picture {number} of a submission is {name}, as in test.csv, not {row[0]}")
    return read(path, names, nr_classes, format).labels


def read(path: str | Path, names: list[str], nr_classes: int = 4, format: str | None = None) -> Submission:
    """What somebody has handed in: rows in any order, of the format that the first one shows if none is given.
    Raises UsageError, by file and line: a picture that is unknown, doubled or missing, a label that is none of 0 to
    `nr_classes` - 1, and as `parts`."""
    path = Path(path)
    format, found, claimed_fid = parts(path, format)
    due = [plain(name) for name in expected(names, format)]
    known, labels = set(due), {}
    for place, (number, row) in enumerate(found):
        where, name = f"{path}, line {number}", plain(row[0])
        label = row[1].strip() if len(row) == 2 else ""
        if name not in known:
            if place == 0 and not label.isdigit():
                raise UsageError(f"{where}: {quoted(row)} is neither a picture's row nor the header {','.join(HEADER)}")
            raise UsageError(f"{where}: there is no test picture {quoted(row[:1])}; names look like {due[0]}")
        if name in labels:
            raise UsageError(f"{where}: {name} appears twice, every picture has one row")
        if not (label.isascii() and label.isdigit() and len(label) < 9 and int(label) < nr_classes):
            raise UsageError(f"{where}: the label of {name} must be 0 to {nr_classes - 1}, not {quoted(row[1:])}")
        labels[name] = int(label)
    if missing := [name for name in due if name not in labels]:
        raise UsageError(f"{path} has no row for {listing(missing, 1)} of the {len(due)} pictures")
    return Submission([labels[name] for name in due], format, claimed_fid)


def parts(path: str | Path, format: str | None = None) -> tuple[str, list[tuple[int, list[str]]], float | None]:
    """The file's format, which is the given one if any, the rows of pictures with their numbers in the file, and the
    claimed FID. Raises UsageError for what is no table, too large or cut off, or begins or ends otherwise."""
    check_size(path)
    found = list(read_rows(Path(path)))
    if not found:
        raise UsageError(f"{path} is empty")
    headed = [cell.strip() for cell in found[0][1]] == HEADER
    if (format or ("2023" if headed else "2024")) == "2024":
        return "2024", found, None
    if not headed:
        raise UsageError(f"{path}, line {found[0][0]}: a submission of 2023 begins with id,label, ends with fid,NUMBER")
    number, last = found[-1]
    try:
        claimed = float(last[1]) if last[0].strip() == "fid" and len(last) == 2 else math.nan
    except ValueError:
        claimed = math.nan
    if not 0 <= claimed < math.inf:
        raise UsageError(f"{path}, line {number}: the last row must be fid,NUMBER, not {quoted(last)}")
    return "2023", found[1:-1], claimed


def check_size(path: str | Path) -> None:
    """Raises UsageError for a file that is too large to be a table of pictures and labels."""
    if (size := Path(path).stat().st_size) > MOST_BYTES:
        raise UsageError(f"{path} has {size / 1e6:.0f} MB, far too many for a row a picture")


def expected(names: list[str], format: str) -> list[str]:
    """The pictures' names as a format has them. Raises UsageError if two are then the same."""
    due = names if format == "2024" else [PurePosixPath(name).name for name in names]
    name, count = Counter(map(plain, due)).most_common(1)[0]
    if count > 1:
        raise UsageError(f"{name} appears twice: every picture of the test split has one row")
    return due


def plain(name: str) -> str:
    """A picture's name, whoever wrote it: as Windows or a Mac does, with spaces around."""
    return composed(name.strip().replace("\\", "/"))


def quoted(cells: list[str]) -> str:
    return repr(shortened(",".join(cells), 60))


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
