"""`python -m kit grade`: each exercise has its points, whatever the other answers, or other students' notebooks, do."""

import contextlib
import csv
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import textwrap
import time
from pathlib import Path

import nbformat
import psutil
import pytest

import utils
from kit import grade_worker, grading, isolation
from kit.__main__ import main
from kit.exercises import fast_sampling, masked_convolutions, quickstart
from kit.isolation import WAYS, Terms
from kit.submissions import handed_in

ROOT = Path(__file__).parents[1]
# right answers to notebook 00
TO_UNIT = "def to_unit(images):\n    return images.float() / 127.5 - 1\n"
LIKELIEST = "def likeliest(log_likelihoods):\n    return log_likelihoods.argmax(dim=1)\n"
LEAD = "def lead(nats):\n    best = nats.topk(2, dim=1).values\n    return best[:, 0] - best[:, 1]\n"
ALL_RIGHT = [TO_UNIT, LIKELIEST, LEAD]
# what a program needs that keeps answers apart; some systems have it installed and do not let it
PROBES = {
    "bwrap": ["bwrap", "--ro-bind", "/", "/", "--unshare-all", "true"],
    "unshare": ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "true"],
}
OTHERS: set[psutil.Process] = set()  # processes that are not graders'


def cells_of(module: str, *answers: str) -> list[str]:
    """A notebook's cells: the imports, and each answer in a cell with a check, which a grader must not run."""
    check = "\n\nexercises.to_unit.check(1 / 0)\n# exercises.to_unit.hint()"
    imports = "import torch\nimport torch.nn.functional as F\nfrom torch import Tensor, nn\n%matplotlib inline\n"
    imports += "from torch.nn.utils.parametrizations import weight_norm\nfrom utils.model import *\n"
    return [f"{imports}from kit.exercises import {module} as exercises", *(answer + check for answer in answers)]


def write(path: Path, cells: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells]), path)
    return path


def in_function(definition: str, code: str) -> str:
    """The definition with more code at its beginning."""
    head, _, body = definition.partition("\n")
    return f"{head}\n{textwrap.indent(code, '    ')}\n{body}"


def works_here(program: str) -> bool:
    return not program or bool(shutil.which(program) and subprocess.run(PROBES[program]).returncode == 0)


@pytest.fixture(scope="module")
def way() -> isolation.Way:
    return isolation.best_way()


@pytest.fixture
def quickly(monkeypatch, way):
    """`grade` does not try anew what works here."""
    monkeypatch.setattr("kit.commands.grade.best_way", lambda: way)


def rows_of(table: Path) -> dict[str, dict[str, str]]:
    with open(table, encoding="utf-8-sig", newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


def points(found: dict[str, dict]) -> dict[str, int]:
    return {name: each["right"] for name, each in found.items()}


@pytest.fixture(scope="module", autouse=True)
def _others() -> None:
    """What other tests have left running, a data loader's processes say."""
    OTHERS.update(psutil.Process().children(recursive=True))


def workers() -> list[psutil.Process]:
    """Those of graders that run."""
    found = {*psutil.Process().children(recursive=True)} - OTHERS
    return [each for each in found if isolation.is_running(each)]


# a class


HALF_A_MASK = """\
def kernel_mask(kernel_size, kind):
    mask = torch.zeros(kernel_size, kernel_size)
    mask[kernel_size // 2, kernel_size // 2] = kind == "B"
    return mask
"""
# not without end, in case the limit does not hold
FORKS = "import os, time\nfor _ in range(8): os.fork()\ntime.sleep(60)"
CLASS = {
    "anna": cells_of("quickstart", *ALL_RIGHT),
    "ben": cells_of("quickstart", *(each.partition("\n")[0] + "\n    ...  # your code\n" for each in ALL_RIGHT)),
    "dora": cells_of("quickstart", in_function(TO_UNIT, "import ctypes\nctypes.string_at(0)"), LIKELIEST, LEAD),
    "emil": cells_of("quickstart", TO_UNIT, in_function(LIKELIEST, "while True: pass"), LEAD),
    "fay": cells_of("quickstart", in_function(TO_UNIT, FORKS), LIKELIEST, LEAD),
    "gus": cells_of("quickstart", *ALL_RIGHT[:2], "for _ in range(2**10): print('x' * 2**20)\n" + LEAD),
}


@pytest.fixture(scope="module")
def graded_class(tmp_path_factory):
    """Eight students in nbgrader's layout, files under any names: the table, what was printed, and noted."""
    folder = tmp_path_factory.mktemp("class")
    for name, cells in CLASS.items():
        write(folder / "submitted" / name / "week 1" / f"Copy of {name}'s (2).ipynb", cells)
    write(folder / "submitted" / "carl" / "week 1" / "x.ipynb", cells_of("masked_convolutions", HALF_A_MASK))
    wrong = folder / "submitted" / "=1+1\x1b[31m" / "week 1" / "grades.ipynb"
    wrong.parent.mkdir(parents=True)
    wrong.write_text("student,points\nhana,100\n", encoding="utf-8")
    out = folder / "grades.csv"
    return out, *run_main(["grade", str(folder), "--out", str(out), "--seconds", "5", "--jobs", "2"])


def run_main(words: list[str]) -> tuple[int, str, str]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(words)
    return status, out.getvalue(), err.getvalue()


def test_a_class_is_graded(graded_class):
    out, status, _, _ = graded_class
    rows = rows_of(out)
    assert status == 0 and len(rows) == 8
    columns = ["to_unit (1)", "likeliest (1)", "lead (1)", "kernel_mask (3)", "MaskedConv2d (5)", "total", "possible"]
    numbers = {name: [row[column] for column in columns] for name, row in rows.items()}
    assert numbers.pop("anna") == numbers.pop("gus") == ["1", "1", "1", "", "", "3", "24"]
    assert numbers.pop("ben") == ["0", "0", "0", "", "", "0", "24"]
    assert numbers.pop("carl") == ["", "", "", "2", "0", "2", "24"], "two steps of three"
    assert numbers.pop("dora") == numbers.pop("fay") == ["0", "1", "1", "", "", "2", "24"]
    assert numbers.pop("emil") == ["1", "0", "1", "", "", "2", "24"]
    assert numbers == {"'=1+1\x1b[31m": ["", "", "", "", "", "0", "24"]}, "no formula"
    first = {name: row["first failure"] for name, row in rows.items()}
    assert first["anna"] == first["gus"] == ""
    assert first["ben"].startswith("to_unit: nothing was returned")
    assert first["carl"].startswith("kernel_mask: kernel_size 3, kind 'A': entry (0, 0) is 0; it lies in the past")
    assert first["dora"] == "to_unit: its process ended (SIGSEGV)"
    assert first["emil"] == "likeliest: it took over 5 s"
    assert first["fay"] == "to_unit: it started more than 64 processes"
    assert first["'=1+1\x1b[31m"] == "grades.ipynb: it is not a notebook (NotJSONError)"
    assert rows["anna"]["files"].endswith("anna's (2).ipynb") and float(rows["anna"]["seconds"]) > 0


def test_a_class_is_shown(graded_class, way):
    _, _, printed, noted = graded_class
    lines = printed.splitlines()
    assert "\x1b" not in printed and r"=1+1\x1b[31m" in printed
    (dora,) = (line for line in lines if line.startswith("dora"))
    assert "  2 of 24" in dora and dora.endswith(" s  to_unit: its process ended (SIGSEGV)")
    assert lines[-3:-1] == ["quickstart: handed in by 6 of 8", "masked_convolutions: handed in by 1 of 8"]
    assert lines[-1].endswith(f"grades.csv: 8 students; {way.text}")
    assert len(noted.splitlines()) == (way is not WAYS[0])
    assert workers() == []


# what an answer may do to the others


def test_the_next_answers_know_nothing_of_one_that_misbehaves(way):
    solutions = dict(zip(["mask", "conv", "down", "right"], map(text_of, (
        masked_convolutions.kernel_mask, masked_convolutions.masked_conv2d, masked_convolutions.down_shifted_conv2d,
        masked_convolutions.down_right_shifted_conv2d,
    )), strict=True))  # fmt: skip
    leave = "import subprocess, threading, time\n"  # 40 processes, of the 64 that there may be
    leave += "for _ in range(40): subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
    answers = [
        "import builtins\nbuiltins.print = builtins.open = display = None\n" + solutions["mask"],
        "torch.zeros = torch.Tensor.backward = nn.Conv2d.forward = None\n" + solutions["conv"],
        "def padding_of(kernel_size):\n    return (kernel_size // 2",
        "import os, shutil\nshutil.rmtree(os.path.expanduser('~'), ignore_errors=True)\nraise SystemExit\n",
        "def is_causal(*given):\n    raise KeyboardInterrupt\n",
        leave + "threading.Thread(target=time.sleep, args=(60,)).start()\n" + solutions["down"],
        leave + solutions["right"] + "\nprint('x' * 10**9)\nexit()\ninput()",
    ]
    answers[3] = answers[3].replace("raise", text_of(masked_convolutions.receptive_rows) + "raise")
    started = time.monotonic()
    found = grading.examined(Terms(way), "masked_convolutions", cells_of("masked_convolutions", *answers))
    right = {"kernel_mask": 3, "padding_of": 0, "receptive_rows": 1, "is_causal": 0}
    assert found.pop("MaskedConv2d")["right"] < 5
    assert points(found) == right | {"DownShiftedConv2d": 5, "DownRightShiftedConv2d": 5}
    assert "its cell cannot be read (SyntaxError: '(' was never closed (line 2)" in found["padding_of"]["problem"]
    assert found["is_causal"]["problem"] == "it stopped with KeyboardInterrupt: "
    assert workers() == [] and time.monotonic() - started < 50, "nobody waited for the thread"


def text_of(exercise) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as solution:
        exercise.solution()
    return solution.getvalue() + "\n"


def test_a_result_is_not_taken_from_what_an_answer_prints_or_writes(way):
    """The first line is what a worker would say, but for its token."""
    forged = json.dumps({"exercise": "lead", "right": 1, "problem": None})
    spray = f"""
        import os
        for number in range(256):
            try:
                os.write(number, b'''{forged}\\n{"0" * 32} {forged}\\nhalf a line''')
            except OSError:
                pass
    """
    answers = [
        in_function(TO_UNIT, textwrap.dedent(spray)),
        in_function(LIKELIEST, "return torch.empty(10 * 2**30, dtype=torch.uint8)"),
        in_function(LEAD, textwrap.dedent(spray) + "import os\nos._exit(0)"),
    ]
    found = grading.examined(Terms(way), "quickstart", cells_of("quickstart", *answers))
    assert points(found) == {"to_unit": 1, "likeliest": 0, "lead": 0}
    assert found["lead"]["problem"] == "its process ended (exit status 0)"
    assert "you tried to allocate 10737418240 bytes" in found["likeliest"]["problem"]


def test_limits_cost_one_answer_each(way, monkeypatch):
    """Of memory, also in several processes; of what is on the disk; and an answer that ends its worker."""
    monkeypatch.setattr(isolation, "DISK", 2**24)
    hog = "import os, time\nfor _ in range(3): os.fork() or (torch.ones(2**27), time.sleep(60))\ntime.sleep(60)"
    fill = "import time\nfor n in range(3): open(f'{n}', 'wb').write(bytes(2**23))\ntime.sleep(60)"
    kill = "import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(60)"
    answers = [in_function(*each) for each in zip(ALL_RIGHT, (hog, fill, kill), strict=True)]
    found = grading.examined(Terms(way, seconds=20, memory=1), "quickstart", cells_of("quickstart", *answers))
    # under unshare the worker is process 1, which nothing inside can kill; without anything the answer outlives it
    ended = "its process ended" if way is WAYS[0] else "it took over 20 s"
    assert {name: each["problem"] for name, each in found.items()} == {
        "to_unit": "it used more than 1 GB of memory",
        "likeliest": "it wrote more than 0 GB to the disk",
        "lead": ended,
    }
    assert workers() == []


def test_an_answer_that_speaks_for_its_worker_neither_stops_the_command_nor_gains_time(way):
    """It finds the token; what no worker says is not heard, nor a second beginning, nor more points than there are."""
    speak = "import os, sys, time\nframe = sys._getframe()\nwhile 'job' not in frame.f_locals: frame = frame.f_back\n"
    speak += "say = frame.f_locals['say']\n"
    wrong = "say(exercise='to_unit')\nsay(exercise='lead', right='9', problem=3)\nsay(ended=1)\nsay(begins=['x'])\n"
    wrong += "say(exercise='lead', right=99, problem=None)"
    begin = "for _ in range(20): say(begins='likeliest') or time.sleep(1)"
    answers = [in_function(TO_UNIT, speak + wrong), in_function(LIKELIEST, speak + begin), LEAD]
    found = grading.examined(Terms(way, seconds=4), "quickstart", cells_of("quickstart", *answers))
    assert points(found) == {"to_unit": 1, "likeliest": 0, "lead": 1}
    assert found["likeliest"]["problem"] == "it took over 4 s"
    assert not isolation.is_news([1]) and isolation.is_news({"begins": "lead"})


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux")
def test_files_that_no_folder_has_count_too(tmp_path):
    with open(tmp_path / "x", "wb") as file:
        file.write(bytes(2**20))
        file.flush()
        before = isolation.unseen([psutil.Process()])
        os.unlink(tmp_path / "x")
        assert isolation.unseen([psutil.Process()]) - before == 2**20


# what an answer can see


def test_the_best_way_that_works_here_is_taken(way):
    assert way is next(each for each in WAYS if works_here(each.program))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.program or "without")
def test_what_an_answer_sees_of_this_machine(way, monkeypatch, tmp_path):
    if not works_here(way.program):
        pytest.skip(f"{way.program} is not installed, or this system does not let it work")
    monkeypatch.setenv("WANDB_API_KEY", "a secret")
    others = write(tmp_path / "other.ipynb", cells_of("quickstart"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        look = f"""
            import os, pathlib, socket
            def tried(what):
                try:
                    return what() and 'yes'
                except OSError as error:
                    return 'no'
            see = dict(
                network=tried(lambda: socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), timeout=5)),
                others=tried(lambda: open({str(others)!r}).read()),
                kit=tried(lambda: open({str(ROOT / "README.md")!r}).read()),
                write=tried(lambda: pathlib.Path({str(ROOT / "kit/x.tmp")!r}).touch() or True),
                home=tried(lambda: pathlib.Path.home().joinpath('x').write_text('x')),
                secret='WANDB_API_KEY' in os.environ, here=len(os.listdir('.')), gpu=torch.cuda.is_available(),
            )
            raise ValueError(sorted(see.items()))
        """
        cells = cells_of("quickstart", in_function(TO_UNIT, textwrap.dedent(look)), LIKELIEST, LEAD)
        found = grading.examined(Terms(way), "quickstart", cells)
    (ROOT / "kit/x.tmp").unlink(missing_ok=True)
    see = {"secret": False, "here": 0, "gpu": False, "home": "yes"}
    whole, network = way is WAYS[0], way is not WAYS[-1]
    see |= dict.fromkeys(("others", "kit", "write"), "no" if whole else "yes") | {"network": "no" if network else "yes"}
    assert found["to_unit"]["problem"] == f"it stopped with ValueError: {sorted(see.items())}"
    assert points(found) == {"to_unit": 0, "likeliest": 1, "lead": 1}


def test_a_note_says_what_is_not_withheld(monkeypatch, tmp_path, capsys):
    """Where the programs are missing, and elsewhere than on Linux each answer has its own worker."""
    monkeypatch.setattr(shutil, "which", lambda program: None)
    monkeypatch.setattr(isolation, "FORKS", False)
    monkeypatch.setattr(grading, "exercises_of", lambda module: {"to_unit": 1, "lead": 1})
    utils.note.cache_clear()  # it says nothing twice
    write(tmp_path / "anna.ipynb", cells_of("quickstart", in_function(TO_UNIT, "import os\nos._exit(3)"), LEAD))
    assert main(["grade", str(tmp_path), "--out", str(tmp_path / "out.csv")]) == 0
    captured = capsys.readouterr()
    notes = "the network is not withheld here and files are not protected"
    assert captured.err == f"note: {notes}: grade in a container, or on Linux install bubblewrap\n"
    assert captured.out.splitlines()[-1].endswith(notes)
    row = rows_of(tmp_path / "out.csv")["anna"]
    assert (row["total"], row["first failure"]) == ("1", "to_unit: its process ended")


# which cells are run


def needs(cells: list[str], name: str) -> list[str]:
    statements, _ = grade_worker.statements_of(cells)
    cell = grade_worker.answer_cell(statements, name)
    assert cell is not None
    return grade_worker.needed(statements, cell)


def test_an_answer_is_run_with_what_it_needs_and_no_more():
    cells = [
        "%matplotlib inline\n!ls\nfrom math import *\nimport torch, os\nSTEPS = 5; SIZE = 3",
        "def a(x):\n    return x",
        "a = take('a')\nnetwork = train(SIZE)\nSIZE += 1",
        "%%time\ndef helper(x):\n    steps = network = 1\n    return below(x) + SIZE",
        "helper.about = STEPS\ntorch.zeros = os.path = None\nprint(helper(3))",
        "class b(a):\n    def f(self, network):\n        return helper(network, torch)\n\nexercises.b.check(b)",
        "def below(x):\n    return STEPS\n",
        "b = take('b')",
    ]
    magic = ["from math import *", "import torch, os", "STEPS = 5", "SIZE = 3", "a = take('a')", "SIZE += 1"]
    helper = "def helper(x):\n    steps = network = 1\n    return below(x) + SIZE"
    assert needs(cells, "b") == [*magic, helper, "helper.about = STEPS", "def below(x):\n    return STEPS"]
    assert needs(cells, "a") == ["from math import *"]


@pytest.mark.parametrize("order", [1, -1])
def test_the_answer_counts_and_not_a_blank_above_or_below_it(order):
    blank, answer = "def lead(nats):\n    '''words'''\n    ...", "if True:\n    def lead(nats):\n        return 1"
    cells = [blank, answer][::order]
    statements, _ = grade_worker.statements_of(cells)
    assert cells[grade_worker.answer_cell(statements, "lead")] == answer
    statements, _ = grade_worker.statements_of([answer, answer.replace("1", "2"), blank, blank])
    assert grade_worker.answer_cell(statements, "lead") == 1, "the last one written"
    assert grade_worker.answer_cell(grade_worker.statements_of([blank, blank])[0], "lead") == 1
    assert grade_worker.answer_cell(grade_worker.statements_of(["lead = 3"])[0], "lead") is None


def test_answers_under_other_forms(way):
    """Another name given to the check, in `except`, as a lambda; and a long sentence is heard, whatever its letters."""
    mine = TO_UNIT.replace("to_unit", "mine")
    cells = ["def to_unit(images):\n    ...\n\nexercises.to_unit.check(mine)", mine]
    cells += [f"try:\n    1 / 0\nexcept ZeroDivisionError:\n{textwrap.indent(LIKELIEST, '    ')}"]
    cells += ["lead = lambda nats: -nats.topk(2, dim=1).values.diff(dim=1).flatten()"]
    found = grading.examined(Terms(way), "quickstart", [*cells_of("quickstart"), *cells])
    assert points(found) == {"to_unit": 1, "likeliest": 1, "lead": 1}
    assert len(json.dumps("\U0001f600" * grade_worker.LONGEST)) < 4000


def test_helpers_in_other_cells_are_found_and_training_is_not_run(way):
    cells = cells_of("quickstart", "def to_unit(images):\n    return half(images) - OFF\n")
    cells[1:1] = ["from operator import *\nOFF = 1", "while True:\n    network = OFF"]
    cells += ["def half(images):\n    return truediv(images.float(), 127.5)", "%%time\n" + LIKELIEST, "1 +"]
    cells += ["import not_here\nbest = not_here.best", "def lead(nats):\n    return best(nats)"]
    found = grading.examined(Terms(way, seconds=30), "quickstart", cells)
    assert points(found) == {"to_unit": 1, "likeliest": 1, "lead": 0}
    missing = "What it needs from other cells stopped with ModuleNotFoundError: No module named 'not_here'."
    assert missing in found["lead"]["problem"]


def test_the_kits_own_text_is_seen_under_other_names():
    kits = text_of(fast_sampling.cached_conv1d)
    same = grade_worker.as_the_kit
    assert same(kits, fast_sampling.cached_conv1d)
    disguised = re.sub(r"\b(x|batch|window)\b", r"my_\1", kits).replace("self, my_x", "self, my_x: Tensor")
    disguised = disguised.replace("):\n", ") -> None:\n        '''Mine.'''  # really\n")
    assert disguised.count("Mine") > 1 and "Tensor" in disguised and same(disguised, fast_sampling.cached_conv1d)
    assert not same(kits.replace("[:, :, 1:]", "[:, :, 2:]"), fast_sampling.cached_conv1d)
    assert not same(text_of(quickstart.lead), quickstart.lead), "too short to tell"
    assert same(text_of(masked_convolutions.down_shifted_conv2d), masked_convolutions.down_shifted_conv2d)


# what is handed in


@pytest.mark.parametrize(
    "content, why",
    [
        (b"", "it is not a notebook (NotJSONError)"),
        (b"\x00\xff\xfe" * 99, "it is not a notebook (UnicodeDecodeError)"),
        (b'{"cells": [', "it is not a notebook (NotJSONError)"),
        (b"[" * 100_000, "it is not a notebook"),
        (b"[1, 2]", "it is not a notebook"),
        (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{}]}', "it is not a notebook"),
        (["import torch"], "it is not one of the notebooks with exercises: `from kit.exercises import ...` is missing"),
        (cells_of("potions"), "it is not one of the notebooks with exercises: there are no exercises 'potions'"),
    ],
)
def test_a_file_that_is_no_notebook_is_named_in_a_sentence(tmp_path, content, why):
    file = tmp_path / "anna.ipynb"
    _ = file.write_bytes(content) if isinstance(content, bytes) else write(file, content)
    student = grading.Student("anna", [file])
    student.collect()
    (problem,) = student.problems
    assert problem.startswith(f"anna.ipynb: {why}") and student.notebooks == {}


def test_a_huge_file_is_not_read(tmp_path):
    with open(tmp_path / "anna.ipynb", "wb") as file:
        file.truncate(500 * 2**20)
    with pytest.raises(utils.UsageError, match="it is larger than 50 MB"):
        grading.read(tmp_path / "anna.ipynb")


def test_of_two_notebooks_the_one_changed_last_counts(tmp_path, capsys):
    files = [write(tmp_path / "anna" / f"{name}.ipynb", cells_of("quickstart", name)) for name in "bac"]
    for age, file in enumerate(files):
        os.utime(file, (1e9 - age, 1e9 - age))
    other = write(tmp_path / "anna" / "01.ipynb", cells_of("training"))
    (student,) = (grading.Student(name, files) for name, files in handed_in([tmp_path], ".ipynb").items())
    student.collect()
    taken = {module: file for module, (file, _) in student.notebooks.items()}
    assert taken == {"quickstart": files[0], "training": other}
    assert "the one changed last counts" in capsys.readouterr().err


# the command


@pytest.mark.parametrize(
    "flags, why",
    [(["--seconds", "0"], "--seconds"), (["--jobs=0"], "--jobs"), (["--memory=nan"], "--memory"), (["no/"], "no/")],
)
def test_wrong_use_ends_in_a_line(tmp_path, capsys, flags, why):
    file, out = write(tmp_path / "anna.ipynb", cells_of("quickstart")), tmp_path / "out.csv"
    assert main(["grade", str(file), "--out", str(out), *flags]) == 2
    captured = capsys.readouterr().err
    assert why.strip("/") in captured and captured.count("\n") == 1 and not out.exists()


def test_a_table_that_is_there_is_not_written_over(tmp_path, capsys):
    file, out = write(tmp_path / "anna.ipynb", cells_of("quickstart")), tmp_path / "out.csv"
    out.write_text("anna,20", encoding="utf-8")
    assert main(["grade", str(file), "--out", str(out)]) == 2
    assert "there already" in capsys.readouterr().err and out.read_text(encoding="utf-8") == "anna,20"


def test_ctrl_c_keeps_what_is_graded_and_ends_what_runs(tmp_path, capsys, monkeypatch, quickly):
    shown = grading.Table.line
    monkeypatch.setattr(
        grading.Table, "line", lambda *each: (print(shown(*each)), signal.raise_signal(signal.SIGINT))[0]
    )
    write(tmp_path / "in" / "anna.ipynb", cells_of("quickstart", *ALL_RIGHT))
    for name in ("ben", "carl"):
        write(tmp_path / "in" / f"{name}.ipynb", cells_of("quickstart", "while True: pass\n" + TO_UNIT))
    started = time.monotonic()
    with pytest.raises(SystemExit) as leaving:
        main(["grade", str(tmp_path / "in"), "--out", str(tmp_path / "out.csv"), "--jobs", "2"])
    assert leaving.value.code == 130 and time.monotonic() - started < 50, "not the minute that the loop may take"
    assert list(rows_of(tmp_path / "out.csv")) == ["anna"] and workers() == []
    assert capsys.readouterr().out.splitlines()[-1].startswith("stopped: 1 of 3 students are in ")
