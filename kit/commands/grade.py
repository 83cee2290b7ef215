from pathlib import Path

from utils import UsageError, note

from ..grading import Student, Table, graded
from ..isolation import WAYS, Terms, best_way
from ..platforms import check_writable
from ..submissions import handed_in


def run(*notebooks: str, out: str, seconds: float = 60.0, memory: float = 4.0, jobs: int = 1) -> None:
    """points for the exercises in students' notebooks 00 to 07

    A point for each step of an exercise that is right. Exit status 0 when every student has a row, whatever was handed
    in; 130 after Ctrl-C, which leaves the rows of those who were graded.

    Args:
        notebooks: files called after their students, or folders of them, also nbgrader's `submitted`.
        out: a .csv file that is not there yet: a row a student.
        seconds: what an exercise may take; beyond that it has no points.
        memory: what an exercise may use, in GB, beyond what PyTorch takes itself.
        jobs: notebooks at a time.
    """
    path = Path(out)
    if path.exists():
        raise UsageError(f"{path} is there already, perhaps with grades edited by hand: choose another name")
    if not (0 < seconds < 1e6 and 0 < memory < 1e6 and jobs > 0):
        raise UsageError("--seconds, --memory and --jobs must be above 0")
    check_writable(path.parent)
    students = [Student(name, files) for name, files in handed_in(notebooks, ".ipynb").items()]
    for student in students:
        student.collect()
    table, terms, done = Table(students), Terms(best_way(), seconds, memory), list[Student]()
    if terms.way is not WAYS[0]:
        note(f"{terms.way.text}: grade in a container, or on Linux install bubblewrap")
    try:
        for student in graded(students, terms, jobs):
            done.append(student)
            table.write(path, done)
            print(table.line(student), flush=True)
    except KeyboardInterrupt:
        print(f"stopped: {len(done)} of {len(students)} students are in {path}")
        raise SystemExit(130) from None
    for module in table.modules:
        print(f"{module}: handed in by {sum(module in student.notebooks for student in students)} of {len(students)}")
    print(f"{path}: {len(done)} {'student' if len(done) == 1 else 'students'}; {terms.way.text}")
