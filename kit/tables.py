"""Tables for a spreadsheet, and what a strange name or text could do in one."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from utils.checkpoints import write_atomically


def write_table(path: str | Path, rows: Iterable[Sequence[object]]) -> None:
    """Writes rows as CSV that spreadsheets read as UTF-8; at any moment `path` is the old file or the new one, whole.
    Raises UsageError where one may not write."""

    def write(temporary: Path) -> None:
        with open(temporary, "w", newline="", encoding="utf-8-sig", errors="backslashreplace") as file:
            csv.writer(file).writerows([harmless(cell) for cell in row] for row in rows)

    write_atomically(path, write)


def harmless(cell: object) -> object:
    """A text that a spreadsheet would take for a formula gets an apostrophe before it, as OWASP advises ("CSV
    injection"); numbers stay as they are."""
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip()[:1] in ("=", "+", "-", "@") else cell
