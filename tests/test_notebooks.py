"""The notebooks: they run, they read well without a kernel, and what they define of the model is what `utils` holds."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from notebooks import build

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_of(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def definitions(source: str) -> dict[str, str]:
    """Top-level functions and classes by name, as syntax trees without docstrings and annotations of the tools."""
    found = {}
    lines = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())
    for node in ast.parse(lines).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            for inner in ast.walk(node):
                if isinstance(inner, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(inner) is not None:
                    inner.body = inner.body[1:] or [ast.Pass()]
            found[node.name] = ast.dump(node)
    return found


@pytest.fixture(scope="module")
def in_utils() -> dict[str, str]:
    found: dict[str, str] = {}
    for file in (*(ROOT / "utils").glob("*.py"), ROOT / "kit/widgets/xray.py"):
        found |= definitions(file.read_text())
    return found


def test_there_are_nine():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{n:02d}" for n in range(9)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_defines_is_what_utils_holds(path, in_utils):
    for source in code_of(read(path)):
        for name, tree in definitions(source).items():
            assert tree == in_utils.get(name, tree), f"{name} differs from utils"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_reads_well(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < 2 * 2**20
    assert "widgets" not in notebook.metadata
    words = sum(len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown")
    assert 400 <= words <= 2500, f"{words} words"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if "bootstrap" not in cell.metadata.get("tags", []):
                assert len(cell.source.splitlines()) <= 25, cell.source
            assert cell.execution_count is not None, f"not executed: {cell.source}"
            for output in cell.outputs:
                assert output.output_type != "error" and output.get("name") != "stderr"
                assert build.WIDGET_VIEW not in output.get("data", {})
    text = path.read_text()
    assert not re.search(r"/(?:home|root|Users|work|tmp)/", text), "a path of the machine it ran on"
    exercises = sum(bool(re.search(r"\.check\(", source)) for source in code_of(notebook))
    assert exercises >= 3 or path.stem == "08_report", "three exercises"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_badges_and_the_first_cell_are_the_same_everywhere(path):
    notebook = read(path)
    before = [cell.source for cell in notebook.cells]
    build.stamp(notebook, path.name)
    assert [cell.source for cell in notebook.cells] == before, "run `python -m notebooks.build --stamp`"
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert first.metadata.tags == ["bootstrap"]


@pytest.fixture(scope="module")
def copy_of_the_kit(tmp_path_factory) -> Path:
    kit = tmp_path_factory.mktemp("kit")
    for name in ("utils", "kit", "notebooks", "checkpoints", "data", "requirements.txt", "Makefile"):
        source = ROOT / name
        ignore = shutil.ignore_patterns("runs", "__pycache__", "cpen455")
        _ = shutil.copytree(source, kit / name, ignore=ignore) if source.is_dir() else shutil.copy(source, kit / name)
    return kit


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_runs_from_a_clean_kernel(path, copy_of_the_kit):
    notebook = read(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    build.execute(notebook, copy_of_the_kit / "notebooks")


def bootstrap(cwd: Path, **environment) -> subprocess.CompletedProcess:
    code = build.BOOTSTRAP.replace("%matplotlib inline", "print(utils.__file__)")
    path = os.pathsep.join([environment.pop("PATH", ""), os.environ["PATH"]])
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | environment | {"PATH": path},
    )


def test_the_first_cell_finds_the_folder_above(copy_of_the_kit):
    done = bootstrap(copy_of_the_kit / "notebooks")
    assert done.stdout.strip() == str(copy_of_the_kit / "utils" / "__init__.py"), done.stderr


def test_the_first_cell_replaces_another_package_called_utils(copy_of_the_kit, tmp_path):
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "__init__.py").write_text("")
    done = bootstrap(copy_of_the_kit / "notebooks", PYTHONPATH=str(tmp_path), PYTHONSTARTUP="")
    assert done.stdout.strip() == str(copy_of_the_kit / "utils" / "__init__.py"), done.stderr


def test_the_first_cell_clones_the_kit_where_it_is_not(copy_of_the_kit, tmp_path):
    """As on Colab: an empty folder, and a `git` that stands in for the network."""
    (tmp_path / "bin").mkdir()
    git = tmp_path / "bin" / "git"
    git.write_text(f'#!/bin/sh\n[ "$1 $2" = "clone --depth=1" ] || exit 9\ncp -r {copy_of_the_kit} "$4"\n')
    git.chmod(0o755)
    content = tmp_path / "content"
    content.mkdir()
    for _ in range(2):  # the second time it is there
        done = bootstrap(content, PATH=str(tmp_path / "bin"))
        assert done.stdout.strip() == str(content / "pixelcnn-kit" / "utils" / "__init__.py"), done.stderr
        git.write_text("#!/bin/sh\nexit 9\n")


def test_the_first_cell_copies_a_data_set_attached_on_kaggle(copy_of_the_kit, tmp_path, monkeypatch):
    attached, working = tmp_path / "input" / "pixelcnn", tmp_path / "working"
    shutil.copytree(copy_of_the_kit, attached / "kit")
    working.mkdir()
    monkeypatch.setattr(build, "BOOTSTRAP", build.BOOTSTRAP.replace("/kaggle/input", str(tmp_path / "input")))
    done = bootstrap(working)
    assert done.stdout.strip() == str(working / "pixelcnn-kit" / "utils" / "__init__.py"), done.stderr
