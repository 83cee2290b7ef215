"""`make kaggle` and `make colab`: what they build passes the platforms' documented rules, and works when unpacked."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

from kit import platforms
from utils import data

ROOT = Path(__file__).parents[1]
NOT_THE_KIT = (".git", ".venv", "mine", "__pycache__", ".*_cache", ".hypothesis")
NOT_THE_KIT += ("runs", "dist", "wandb", "samples", "shots", "quality.png")


def make_clone(folder: Path) -> Path:
    """A git clone of the kit as it stands, with files in it that git does not list."""

    def ignore(parent: str, names: list[str]) -> set[str]:
        downloaded = set(names) - {"README.md", "cpen455.sha256"} if Path(parent) == ROOT / "data" else set()
        return downloaded | shutil.ignore_patterns(*NOT_THE_KIT)(parent, names)

    shutil.copytree(ROOT, folder, ignore=ignore)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    subprocess.run(["git", "add", "--all"], cwd=folder, check=True)
    (folder / "data" / "secret.jpg").write_bytes(b"a picture that is not ours to hand on")
    (folder / "untracked.txt").write_text("notes")
    return folder


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A clone in which `make kaggle` has been typed."""
    folder = make_clone(tmp_path_factory.mktemp("publish") / "clone")
    done = publish(folder, "kaggle", "jane-doe7")
    assert done.returncode == 0, done.stderr
    assert "https://www.kaggle.com/code/jane-doe7/pixelcnn-kit-00-quickstart" in done.stdout
    return folder


def publish(clone: Path, *arguments: str, photographs: Path | None = None) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "kit.publish", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"CPEN455_ROOT": str(photographs or "")}
    return subprocess.run(command, cwd=clone, capture_output=True, text=True, env=environment)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.parts and "__pycache__" not in path.parts
    }


def run_first_cell(working: Path, mounted: Path) -> Path:
    """Runs the first notebook's first cell as Kaggle would, `mounted` in the place of /kaggle/input; -> the kit."""
    notebook = nbformat.read(ROOT / "notebooks" / "00_quickstart.ipynb", as_version=4)
    first = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert "/kaggle/input" in first
    code = (
        first.replace("/kaggle/input", str(mounted))
        .replace("%matplotlib inline", "import utils; print(utils.__file__)")
        .replace("%config", "# %config")
    )
    no_git = working.with_name("bin")  # nothing may be cloned: the kernels have no internet
    no_git.mkdir()
    (no_git / "git").write_text("#!/bin/sh\nexit 9\n")
    (no_git / "git").chmod(0o755)
    environment = os.environ | {"PATH": f"{no_git}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([sys.executable, "-c", code], cwd=working, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip()).parents[1]


def dataset_metadata(folder: Path, slug: str) -> dict:
    """What `kaggle datasets create` reads, checked, of a folder that holds it and one archive."""
    about = json.loads((folder / "dataset-metadata.json").read_text())
    assert about.keys() == {"title", "id", "licenses"} and about["id"] == f"jane-doe7/{slug}"
    assert 6 <= len(about["title"]) <= 50 and 6 <= len(slug) <= 50
    assert re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", slug)
    assert [set(license) for license in about["licenses"]] == [{"name"}]
    assert sorted(path.name for path in folder.iterdir()) == sorted(["dataset-metadata.json", f"{slug}.zip"])
    return about


def kernel_sources(clone: Path) -> list[list[str]]:
    files = clone.glob("dist/kaggle/kernels/*/kernel-metadata.json")
    return [json.loads(file.read_text())["dataset_sources"] for file in files]


def test_what_is_built_for_kaggle_follows_the_documented_rules(clone):
    built = clone / "dist" / "kaggle"
    for path in built.rglob("*.json"):
        assert path.read_text().endswith("}\n")

    about = dataset_metadata(built / "dataset", "pixelcnn-kit")
    assert about["licenses"][0]["name"] in (ROOT / "LICENSE").read_text().split()

    folders = sorted((built / "kernels").iterdir())
    assert [folder.name for folder in folders] == [f"{n:02d}" for n in range(10)]
    ids = set()
    for folder in folders:
        kernel = json.loads((folder / "kernel-metadata.json").read_text())
        types = {
            "id": str, "title": str, "code_file": str, "language": str, "kernel_type": str, "is_private": bool,
            "enable_gpu": bool, "enable_internet": bool, "machine_shape": str, "dataset_sources": list,
            "competition_sources": list, "kernel_sources": list, "model_sources": list,
        }  # fmt: skip
        assert {name: type(value) for name, value in kernel.items()} == types
        assert 5 <= len(kernel["title"]) <= 50
        as_slug = re.sub("[^a-z0-9]+", "-", kernel["title"].lower()).strip("-")
        assert kernel["id"] == f"jane-doe7/{as_slug}"
        ids.add(kernel["id"])
        assert kernel["language"] in ("python", "r", "rmarkdown") and kernel["kernel_type"] in ("script", "notebook")
        assert kernel["machine_shape"] in ("NvidiaTeslaT4", "NvidiaTeslaT4Highmem", "NvidiaL4", "TpuV5E8")
        assert kernel["is_private"] and kernel["enable_gpu"] and not kernel["enable_internet"]
        assert kernel["dataset_sources"] == [about["id"]]
        notebook = folder / kernel["code_file"]
        assert notebook.read_bytes() == (ROOT / "notebooks" / notebook.name).read_bytes()
        assert sorted(path.name for path in folder.iterdir()) == sorted([notebook.name, "kernel-metadata.json"])
    assert len(ids) == 10


def test_the_archive_is_the_kit_as_git_lists_it_and_always_the_same_bytes(clone):
    archive = clone / "dist" / "kaggle" / "dataset" / "pixelcnn-kit.zip"
    before = archive.read_bytes()
    with zipfile.ZipFile(archive) as file:
        packed = {name: file.read(name) for name in file.namelist()}
    expected = contents(clone)
    for name in ("data/secret.jpg", "untracked.txt"):
        del expected[name]
    assert packed == {name: data for name, data in expected.items() if not name.startswith("dist/")}
    for name in ("utils/model.py", "checkpoints/cartoons.safetensors", "data/README.md", "requirements.txt"):
        assert name in packed

    for path in (clone / "utils").glob("*.py"):  # as if checked out anew, elsewhere
        os.utime(path, (10**9, 10**9))
        path.chmod(0o600)
    (clone / "dist" / "kaggle" / "left over").write_text("of an older build")
    assert publish(clone, "kaggle", "jane-doe7").returncode == 0
    assert archive.read_bytes() == before
    assert sorted(path.name for path in archive.parents[1].iterdir()) == ["dataset", "kernels"]
    listed = subprocess.run(["git", "status", "--porcelain", "dist"], cwd=clone, capture_output=True, text=True)
    assert listed.stdout == "", "git does not ignore dist/"


def test_the_first_cell_finds_the_unpacked_archive_and_it_works(clone, tmp_path):
    for number, mount in enumerate(["pixelcnn-kit", "datasets/jane/pixelcnn-kit/pixelcnn-kit"]):  # both are met
        mounted, working = tmp_path / str(number) / "input", tmp_path / str(number) / "working"
        working.mkdir(parents=True)
        with zipfile.ZipFile(clone / "dist" / "kaggle" / "dataset" / "pixelcnn-kit.zip") as file:
            file.extractall(mounted / mount)
        assert run_first_cell(working, mounted) == mounted / mount
        assert list(working.iterdir()) == []
    flags = ["--checkpoint", "cartoons", "--per-class", "1", "--classes", "panda", "--out", str(working / "drawn")]
    command = [sys.executable, "-m", "kit", "generate", *flags]
    done = subprocess.run(command, cwd=mounted / mount, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (working / "drawn").iterdir()) == ["Class1_image_01.png", "gallery.png"]


def test_the_photographs_are_a_data_set_of_their_own_where_they_are_at_hand(clone, course_data, tmp_path, monkeypatch):
    listed = contents(course_data)
    (course_data / "train" / "left over.jpg").write_bytes(b"no table lists it")
    archive, archives = clone / "dist" / "kaggle" / "cpen455" / "cpen455.zip", []
    for _ in range(2):
        done = publish(clone, "kaggle", "jane-doe7", photographs=course_data)
        assert "\n3. kaggle datasets create -p dist/kaggle/cpen455" in done.stdout, done.stderr
        assert "leave this data set private" in done.stdout
        archives.append(archive.read_bytes())
        for path in course_data.rglob("*"):  # as if downloaded anew
            os.utime(path, (10**9, 10**9))
    assert archives[0] == archives[1]
    assert dataset_metadata(archive.parent, "cpen455")["licenses"] == [{"name": "unknown"}]
    assert kernel_sources(clone) == [["jane-doe7/pixelcnn-kit", "jane-doe7/cpen455"]] * 10

    monkeypatch.delenv("CPEN455_ROOT", raising=False)
    monkeypatch.setattr(data, "FOLDER", tmp_path / "empty" / "kit" / "data")
    for mount in ("cpen455", "datasets/jane-doe7/cpen455/cpen455"):  # Kaggle unzips it; both are met
        monkeypatch.setattr(platforms, "KAGGLE_INPUT", tmp_path / "input" / str(len(mount)))
        with zipfile.ZipFile(archive) as file:
            file.extractall(platforms.KAGGLE_INPUT / mount)
        found = platforms.find_root("cpen455")
        assert found == platforms.KAGGLE_INPUT / mount and contents(found) == listed

    (course_data / "test.csv").write_text("test/gone.jpg,-1\n")
    before = contents(clone)
    done = publish(clone, "kaggle", "jane-doe7", photographs=course_data)
    assert done.returncode == 2 and done.stderr.endswith("test.csv, row 1: there is no file test/gone.jpg\n")
    assert done.stderr.count("\n") == 1 and contents(clone) == before

    done = publish(clone, "kaggle", "jane-doe7")
    assert "\n3. if you want the course's photographs there: python -m kit data cpen455" in done.stdout, done.stderr
    assert not archive.parent.exists() and kernel_sources(clone) == [["jane-doe7/pixelcnn-kit"]] * 10


def test_a_repository_is_named_in_one_place_and_stamped_everywhere(tmp_path):
    clone = make_clone(tmp_path / "clone")
    done = publish(clone, "colab", "jane-doe/my.kit_2")
    assert done.returncode == 0, done.stderr
    before, after = contents(ROOT / "notebooks"), contents(clone / "notebooks")
    changed = {name for name in after if before[name] != after[name]}
    assert changed == {name for name in after if name.endswith(".ipynb")} | {"build.py"} and len(changed) == 11
    for name in changed - {"build.py"}:
        text = after[name].decode()
        assert "YOUR-ACCOUNT" not in text
        assert text.count("github.com/jane-doe/my.kit_2") == 2 and f"/main/notebooks/{name})" in text
        assert f"https://colab.research.google.com/github/jane-doe/my.kit_2/blob/main/notebooks/{name}" in text
        assert f"/github/jane-doe/my.kit_2/blob/main/notebooks/{name}\n" in done.stdout
        differing = zip(before[name].decode().splitlines(), text.splitlines(), strict=True)
        assert sum(old != new for old, new in differing) == 3, "two badges and the clone, nothing else"
    assert all(f"\n{n}. " in done.stdout for n in range(1, 6))

    before, after = (folder.joinpath("README.md").read_text().splitlines() for folder in (ROOT, clone))
    differing = [new for old, new in zip(before, after, strict=True) if old != new]
    assert differing[0] == "git clone https://github.com/jane-doe/my.kit_2"
    assert differing[1].startswith("cd my.kit_2 && make demo ") and len(differing) == 2

    after = contents(clone / "notebooks")
    command = [sys.executable, "-m", "notebooks.build", "--stamp"]  # it now says the same itself
    assert subprocess.run(command, cwd=clone).returncode == 0
    assert contents(clone / "notebooks") == after


WRONG_USERS = ["", "Jane", "jane doe", "jane-", "ja_ne", "../jane", "jane/kit", "jane\n"]
WRONG_REPOSITORIES = ["", "jane", "jane/", "/kit", "jane/kit/more", "ja_ne/kit", "https://github.com/jane/kit"]
WRONG_REPOSITORIES += ["jane/kit.git", "jane/..", 'jane/kit"', "jane/kit\n"]


def test_a_wrong_name_writes_nothing(clone, monkeypatch, capsys):
    from kit import publish
    from notebooks import build

    monkeypatch.setattr(publish, "KIT", clone)
    monkeypatch.setattr(build, "FOLDER", clone / "notebooks")
    before, of_the_kit = contents(clone), contents(ROOT / "notebooks")
    for place, variable, names in (
        ("kaggle", "USERNAME", WRONG_USERS),
        ("colab", "REPOSITORY", WRONG_REPOSITORIES),
    ):
        for name in names:
            assert publish.main([place, name]) == 2, name
            printed = capsys.readouterr()
            assert printed.err.startswith(f"error: {variable} ") and printed.err.count("\n") == 1
            assert printed.out == ""
    assert contents(clone) == before and contents(ROOT / "notebooks") == of_the_kit


def test_make_takes_a_typed_name_only(clone):
    """Many systems set USERNAME to the login name, which is not the name on Kaggle."""
    (clone / ".venv" / "bin").mkdir(parents=True)
    python = clone / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    (clone / ".venv" / "ready").touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment |= {"USERNAME": "janet", "REPOSITORY": "jane/kit"}  # and not as a part of the make that runs the tests
    for place in ("kaggle", "colab"):
        done = subprocess.run(["make", place], cwd=clone, capture_output=True, text=True, env=environment)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stdout == ""
    command = ["make", "kaggle", "USERNAME=joan"]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "kaggle.com/code/joan/" in done.stdout, done.stderr


def test_outside_a_clone_or_with_a_file_gone_what_was_built_stays(tmp_path):
    clone = make_clone(tmp_path / "clone")
    (clone / "dist" / "kaggle").mkdir(parents=True)
    (clone / "dist" / "kaggle" / "built").touch()
    before = contents(clone)
    (clone / "LICENSE").unlink()
    done = publish(clone, "kaggle", "jane")
    assert done.returncode == 2 and done.stderr == "error: LICENSE is missing: git checkout LICENSE\n"
    shutil.rmtree(clone / ".git")
    done = publish(clone, "kaggle", "jane")
    assert done.returncode == 2 and "clone" in done.stderr and done.stderr.count("\n") == 1
    assert contents(clone) == {name: data for name, data in before.items() if name != "LICENSE"}
