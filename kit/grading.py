"""Grading notebooks: how many steps of each exercise a student's answers have right."""

import contextlib
import importlib
import re
import signal
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from utils import UsageError, note

from . import isolation
from .console import printable
from .exercises import Exercise
from .exercises.pieces import NOTEBOOKS
from .tables import write_table

MODULES = ("quickstart", *NOTEBOOKS)
TITLE = re.compile(r"^[ \t]*from kit\.exercises import (\w+) as exercises", re.MULTILINE)
LARGEST = 50 * 2**20  # bytes of a notebook: the kit's own are below 2 MB, pictures included


def exercises_of(module: str) -> dict[str, int]:
    """The names of a notebook's exercises, and how many steps each has."""
    found = vars(importlib.import_module(f".exercises.{module}", __package__)).values()
    return {each.name: len(each.steps) for each in found if isinstance(each, Exercise)}


def read(file: Path) -> tuple[str, list[str]]:
    """A notebook's exercises and its cells of code. Raises UsageError if it is none of the kit's."""
    import nbformat

    try:
        if file.stat().st_size > LARGEST:
            raise UsageError(f"it is larger than {LARGEST >> 20} MB: its outputs must be cleared")
        notebook = nbformat.convert(nbformat.reader.reads(file.read_text(encoding="utf-8")), 4)
        cells = [str(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    except UsageError:
        raise
    except Exception as error:  # whatever a file may hold
        raise UsageError(f"it is not a notebook ({type(error).__name__})") from error
    titles = TITLE.findall("\n".join(cells))
    if not titles or titles[-1] not in MODULES:
        why = f"there are no exercises {titles[-1]!r}" if titles else "`from kit.exercises import ...` is missing"
        raise UsageError(f"it is not one of the notebooks with exercises: {why}")
    return titles[-1], cells


@dataclass
class Student:
    """What one has handed in, and what came out."""

    name: str
    files: list[Path]
    notebooks: dict[str, tuple[Path, list[str]]] = field(default_factory=dict)  # file and cells, by exercises
    right: dict[str, int] = field(default_factory=dict)  # steps, by exercise
    problems: list[str] = field(default_factory=list)
    as_the_kit: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def collect(self) -> None:
        """Reads the files. Of two notebooks with the same exercises the one changed last counts, with a note."""
        for file in sorted(self.files, key=lambda file: file.stat().st_mtime):
            try:
                module, cells = read(file)
            except UsageError as error:
                self.problems.append(f"{file.name}: {error}")
                continue
            if module in self.notebooks:
                newer, older = (printable(str(each)) for each in (file, self.notebooks[module][0]))
                note(f"of two notebooks with the same exercises the one changed last counts: {newer}, not {older}")
            self.notebooks[module] = file, cells

    def grade(self, terms: isolation.Terms) -> "Student":
        """Examines all that was collected."""
        started = time.monotonic()
        for module in filter(self.notebooks.get, MODULES):
            for name, found in examined(terms, module, self.notebooks[module][1]).items():
                self.right[name] = found["right"]
                if found["problem"] is not None:
                    self.problems.append(f"{name}: {found['problem']}")
                if found.get("as_the_kit"):
                    self.as_the_kit.append(name)
        self.seconds = time.monotonic() - started
        return self


def examined(terms: isolation.Terms, module: str, cells: list[str]) -> dict[str, dict]:
    """What is right and what is wrong, for each exercise. An answer that ends its worker, or has it ended, has nothing
    right; a new worker goes on with the next."""
    names, found = exercises_of(module), dict[str, dict]()
    while (todo := [name for name in names if name not in found]) and not terms.stop.is_set():
        current, why = todo[0], "its process ended"
        for said in isolation.conversation(terms, module, cells, todo if isolation.FORKS else todo[:1]):
            current, why = said.get("begins", current), said.get("over", why)
            if (name := said.get("exercise")) in todo and 0 <= said["right"] <= names[name]:
                found.setdefault(name, said)  # only the first counts
            if "ended" in said:
                found.setdefault(current, {"right": 0, "problem": f"its process ended ({ending(said['status'])})"})
        found.setdefault(current, {"right": 0, "problem": why})
    return {name: found[name] for name in names if name in found}


def ending(status: int) -> str:
    """A process's exit status, in words."""
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return f"signal {-status}"


def graded(students: list[Student], terms: isolation.Terms, jobs: int) -> Iterator[Student]:
    """Each as soon as all is known, `jobs` at a time. Closed early, it ends what is running."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(student.grade, terms) for student in students]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            terms.stop.set()
            pool.shutdown(cancel_futures=True)


class Table:
    """What goes into the file: a row a student, a column an exercise of those that anybody has handed in."""

    def __init__(self, students: list[Student]):
        self.modules = [module for module in MODULES if any(module in student.notebooks for student in students)]
        self.steps = {name: steps for module in self.modules for name, steps in exercises_of(module).items()}
        self.possible = sum(self.steps.values())

    def write(self, path: Path, students: list[Student]) -> None:
        exercises = [f"{name} ({steps})" for name, steps in self.steps.items()]
        head = ["student", *exercises, "total", "possible", "first failure", "as_the_kit", "seconds", "files"]
        rows = [self.row(student) for student in sorted(students, key=lambda student: student.name)]
        write_table(path, [head, *rows])

    def row(self, student: Student) -> list[object]:
        points = [student.right.get(name, "") for name in self.steps]
        first = next(map(printable, student.problems), "")
        files = ", ".join(map(str, student.files))
        total = sum(student.right.values())
        same = ", ".join(student.as_the_kit)
        return [student.name, *points, total, self.possible, first, same, round(student.seconds, 1), files]

    def line(self, student: Student) -> str:
        """For the terminal."""
        first = textwrap.shorten(next(map(printable, student.problems), ""), 100, placeholder=" ...")
        points = f"{sum(student.right.values()):3} of {self.possible}"
        return f"{printable(student.name):<24} {points}  {student.seconds:4.0f} s  {first}".rstrip()
