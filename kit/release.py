"""The kit for students: the files that git lists, without the answers. The repository itself is the teacher's copy.

Exercises and solutions are sealed (`exercises/sealed.py`), notebooks cleared. Left out are tests that need what is
withheld, and the one that limits the kit's own length, which a student's own fusion would break. What `utils` holds
stays readable, because everything runs on it.
"""

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import nbformat

from utils import UsageError

from .exercises import sealed
from .platforms import KIT
from .publish import listed
from .samples import new_folder

EXERCISES = "kit/exercises/"
READABLE = ("__init__", "network", "pieces", "sealed", "stand_ins")  # modules there that hold no exercise
TESTS_LEFT_OUT = (
    "tests/exercises/",
    "tests/test_grade.py",
    "tests/test_house.py",
    "tests/test_notebook_answers.py",
    "tests/test_notebooks.py",
    "tests/test_quoted_numbers.py",
    "tests/test_readme.py",
    "tests/test_release.py",
)


class Released(NamedTuple):
    """The names of the files that were laid down, and of those among them that were sealed and cleared."""

    files: list[str]
    sealed: list[str]
    cleared: list[str]


def release(folder: str | Path) -> Released:
    """Lays the copy for students down in a folder, new or empty, whole or not at all.

    Raises UsageError: the folder is in use or cannot be written, this is no git clone, a file is missing or damaged, or
    this is a copy for students already.
    """
    if any((KIT / EXERCISES).rglob(f"*{sealed.ENDING}")):
        raise UsageError("this is a copy for students, its exercises are sealed: release the teacher's copy")
    files = [name for name in listed() if not name.startswith(TESTS_LEFT_OUT)]
    folder = Path(os.path.abspath(folder))
    if folder.is_symlink():
        raise UsageError(f"{folder} is a link: choose a new or empty folder")
    new_folder(folder)
    done = Released([], [], [])
    beside = next(place for place in folder.parents if place.exists())
    temporary = beside / f".{folder.name}.{os.getpid()}.tmp"
    try:
        for name in files:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            lay_down(name, temporary / name, done)
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()  # an empty one: not every system renames over it
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.rename(temporary, folder)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}; nothing was left there") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return done


def lay_down(name: str, place: Path, done: Released) -> None:
    """Writes one file of the kit as students get it, and notes what was done."""
    source = KIT / name
    done.files.append(name)
    if name.startswith(EXERCISES) and source.suffix == ".py" and source.stem not in READABLE:
        sealed.seal(source, place)
        done.sealed.append(name)
        done.files.append(str(Path(name).with_suffix(sealed.ENDING)))
    elif source.suffix == ".ipynb":
        try:
            notebook = nbformat.read(source, as_version=4)
        except ValueError as error:
            raise UsageError(f"{name} is damaged: git checkout {name}") from error
        clear(notebook)
        place.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        done.cleared.append(name)
    else:
        shutil.copy(source, place)


def clear(notebook: nbformat.NotebookNode) -> None:
    """Takes out what a run has left in the cells, the lines that print solutions, and the answers that are folded up;
    their questions stay."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.source = re.sub(r"\n# exercises\.\w+\.solution\(\)$", "", cell.source, flags=re.MULTILINE)
        else:
            question = r"<details>\s*<summary>(.*?)</summary>.*?</details>"
            cell.source = re.sub(question, r"* \1", cell.source, flags=re.DOTALL)
