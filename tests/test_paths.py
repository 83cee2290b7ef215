"""Files and folders mean what they mean in a shell: ~ is the user's, a relative path is seen from where one stands, and
a printed command can be pasted there."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import save_small_model

from kit import console, distributed, platforms
from kit.__main__ import build_parser, main
from kit.commands import spelled_our_way
from kit.runs import RunConfig
from utils import UsageError, checkpoints

ROOT = Path(__file__).parents[1]
TINY = ["--nr-filters=4", "--nr-resnet=1", "--nr-logistic-mix=1", "--image-size=8", "--device=cpu", "--epochs=1"]


@pytest.fixture
def desk(tmp_path, picture_folder, monkeypatch) -> Path:
    """A folder of the user's, where one stands, with pictures and with modules that are called as the kit's are."""
    desk = tmp_path / "my desk"
    desk.mkdir()
    picture_folder.rename(desk / "pics")
    for name in ("utils.py", "platforms.py", "random.py", "json.py", "torch.py"):
        (desk / name).write_text("raise RuntimeError('the wrong one')")
    (desk / "kit").mkdir()
    (desk / "kit" / "__init__.py").write_text("raise RuntimeError('the wrong one')")
    monkeypatch.chdir(desk)
    monkeypatch.setenv("PIXELCNN_RUNS", "own/runs")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return desk


def test_the_users_folder_in_arguments(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    for typed, meant in {
        "--data-root=~/pics": "--data-root=/home/ada/pics",
        "--data_root=~": "--data-root=/home/ada",
        "~/a b.png": "/home/ada/a b.png",
        "~/a=b.png": "/home/ada/a=b.png",
        "a/~/b": "a/~/b",
        "~backup": "~backup",
        "~root/a": "~root/a",
        "--out=~root": "--out=~root",
        "--run=a~": "--run=a~",
    }.items():
        assert spelled_our_way(typed) == meant
    monkeypatch.setattr(os.path, "expanduser", lambda path: path.replace("~", "C:\\Ada"))
    assert spelled_our_way("--out=~\\new") == "--out=C:\\Ada\\new"
    args = build_parser().parse_args(["train", "--run=r", "--data-root", "~/pics"])
    assert args.data_root == "C:\\Ada/pics"


def test_runs_folder_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    expected = {
        "~/runs": tmp_path / "home" / "runs",
        "~root": tmp_path / "~root",
        "a/../runs": tmp_path / "runs",
        "/all/runs": Path("/all/runs"),
    }
    for given, folder in expected.items():
        monkeypatch.setenv("PIXELCNN_RUNS", given)
        assert platforms.runs_folder() == checkpoints.given_runs() == folder
    (tmp_path / "home" / "runs" / "mine").mkdir(parents=True)
    weights = save_small_model(tmp_path / "home" / "runs" / "mine" / "best.safetensors", 2)
    monkeypatch.setenv("PIXELCNN_RUNS", "~/runs")
    assert checkpoints.find_weights("mine") == platforms.find_weights("mine") == weights
    with pytest.raises(UsageError, match=f"a run in {tmp_path / 'home' / 'runs'}, or"):
        checkpoints.find_weights("other")
    monkeypatch.setenv("PIXELCNN_RUNS", "")
    assert platforms.runs_folder() == checkpoints.RUNS and checkpoints.given_runs() is None


def test_a_run_comes_before_a_file_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    for folder in ("runs/mine", "mine", "runs/begun", "begun", "only"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("runs/mine", "mine", "begun", "only"):
        save_small_model(tmp_path / folder / "best.safetensors", 2)
    save_small_model(tmp_path / "x.safetensors", 2)
    (runs / "x.safetensors").mkdir()
    for name, file in {
        "mine": runs / "mine" / "best.safetensors",
        "./mine": Path("mine/best.safetensors"),
        "mine/best.safetensors": Path("mine/best.safetensors"),
        str(tmp_path / "mine"): tmp_path / "mine" / "best.safetensors",
        "only": Path("only/best.safetensors"),
        "x.safetensors": Path("x.safetensors"),
    }.items():
        assert checkpoints.find_weights(name, runs) == file, name
    with pytest.raises(UsageError, match=r"'begun': there is no .*runs/begun/best.safetensors"):
        checkpoints.find_weights("begun", runs)  # no other weights in its place
    (tmp_path / "mine").rename(tmp_path / "gone")
    (tmp_path / "mine").write_text("a file")
    assert checkpoints.find_weights("mine", runs) == runs / "mine" / "best.safetensors"


def test_a_runs_data_are_found_from_other_folders(desk, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("USERPROFILE", "/home/ada")
    assert RunConfig(data_root="pics").data_root == str(desk / "pics")
    assert RunConfig(data_root="~/pics").data_root == os.path.abspath("/home/ada/pics")
    assert RunConfig().data_root is None


@pytest.mark.parametrize("processes", [1, 2])
def test_launch_means_the_notebooks_own_folder(desk, capfd, processes):
    arguments = ["train", "--run=r", "--dataset=folder", "--data-root", "pics", *TINY, "--precision=float32"]
    distributed.launch(arguments, processes)
    assert "epoch   1" in capfd.readouterr().out
    assert json.loads((desk / "own/runs/r/config.json").read_text())["train"]["data_root"] == str(desk / "pics")
    assert not (ROOT / "own").exists()


def test_launch_shows_any_letter(desk, capfd, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    with pytest.raises(UsageError):
        distributed.launch(["train", "--run=猫/猫/猫"], 1)
    assert "猫/猫/猫" in capfd.readouterr().out


def test_a_run_is_used_from_any_folder_and_so_is_the_command_that_it_prints(desk, tmp_path, capsys, monkeypatch):
    words = ["train", "--dataset=folder", "--data-root=pics", *TINY]
    assert main([*words, "--run=my run"]) == 0
    printed = capsys.readouterr().out.splitlines()[-1].removeprefix("next: ")
    assert shlex.split(printed)[-6:-4] == ["--checkpoint", "my run"]
    done = subprocess.run(printed, shell=True, capture_output=True, text=True)
    assert done.returncode == 0 and "folder validation split, 6 pictures" in done.stdout, done.stderr
    monkeypatch.setenv("PIXELCNN_RUNS", str(desk / "own" / "runs"))
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--run=my run", "--resume", "--epochs=2"]) == 0


def test_a_sweep_means_the_folder_where_it_was_started(desk, capsys):
    names = ("nr_filters", "nr_resnet", "nr_logistic_mix", "epochs")
    values = {"dataset": "folder", "data_root": "pics", "device": "cpu", "image_size": 8} | dict.fromkeys(names, 1)
    choices = {name: {"value": value} for name, value in values.items()}
    text = "\ufeff" + json.dumps({"method": "grid", "parameters": choices})  # JSON is YAML; Notepad puts a mark before
    (desk / "s.yaml").write_text(text, encoding="utf-8")
    for finished in (0, 1):
        with pytest.raises(SystemExit) as leaving:
            main(["sweep", "s.yaml"])
        assert leaving.value.code == 0 and f"1 points, {finished} of them" in capsys.readouterr().out
    assert (desk / "own/runs/s/all/best.safetensors").is_file()


def test_what_the_demo_prints_can_be_pasted(desk, capsys):
    (desk / "samples").mkdir()
    assert main(["demo", "--dataset=folder", "--data-root=pics", *TINY]) == 0
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.endswith("--out samples2") and f"--dataset folder --data-root '{desk / 'pics'}'" in second
    for command in (first, second):
        done = subprocess.run(command, shell=True, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (desk / "samples2" / "gallery.png").is_file()


def test_a_command_as_it_can_be_typed_here(tmp_path, monkeypatch):
    here = Path(sys.executable)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PATH", str(here.parent))
    assert console.typed("report", "my run") == "python -m kit report 'my run'"
    (tmp_path / "python").symlink_to(here)  # another environment's may be a link to the very same program
    monkeypatch.setenv("PATH", str(tmp_path))
    assert console.typed("doctor") == f"{console.shown(here)} -m kit doctor"
    monkeypatch.chdir(tmp_path)
    assert console.typed("doctor").split()[1:] == [console.shown(ROOT / "kit"), "doctor"]
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}elsewhere")
    assert console.typed("doctor").split()[1:] == ["-m", "kit", "doctor"]
    monkeypatch.setattr(console.os, "name", "nt")
    assert console.quoted("evaluate", "my run", "it's") == 'evaluate "my run" it\'s'


def test_another_of_windows_drives(tmp_path, monkeypatch):
    def relpath(_path):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.chdir(tmp_path)
    assert console.shown(tmp_path / "a") == "a"
    monkeypatch.setattr(os.path, "relpath", relpath)
    assert console.shown(tmp_path / "a") == str(tmp_path / "a")


@pytest.mark.parametrize(
    "name",
    ["cartoons", "cpen455-hybrid", "demo", "demo/x", "a/b/c", "../a", "a//b", "", "-a", "Demo", "DEMO/x", "CpEn455"],
)
def test_names_that_no_run_may_have(name):
    for run in (name, Path(name)) if name not in ("", "a//b") else (name,):
        with pytest.raises(UsageError, match="--run"):
            platforms.check_name(run)


@pytest.mark.parametrize("name", [" ", "a ", "s/ a", "s /a", "a\nb", "a\tb", "\x1b[1m", "a\u200bb"])
def test_names_that_nobody_sees_as_they_are(name):
    with pytest.raises(UsageError, match="no space at its ends") as refused:
        platforms.check_name(name)
    assert str(refused.value).isprintable()


def test_names_that_a_run_may_have(tmp_path):
    for run in (
        "mine",
        "my run",
        "cartoons/lr=0.1",
        "cartoons2",
        "猫",
        "~root",
        "demo2",
        "a**b",
        tmp_path / "cartoons",
        tmp_path / "demo",
    ):
        platforms.check_name(run)
    with pytest.raises(UsageError, match="NAME or SWEEP/NAME"):
        platforms.check_name(str(tmp_path / "a"))


def test_another_users_folder_is_a_name_like_any_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "~root").mkdir(parents=True)
    weights = save_small_model(tmp_path / "runs" / "~root" / "best.safetensors", 2)
    assert checkpoints.find_weights("~root", tmp_path / "runs") == weights
