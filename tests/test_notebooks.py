"""The notebooks: they run, they read well without a kernel, and what they define of the model is what `utils` holds."""

import ast
import contextlib
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from test_publish import make_clone

import utils
from kit import board
from kit.__main__ import build_parser
from kit.exercises.pieces import registry
from notebooks import build

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
BUILDING = NOTEBOOKS[1:8]  # those in which the reader builds the network, its classifier and its sampler
REPORT, PROJECT = NOTEBOOKS[8:]  # those without exercises


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_of(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def definitions(source: str) -> dict[str, str]:
    """Top-level functions, classes and their methods by name, as syntax trees without docstrings. What a class assigns
    is left out: a notebook's may be `forward = network_forward`, which the reader writes."""
    found = {}
    lines = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())
    for node in ast.parse(lines).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            for inner in ast.walk(node):
                if isinstance(inner, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(inner) is not None:
                    inner.body = inner.body[1:] or [ast.Pass()]
        if isinstance(node, ast.ClassDef):
            methods = [inner for inner in node.body if isinstance(inner, ast.FunctionDef)]
            found |= {f"{node.name}.{method.name}": ast.dump(method) for method in methods}
            node.body = [inner for inner in node.body if not isinstance(inner, (ast.FunctionDef, ast.Assign, ast.Pass))]
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = ast.dump(node)
    return found


def exercise_of(source: str) -> re.Match | None:
    """The line of an exercise's cell that checks it: its exercise and the reader's name."""
    return re.search(r"^exercises\.(\w+)\.check\((\w+)\)$", source, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def in_utils() -> dict[str, str]:
    found: dict[str, str] = {}
    for file in (*(ROOT / "utils").glob("*.py"), ROOT / "kit/widgets/xray.py"):
        found |= definitions(file.read_text())
    return found


def test_there_are_ten():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{n:02d}" for n in range(10)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_defines_is_what_utils_holds(path, in_utils):
    for source in code_of(read(path)):
        if exercise_of(source):
            continue  # a blank
        for name, tree in definitions(source).items():
            assert tree == in_utils.get(name, tree), f"{name} differs from utils"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_reads_well(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < 2 * 2**20
    assert "widgets" not in notebook.metadata
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    words = len(text.split())
    assert (1200 if path in BUILDING else 400) <= words <= 2500, f"{words} words"
    if path in BUILDING:
        assert "> **Summary" in text and text.count("<details>") == 3
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if "bootstrap" not in cell.metadata.get("tags", []):
                most = 45 if cell.source.startswith("class ") else 25
                assert len(cell.source.splitlines()) <= most, cell.source
            assert cell.execution_count is not None, f"not executed: {cell.source}"
            for output in cell.outputs:
                assert output.output_type != "error" and output.get("name") != "stderr"
                assert build.WIDGET_VIEW not in output.get("data", {})
    text = path.read_text()
    assert not re.search(r"/(?:home|root|Users|work|tmp)/", text), "a path of the machine it ran on"
    exercises = sum(bool(exercise_of(source)) for source in code_of(notebook))
    assert exercises >= 3 or path in (REPORT, PROJECT), "three exercises"
    assert exercises == sum(".check(" in source for source in code_of(notebook)), "a check that `filled` does not see"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_badges_and_the_first_cell_are_the_same_everywhere(path):
    notebook = read(path)
    before = [cell.source for cell in notebook.cells]
    build.stamp(notebook, path.name)
    assert [cell.source for cell in notebook.cells] == before, "run `python -m notebooks.build --stamp`"
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert first.metadata.tags == ["bootstrap"] and first.metadata.jupyter.source_hidden


def copied_kit(kit: Path) -> Path:
    for name in ("utils", "kit", "notebooks", "checkpoints", "data", "benchmarks", "requirements.txt", "Makefile"):
        source = ROOT / name
        ignore = shutil.ignore_patterns("runs", "__pycache__", "cpen455", "mine")
        _ = shutil.copytree(source, kit / name, ignore=ignore) if source.is_dir() else shutil.copy(source, kit / name)
    return kit


@pytest.fixture(scope="module")
def copy_of_the_kit(tmp_path_factory) -> Path:
    """The one that `python -m kit release` makes for students."""
    folder = tmp_path_factory.mktemp("kit")
    command = [sys.executable, "-m", "kit", "release", str(folder / "students")]
    subprocess.run(command, cwd=make_clone(folder / "teacher"), check=True, stdout=subprocess.DEVNULL)
    return folder / "students"


def offline(source: str) -> str:
    """The cell as a run of the tests has it, which downloads nothing."""
    return re.sub(r"^FETCH = True", "FETCH = False", source, flags=re.MULTILINE)


# What is trained, sampled and classified less of where the blanks are filled, or widgets looked at. All of it is done
# from a clean kernel.
CUT_SHORT = {
    r"^STEPS = \d+": "STEPS = 20",
    r"STEPS // 20": "STEPS // 2",  # how often one looks
    r"^PICTURES = \d+": "PICTURES = 80",
    r"per_class=25": "per_class=8",
    r'(load_model|compare)\("cpen455",': r'\1("cartoons",',  # the smaller network
}


def cut_short(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    for cell in notebook.cells:
        for found, instead in CUT_SHORT.items():
            cell.source = re.sub(found, instead, cell.source, flags=re.MULTILINE)
    return notebook


def filled(notebook: nbformat.NotebookNode, every: int) -> tuple[nbformat.NotebookNode, list]:
    """The notebook, cut short, with every n-th blank filled by what `solution()` prints; and the cells filled."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    module = re.search(r"from kit\.exercises import (\w+) as exercises", "\n".join(cell.source for cell in cells))
    blanks = [cell for cell in cells if exercise_of(cell.source)][::every]
    for cell in cells:
        cell.outputs, cell.execution_count, cell.source = [], None, offline(cell.source)
    for cell in blanks:
        line = exercise_of(cell.source)
        assert line and module
        exercise = getattr(importlib.import_module(f"kit.exercises.{module[1]}"), line[1])
        with contextlib.redirect_stdout(io.StringIO()) as solution:
            exercise.solution()
        assert re.search(rf" {line[2]}[(:]", solution.getvalue()), "the solution has another name than the blank"
        cell.source = f"{solution.getvalue()}\n\n{line[0]}"
    return cut_short(notebook), blanks


@pytest.mark.parametrize("every", [2, 1], ids=["half", "full"])
def test_a_reader_who_fills_blanks_gets_through(every, tmp_path):
    """One notebook after the other in one copy of the kit; every how many-th of the blanks is filled."""
    kit = copied_kit(tmp_path / "kit")
    for path in (*NOTEBOOKS[:8], PROJECT):
        print(f"{path.name}:")  # shown if it is the last
        check_filled(path, kit, every)


def check_filled(path: Path, kit: Path, every: int) -> None:
    notebook, blanks = filled(read(path), every)
    build.execute(notebook, kit / "notebooks")
    printed = {
        cell.id: "".join(output.get("text", "") for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    }
    for cell in blanks:
        assert "Right." in printed[cell.id] and "not kept" not in printed[cell.id], printed[cell.id]
    if path in BUILDING:
        pieces = [name for name, (_, number) in registry().items() if f"{number:02d}" == path.stem[:2]]
        whose = {name: re.findall(rf"^notebook .. +{name} +(.*)$", "".join(printed.values()), re.M) for name in pieces}
        built = {line[2] for cell in blanks if (line := exercise_of(cell.source))}
        assert whose == {name: ["yours" if name in built else "the kit's"] for name in pieces}
        assert every > 1 or set(pieces) <= built
    if path == PROJECT:
        taken = dict(re.findall(r"^(\w+): (yours|the kit's)$", "".join(printed.values()), re.MULTILINE))
        kept = {path.stem for path in (kit / "notebooks" / "mine").glob("*.py")}
        assert len(taken) == 7 and {name for name, whose in taken.items() if whose == "yours"} == taken.keys() & kept


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_runs_from_a_clean_kernel(path, copy_of_the_kit):
    notebook = read(copy_of_the_kit / "notebooks" / path.name)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = offline(cell.source)
    build.execute(notebook, copy_of_the_kit / "notebooks")


def test_the_project_takes_a_folder_whose_test_pictures_have_no_labels(picture_folder, tmp_path):
    for path in list((picture_folder / "test").glob("*/*.png")):
        path.rename(picture_folder / "test" / f"{path.parent.name[0]}{path.name}")
        with contextlib.suppress(OSError):
            path.parent.rmdir()
    settings = {"DATASET": "folder", "DATA_ROOT": str(picture_folder), "STEPS": 2, "PER_CLASS": 1}
    notebook, kit = read(PROJECT), copied_kit(tmp_path / "kit")
    changed = 0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            for name, value in settings.items():
                cell.source, found = re.subn(rf"^{name} = .*", f"{name} = {value!r}", cell.source, flags=re.MULTILINE)
                changed += found
    assert changed == len(settings)
    build.execute(notebook, kit / "notebooks")
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "always dark: 3 of 6 right" in printed and "accepted, 6 labels" in printed
    assert "accepted, 2 samples; before you hand in, set PER_CLASS to 96" in printed
    verdicts = dict(re.findall(r"^(\w+)\n(?:  .*\n)*?  (all is right|WRONG: .*)$", printed, re.MULTILINE))
    assert verdicts["AddedOnce"] == verdicts["OwnFusion"] == "all is right"
    assert "it cheats" in verdicts["Pooled"] and "never trained" in verdicts["Product"]
    handed_in = kit / "notebooks" / "mine" / "project"
    found = board.read_teams(handed_in, {f"test/{c}{n}.png": int(c == "l") for c in "dl" for n in range(3)})
    assert [(team.name, team.refused, len(team.predictions)) for team in found] == [("baseline", "", 6)]
    assert found[0].samples == handed_in / "baseline" / "samples"


def test_the_commands_of_the_project_can_be_typed():
    text = "\n".join(cell.source for cell in read(PROJECT).cells if cell.cell_type == "markdown")
    lines = "".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    commands = [line for line in lines if not line.startswith("make report RUN=")]
    assert len(commands) >= 10 and len(lines) > len(commands)
    for line in commands:
        words = shlex.split(line, comments=True)
        assert words[:3] == ["python", "-m", "kit"]
        build_parser().parse_args(words[3:])


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("fetch, connected", [(True, True), (True, False), (False, True)])
def test_notebook_05_downloads_the_photographs_if_it_may(fetch, connected, writable, tmp_path, capsys):
    (cell,) = [source for source in code_of(read(NOTEBOOKS[5])) if "download_cpen455(" in source]
    fetched = []

    def load_split(dataset, split, root):
        if root not in fetched:
            raise utils.UsageError("not found")
        return [split] * 3

    def download_cpen455(root, timeout):
        if not connected:
            raise utils.UsageError("no connection")
        fetched.append(root)

    of_os = SimpleNamespace(access=lambda path, mode: writable, W_OK=os.W_OK)
    given = {"FETCH": fetch, "DATA": tmp_path, "os": of_os, "tempfile": tempfile, "Path": Path}
    given |= {"find_root": lambda dataset: None, "load_split": load_split, "download_cpen455": download_cpen455}
    exec(cell, given | {"UsageError": utils.UsageError})
    folder = tmp_path if writable else Path(tempfile.gettempdir())
    assert fetched == [folder / "cpen455"] * (fetch and connected)
    printed = capsys.readouterr().out
    assert ("no connection" in printed) == (fetch and not connected)
    assert ("here: 3 with labels" if fetched else "The photographs are not here") in printed


def bootstrap(
    cwd: Path, attached: Path = Path("/nowhere"), repository: str = "you/kit", then: str = "", **environment
) -> subprocess.CompletedProcess:
    """Runs the first cell as a copy of the kit that `repository` publishes has it, `attached` in the place of
    /kaggle/input, and `then`; on its last line it prints where `utils` lies. Not even root may write what is read-only.
    """
    code = build.BOOTSTRAP.replace("{repository}", repository).replace("/kaggle/input", str(attached))
    code = re.sub("^%.*$", "", code, flags=re.MULTILINE) + f"{then}\nimport utils; print(utils.__file__)"
    as_others = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"] * (os.geteuid() == 0)
    path = os.pathsep.join([environment.pop("PATH", ""), os.environ["PATH"]])
    return subprocess.run(
        [*as_others, sys.executable, "-c", code],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | environment | {"PATH": path},
    )


def of_kit(folder: Path) -> str:
    return f"{folder / 'utils' / '__init__.py'}\n"


@pytest.fixture
def git(tmp_path) -> Path:
    """A `git` that stands in for the network, first on the path of `bootstrap(..., PATH=git.parent)`; it fails as one
    that was cut off, and leaves what had come until then."""
    file = tmp_path / "bin" / "git"
    file.parent.mkdir()
    half = 'mkdir -p "$4/utils" && touch "$4/utils/__init__.py" "$4/utils/mixture.py"'
    file.write_text(f"#!/bin/sh\n{half}\necho $3: unreachable >&2\nexit 128\n")
    file.chmod(0o755)
    return file


def test_the_first_cell_is_short():
    lines = build.BOOTSTRAP.splitlines()
    assert sum(bool(line) and not line.startswith("#") for line in lines) <= 28


def test_the_first_cell_finds_the_folder_above(copy_of_the_kit):
    done = bootstrap(copy_of_the_kit / "notebooks")
    assert done.stdout == of_kit(copy_of_the_kit), done.stderr


def test_the_first_cell_replaces_another_package_called_utils(copy_of_the_kit, tmp_path):
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "__init__.py").write_text("")
    done = bootstrap(copy_of_the_kit / "notebooks", PYTHONPATH=str(tmp_path), PYTHONSTARTUP="")
    assert done.stdout == of_kit(copy_of_the_kit), done.stderr


def test_the_first_cell_clones_the_kit_where_it_is_not(copy_of_the_kit, tmp_path, git):
    """As on Colab: an empty folder. A name with a blank is one folder too."""
    address = "https://github.com/you/kit"
    git.write_text(f'#!/bin/sh\n[ "$*" = "clone --depth=1 {address} $4 -q" ] && cp -r {copy_of_the_kit} "$4"\n')
    content = tmp_path / "my content"
    content.mkdir()
    for _ in range(2):  # the second time it is there
        done = bootstrap(content, PATH=str(git.parent))
        assert done.stdout == of_kit(content / "pixelcnn-kit"), done.stderr
        assert [path.name for path in content.iterdir()] == ["pixelcnn-kit"]
        git.write_text("#!/bin/sh\nexit 9\n")


@pytest.mark.parametrize(
    "repository, why",
    [
        ("YOUR-ACCOUNT/pixelcnn-kit", "or publish it with make colab REPOSITORY=you/kit"),
        ("you/kit", "https://github.com/you/kit: unreachable"),
    ],
)
def test_without_a_kit_the_first_cell_says_in_a_sentence_what_to_do(tmp_path, git, repository, why):
    content = tmp_path / "content"
    content.mkdir()
    done = bootstrap(content, repository=repository, PATH=str(git.parent))
    cure = "on Kaggle attach it (Add Input), elsewhere work in a clone"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"The kit is missing: {cure}; {why}\n")
    assert list(content.iterdir()) == []


def attach(kit: Path, mount: Path, version: str | None) -> Path:
    """A read-only copy with this version."""
    shutil.copytree(kit, mount, ignore=shutil.ignore_patterns("notebooks", "checkpoints", "__pycache__"))
    init = mount / "utils" / "__init__.py"
    line = f'__version__ = "{version}"' if version else ""
    text, found = re.subn(r'^__version__ = ".*"', line, init.read_text(), flags=re.MULTILINE)
    assert found == 1
    init.write_text(text)
    for path in (mount, *mount.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    return mount


def test_the_first_cell_uses_the_kit_where_kaggle_has_attached_it(copy_of_the_kit, tmp_path, git, picture_folder):
    """It can only be read there, and nothing of it comes into the folder that Kaggle keeps: a run alone is written."""
    kit, working = attach(copy_of_the_kit, tmp_path / "input" / "pixelcnn" / "kit", "2026.11.28"), tmp_path / "working"
    working.mkdir()
    flags = f"--run=mine --dataset=folder --data-root={picture_folder} --nr-filters=4 --nr-resnet=1 --image-size=8"
    flags += " --nr-logistic-mix=2 --epochs=1 --device=cpu"
    then = f"from kit.distributed import launch; launch(['train', *{flags.split()}])"
    done = bootstrap(working, kit.parents[1], then=then, PATH=str(git.parent), PIXELCNN_RUNS=str(working / "runs"))
    assert done.stdout.endswith(f"\n{of_kit(kit)}"), done.stderr
    assert [path.name for path in working.glob("*")] == ["runs"] and (working / "runs/mine/best.safetensors").is_file()
    assert not list(kit.rglob("__pycache__")), "it was not read-only"


@pytest.mark.parametrize("places", [("input/a/kit", "input/b"), ("working/pixelcnn-kit", "input/b")])
@pytest.mark.parametrize(
    "versions, newest",
    [(("2026.12.3", "2026.12.20"), 1), (("2027.2.3", "2026.11.28"), 0), ((None, "2026.11.28"), 1)],
)
def test_of_several_kits_the_first_cell_takes_the_newest_and_says_so(
    copy_of_the_kit, tmp_path, places, versions, newest
):
    (tmp_path / "working").mkdir()
    kits = [attach(copy_of_the_kit, tmp_path / place, version) for place, version in zip(places, versions, strict=True)]
    done = bootstrap(tmp_path / "working", tmp_path / "input")
    said = f"Of 2 kits the newest is taken: {kits[newest]}, version {versions[newest]}\n"
    assert done.stdout == said + of_kit(kits[newest]), done.stderr
    beside = bootstrap(copy_of_the_kit / "notebooks", tmp_path / "input")
    assert beside.stdout == of_kit(copy_of_the_kit), beside.stderr


def test_the_version_is_one_that_the_first_cell_can_read():
    assert re.fullmatch(r"\d+\.\d+\.\d+", utils.__version__)
