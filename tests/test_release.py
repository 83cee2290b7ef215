"""The copy for students: it works, and no search of it finds an answer."""

import ast
import contextlib
import errno
import importlib
import inspect
import io
import itertools
import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pytest
from test_publish import contents, make_clone

from kit import exercises, publish
from kit import release as releasing
from kit.exercises import Exercise, sealed
from utils import UsageError

ROOT = Path(__file__).parents[1]
MODULES = [
    *(f"kit.exercises.{module.name}" for module in pkgutil.iter_modules(exercises.__path__)),
    *(f"kit.exercises.solutions.{file.stem}" for file in (ROOT / "kit/exercises/solutions").glob("[a-z]*.py")),
]
# answers of which every telling line stands in utils, which stays readable: everything runs on it
OF_UTILS = {"quickstart.to_unit", "conditioning.fusion", "training.learning_rate"}
FOLDED = re.compile(r"<details><summary>(.*?)</summary>\s*(.*?)\s*</details>", re.DOTALL)
TRIVIAL = re.compile(r"@|def |class |import |from |super\(\)|return \w+$|raise |\"\"\"")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return make_clone(tmp_path_factory.mktemp("release") / "teacher")


@pytest.fixture(scope="module")
def released(teacher) -> tuple[Path, str]:
    """The copy for students, and what the command has printed."""
    out = teacher.with_name("students")
    done = kit(teacher, "release", str(out))
    assert (done.returncode, done.stderr) == (0, "")
    return out, done.stdout


@pytest.fixture
def students(released) -> Path:
    return released[0]


def kit(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "kit", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8")


# ---- the search


def plain(text: str) -> list[str]:
    """The lines without indentation and comments, and none that is empty."""
    lines = (re.sub(r"(^|\s+)#.*", "", line.strip()) for line in text.splitlines())
    return [line for line in lines if line]


def telling(text: str) -> list[str]:
    """The lines that say how something is done."""
    return [line for line in plain(text) if len(line) >= 20 and not TRIVIAL.match(line)]


def strings(value) -> list[str]:
    """All in a value that JSON has given."""
    if isinstance(value, dict):
        return strings([*value.values()])
    if isinstance(value, list):
        return [text for each in value for text in strings(each)]
    return [value] if isinstance(value, str) else []


def text_of(file: Path) -> str:
    """What a search in the file can find; in a notebook also what a reader sees of it."""
    text = file.read_bytes().decode(errors="replace")
    if file.suffix == ".ipynb":
        for cell in json.loads(text)["cells"]:
            text += "\n" + "\n".join(
                "".join(value) for value in [strings(cell["source"]), strings(cell.get("outputs"))]
            )
    return text


IN_UTILS = {line for file in (ROOT / "utils").glob("*.py") for line in plain(file.read_text())}


def distinguishing(text: str) -> list[str]:
    return [line for line in telling(text) if line not in IN_UTILS]


def withheld_lines(name: str, answer: str) -> list[str]:
    """Runs of two lines that tell an answer apart, or the one line that does."""
    lines = distinguishing(answer)
    assert lines or name in OF_UTILS, f"nothing to search for: {name}"
    assert not lines or name not in OF_UTILS
    return ["\n".join(pair) for pair in itertools.pairwise(lines)] or lines


def answers() -> dict[str, str]:
    """What `solution()` prints in the teacher's copy."""
    found = {}
    for name in MODULES:
        for key, value in vars(importlib.import_module(name)).items():
            if isinstance(value, Exercise):
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    value.solution()
                found[f"{name.rpartition('.')[2]}.{key}"] = out.getvalue()
    return found


ANSWERS = answers()
WITHHELD = {name: withheld_lines(name, answer) for name, answer in ANSWERS.items()}


def by_hand(module: str) -> list[str]:
    """The lines of a module of exercises that hold four numbers or more: cases that were worked out by hand."""
    source = inspect.getsource(importlib.import_module(module))
    return [line for line in distinguishing(source) if len(re.findall(r"(?<!\w)\d[\d.]*", line)) >= 4]


BY_HAND = {module: by_hand(module) for module in MODULES if "Exercise" in vars(importlib.import_module(module))}
ANSWERED = {
    path.name: [" ".join(answer.split()) for _, answer in FOLDED.findall(text_of(path))]
    for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")
}


def given_away(texts: dict[str, str]) -> list[str]:
    """What the files, whose texts are given by name, tell of the answers."""
    found = []
    for file, text in texts.items():
        lines = "\n" + "\n".join(telling(text)) + "\n"
        in_one_line = " ".join(text.split())
        if not file.startswith("utils/"):
            found += [
                f"{file}: {name}" for name, runs in WITHHELD.items() if any(f"\n{run}\n" in lines for run in runs)
            ]
            found += [f"{file}: {line}" for cases in BY_HAND.values() for line in cases if f"\n{line}\n" in lines]
        found += [f"{file}: {answer}" for all in ANSWERED.values() for answer in all if answer in in_one_line]
    return found


def test_no_file_gives_an_answer_away(students):
    texts = {name: text_of(students / name) for name in contents(students)}
    assert len(texts) > 200 and {"kit/exercises/quickstart.sealed", "notebooks/00_quickstart.ipynb"} < texts.keys()
    assert given_away(texts) == []


def test_there_is_something_to_search_for():
    assert len(ANSWERS) >= 48 and {name for name, lines in WITHHELD.items() if not lines} == OF_UTILS
    assert sum(map(len, BY_HAND.values())) >= 200
    assert sum(map(len, ANSWERED.values())) >= 27


@pytest.mark.parametrize("name", [name for name in ANSWERS if name not in OF_UTILS])
def test_an_answer_that_is_left_in_is_found(name):
    """In a file of code, in a notebook's cell and in what a cell has printed."""
    assert f"kit/other.py: {name}" in given_away({"kit/other.py": textwrap.indent(ANSWERS[name], "    ")})


def test_answers_in_notebooks_and_cases_of_checks_are_found(tmp_path):
    notebook = nbformat.read(ROOT / "notebooks/01_masked_convolutions.ipynb", as_version=4)
    mask = ANSWERS["masked_convolutions.kernel_mask"]
    printed = nbformat.v4.new_output("stream", text=mask)
    for cell in (nbformat.v4.new_code_cell(mask), nbformat.v4.new_code_cell("", outputs=[printed])):
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "a.ipynb")
        assert given_away({"a.ipynb": text_of(tmp_path / "a.ipynb")}) == ["a.ipynb: masked_convolutions.kernel_mask"]
    assert len(given_away({"01.ipynb": "\n".join(cell.source for cell in notebook.cells)})) == 3
    source = (ROOT / "kit/exercises/quickstart.py").read_text()
    assert any("by_hand = {0: -1.0" in found for found in given_away({"tests/test_x.py": source}))


# ---- what is laid down


def test_sealed_files_hold_the_teachers_text(teacher, students):
    names = [name for name in contents(students) if name.endswith(sealed.ENDING)]
    modules = [f"{name.replace('.', '/')}{sealed.ENDING}" for name in MODULES]
    assert {f"kit/exercises/{name}" for name in ("network", "pieces", "stand_ins", "sealed")} == {
        name.removesuffix(sealed.ENDING) for name in {*modules} - {*names}
    } - {"kit/exercises/solutions"}
    for name in names:
        module = Path(name).with_suffix(".py")
        assert sealed.opened(students / name) == (teacher / module).read_bytes()
        assert len((students / module).read_text().splitlines()) < 10
        ast.parse((students / module).read_text())


def test_every_other_file_is_the_teachers(teacher, students, released):
    listing = subprocess.run(["git", "ls-files"], cwd=teacher, capture_output=True, text=True).stdout.split("\n")
    listed = {name for name in listing if name and not name.startswith(releasing.TESTS_LEFT_OUT)}
    theirs, ours = contents(students), contents(teacher)
    assert {name for name in theirs if not name.endswith(sealed.ENDING)} == listed
    other = {name for name in listed if theirs[name] != ours[name]}
    assert all(name.endswith(".ipynb") or name.startswith("kit/exercises/") for name in other)
    assert os.access(students / ".ci/run", os.X_OK)
    lines = released[1].splitlines()
    assert lines[0] == f"{students}: {len(theirs)} files for students"
    assert (
        lines[1].count(",") + 1 == sum(name.endswith(".sealed") for name in theirs) and "solutions/training" in lines[1]
    )
    assert "00_quickstart" in lines[2] and "tests/exercises/" in lines[3]
    assert lines[-2].startswith(f"    cd {students} && git init && git add --all && git commit")


def test_notebooks_are_cleared_and_otherwise_the_same(teacher, students):
    for path in sorted((teacher / "notebooks").glob("*.ipynb")):
        before = nbformat.read(path, as_version=4)
        after = nbformat.read(students / "notebooks" / path.name, as_version=4)
        nbformat.validate(after)
        assert (after.metadata, after.nbformat_minor) == (before.metadata, before.nbformat_minor)
        for old, new in zip(before.cells, after.cells, strict=True):
            assert (old.id, old.cell_type, old.metadata) == (new.id, new.cell_type, new.metadata)
            if new.cell_type == "code":
                assert new.outputs == [] and new.execution_count is None
                kept = [line for line in old.source.splitlines() if not line.endswith(".solution()")]
                assert new.source.splitlines() == kept
            elif new.source != old.source:
                assert "<details" not in new.source and new.source == FOLDED.sub(r"* \1", old.source)
                assert [line[2:] for line in new.source.splitlines() if line.startswith("* ")] == [
                    question for question, _ in FOLDED.findall(old.source)
                ]
        assert ".solution()\n" not in "\n".join(cell.source for cell in after.cells if cell.cell_type == "code")


IN_STUDENTS_COPY = """
import contextlib, importlib, io, pkgutil
import torch
import utils
from kit import exercises
from kit.exercises import Exercise, conditioning, masked_convolutions, mixture_of_logistics, pieces, quickstart

def kernel_mask(kernel_size, kind):
    return torch.ones(kernel_size, kernel_size)

masked_convolutions.kernel_mask.check(kernel_mask)
masked_convolutions.kernel_mask.hint()
pieces.take("kernel_mask")

def kernel_mask(kernel_size, kind):
    before = torch.arange(kernel_size**2).view(kernel_size, kernel_size)
    return (before < kernel_size**2 // 2 + (kind == "B")).float()

masked_convolutions.kernel_mask.check(kernel_mask)
pieces.take("kernel_mask")
quickstart.to_unit.check(lambda images: images.float())
quickstart.to_unit.check(lambda images: images / 127.5 - 1)
mixture_of_logistics.bin_log_mass.check(pieces.take("bin_log_mass"))
said = set()
for module in pkgutil.iter_modules(exercises.__path__):
    for value in vars(importlib.import_module(f"kit.exercises.{module.name}")).values():
        if isinstance(value, Exercise):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                value.solution()
            said.add(out.getvalue())
print(said)
print(len([pieces.take(name) for name in pieces.registry()]))
try:
    exercises.sealed.sys.modules["kit.exercises.solutions.training"].learning_rate(None, 0, 1)
except AttributeError:
    import traceback
    print(traceback.format_exc())
"""


def test_a_students_copy_checks_hints_and_lends_its_pieces(students, tmp_path):
    copy = tmp_path / "copy"  # what passes is kept in it
    for name in ("kit", "utils", "checkpoints"):
        shutil.copytree(students / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "cells.py").write_text(IN_STUDENTS_COPY)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIXELCNN")}
    done = subprocess.run([sys.executable, "cells.py"], cwd=copy, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    first, wrong, hint, theirs, rest = done.stdout.split("\n", 4)
    assert first.startswith("1 of 3 is right: ") and wrong.startswith("Not yet 2 of 3: ")
    assert hint.startswith("Hint 1 of 3: ") and theirs == "kernel_mask: the kit's"
    assert "\nRight. Kept as notebooks/mine/kernel_mask.py: " in rest and "\nkernel_mask: yours\n" in rest
    assert "byte 0 becomes 0.0000, but it should become -1.0000" in rest and "\nRight.\n" in rest
    assert "this is the kit's own bin_log_mass; write yours" in rest
    assert f"{ {sealed.WITHHELD + chr(10)} }\n" in rest
    assert rest.count(": the kit's\n") >= 24 and "\n25\n" in rest
    assert 'File "<sealed kit.exercises.solutions.training>"' in rest and "config.warmup" not in rest


# ---- what goes wrong


@pytest.fixture
def here(teacher, monkeypatch):
    """The teacher's copy is the kit that is released."""
    monkeypatch.setattr(releasing, "KIT", teacher)
    monkeypatch.setattr(publish, "KIT", teacher)
    return teacher


def refusal(folder: Path) -> str:
    with pytest.raises(UsageError) as refused:
        releasing.release(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_is_in_the_way_stays_as_it_is(here, tmp_path):
    file, full, link, dangling = (tmp_path / name for name in ("file", "full", "link", "dangling"))
    file.write_text("notes")
    full.mkdir()
    (full / "notes").write_text("notes")
    (tmp_path / "empty").mkdir()
    link.symlink_to(tmp_path / "empty")
    dangling.symlink_to(tmp_path / "nowhere")
    hidden = tmp_path / "hidden"
    (hidden / ".git").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    assert "is there already and not empty" in refusal(file)
    assert "is there already and not empty" in refusal(full)
    assert "is a link" in refusal(link) and "is a link" in refusal(dangling)
    assert "Directory not empty" in refusal(hidden)
    assert "Not a directory" in refusal(file / "inside")
    assert sorted(tmp_path.rglob("*")) == before and file.read_text() == (full / "notes").read_text() == "notes"


def test_a_folder_without_permission_costs_a_sentence(teacher, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    as_others = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"] * (os.geteuid() == 0)
    command = [*as_others, sys.executable, "-m", "kit", "release", str(tmp_path / "locked" / "out")]
    done = subprocess.run(command, cwd=teacher, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: cannot write into ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("out", ["out", "new/out"])
@pytest.mark.parametrize("problem", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_half_way_leaves_nothing(here, tmp_path, monkeypatch, problem, out):
    (tmp_path / "out").mkdir()
    before = sorted(tmp_path.rglob("*"))

    def fails(*arguments):
        assert list(tmp_path.glob(".out.*/kit/exercises/*.sealed")), "it is half-way"
        raise problem

    monkeypatch.setattr(nbformat, "writes", fails)
    if isinstance(problem, OSError):
        assert "No space left on device; nothing was left there" in refusal(tmp_path / out)
    else:
        with pytest.raises(KeyboardInterrupt):
            releasing.release(tmp_path / out)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("out", ["out", "a/new/out"])
def test_into_an_empty_folder_and_a_new_one(here, tmp_path, out):
    (tmp_path / "out").mkdir()
    done = releasing.release(tmp_path / out)
    assert sorted(done.files) == sorted(contents(tmp_path / out)) and len(done.files) > 200
    assert {path.name for path in tmp_path.iterdir()} == {"out", out.split("/")[0]}


def test_a_copy_for_students_is_not_released_again(students, tmp_path):
    done = kit(students, "release", str(tmp_path / "again"))
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (2, "", [])
    why = "this is a copy for students, its exercises are sealed: release the teacher's copy"
    assert done.stderr == f"error: {why}\n"


def test_a_missing_or_damaged_file_and_a_folder_without_git_cost_a_sentence(here, tmp_path, monkeypatch):
    notebook = here / "notebooks/02_mixture_of_logistics.ipynb"
    text = notebook.read_text()
    try:
        notebook.write_text(text[:1000])
        assert "02_mixture_of_logistics.ipynb is damaged: git checkout" in refusal(tmp_path / "out")
        notebook.unlink()
        assert "02_mixture_of_logistics.ipynb is missing: git checkout" in refusal(tmp_path / "out")
    finally:
        notebook.write_text(text)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "none"))
    assert "git lists nothing here: work in a clone" in refusal(tmp_path / "out")
    monkeypatch.setenv("PATH", "")
    assert "git lists nothing here: work in a clone" in refusal(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", [None, b"", b"\xff\xfe", b"nonsense"])
def test_a_sealed_file_that_is_damaged_is_named(tmp_path, damage):
    module = tmp_path / "quickstart.py"
    sealed.seal(ROOT / "kit/exercises/quickstart.py", module)
    if damage is None:
        module.with_suffix(".sealed").unlink()
    else:
        module.with_suffix(".sealed").write_bytes(damage)
    with pytest.raises(UsageError, match=r"quickstart\.sealed is missing or damaged .*: get the kit again"):
        sealed.unseal({"__file__": str(module), "__name__": "kit.exercises.quickstart"})
