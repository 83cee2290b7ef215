"""Where am I, and what the doctor says of it."""

import re
from dataclasses import replace

import pytest
import torch
from conftest import save_small_model, tiny

from kit import doctor, platforms
from kit.__main__ import main
from kit.train import train
from utils import checkpoints, data, device


def findings(capsys) -> list[str]:
    doctor.doctor()
    return capsys.readouterr().out.splitlines()


def test_the_doctor_finds_nothing_wrong_here(capsys, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    lines = findings(capsys)
    assert not [line for line in lines if line.startswith("FIX") and "disk" not in line]
    assert any("device" in line and "precision" in line for line in lines)


def test_the_doctor_never_shows_the_key(capsys, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "sesame-open-up")
    lines = findings(capsys)
    assert any("W&B key found" in line for line in lines) and "sesame" not in "".join(lines)


def test_the_doctor_says_how_to_fix_it(capsys, monkeypatch, tmp_path):
    version = doctor.importlib.metadata.version
    monkeypatch.setattr(
        doctor.importlib.metadata, "version", lambda name: "1.18.0" if name == "scipy" else version(name)
    )
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path)
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert not doctor.doctor()
    text = capsys.readouterr().out
    for what, how in {
        "scipy 1.18.0": r"-m pip install 'scipy<1\.18'",
        "shipped weights: none": r"git -C \S+ checkout checkpoints",
        "utils is": "first on sys.path",
    }.items():
        assert re.search(rf"FIX   {what}.*\n      -> .*{how}", text), text


def test_the_doctor_names_all_that_the_kit_needs(capsys, monkeypatch):
    """Of requirements.txt, but for the tests; of the notebooks' server what a report needs."""
    needed, _, _ = (platforms.KIT / "requirements.txt").read_text(encoding="utf-8").partition("# make test")
    names = re.findall(r"^([\w-]+)", needed, re.MULTILINE)
    brought = {"nbformat", "nbclient", "nbconvert"}  # by jupyterlab, and needed without it
    assert len(names) > 10 and set(names) - {"jupyterlab"} | brought == set(doctor.PACKAGES)

    def none_of_it(_name):
        raise doctor.importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(doctor.importlib.metadata, "version", none_of_it)
    lines = "\n".join(findings(capsys))
    for name in doctor.PACKAGES:
        assert re.search(rf"FIX   {name} is missing\n      -> \S+ -m pip install {name}\n", lines), lines


@pytest.mark.parametrize("place", ["a file", "a file/runs", "a link to nothing"])
def test_the_doctor_tries_to_write_where_runs_are_kept(tmp_path, monkeypatch, capsys, place):
    (tmp_path / "a file").touch()
    (tmp_path / "a link to nothing").symlink_to(tmp_path / "nothing")
    monkeypatch.setenv("PIXELCNN_RUNS", str(tmp_path / place))
    assert main(["doctor"]) == 2
    assert re.search(r"FIX   runs cannot be kept in .*\n      -> export PIXELCNN_RUNS=/", capsys.readouterr().out)
    monkeypatch.setenv("PIXELCNN_RUNS", str(tmp_path / "new" / "runs"))
    lines = findings(capsys)
    assert [line for line in lines if "runs are kept in" in line and line.startswith("ok")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a file", "a link to nothing"]


@pytest.mark.parametrize(
    "environment,expected",
    [
        ({"KAGGLE_KERNEL_RUN_TYPE": "Interactive", "COLAB_RELEASE_TAG": "r"}, "kaggle"),
        ({"COLAB_RELEASE_TAG": "r"}, "colab"),
        ({}, "laptop"),
    ],
)
def test_where_am_i(environment, expected, monkeypatch):
    for name in ("KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert platforms.platform_name() == expected


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Folders that stand in for the platforms' own."""
    for name in ("KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG", "PIXELCNN_RUNS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("KAGGLE_INPUT", "KAGGLE_WORKING", "COLAB_DRIVE"):
        monkeypatch.setattr(platforms, name, tmp_path / name.lower())
    return tmp_path


def test_where_runs_are_kept(places, monkeypatch):
    assert platforms.runs_folder() == platforms.KIT / "checkpoints" / "runs" and not platforms.runs_will_vanish()
    monkeypatch.setenv("COLAB_RELEASE_TAG", "r")
    assert platforms.runs_folder() == platforms.KIT / "checkpoints" / "runs" and platforms.runs_will_vanish()
    (places / "colab_drive").mkdir()
    assert (
        platforms.runs_folder() == places / "colab_drive" / "pixelcnn-kit" / "runs" and not platforms.runs_will_vanish()
    )
    (places / "kaggle_working").mkdir()
    assert platforms.runs_folder() == places / "kaggle_working" / "runs"
    monkeypatch.setenv("PIXELCNN_RUNS", str(places / "mine"))
    assert platforms.runs_folder() == places / "mine"


def test_colab_without_drive_is_said_by_the_doctor_and_by_train(places, picture_folder, monkeypatch, capsys):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "r")
    lines = "\n".join(findings(capsys))
    assert re.search(r"FIX   runs are kept in .*\n      -> .*drive\.mount\('/content/drive'\)", lines)
    monkeypatch.setattr(platforms, "RUNS", places / "kit" / "checkpoints" / "runs")
    flags = ["--nr-filters=4", "--nr-logistic-mix=1", "--image-size=8", "--device=cpu", "--epochs=1"]
    assert main(["train", "--run=r", "--dataset=folder", f"--data-root={picture_folder}", *flags]) == 0
    assert "warning: runs are kept in" in capsys.readouterr().out
    (places / "colab_drive").mkdir()
    assert not any("FIX   runs" in line for line in findings(capsys))


def test_a_run_of_an_earlier_kaggle_session_goes_on(places, picture_folder, monkeypatch):
    """/kaggle/input is read-only: the run is copied from it."""
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    attached = places / "kaggle_input" / "my-notebook" / "runs" / "mine"
    model_config, config = tiny(picture_folder, epochs=1)
    train(model_config, config, attached)
    before = {path.name: path.read_bytes() for path in attached.iterdir()}
    folder = train(model_config, replace(config, epochs=2), "mine", resume=True)
    assert folder == places / "kaggle_working" / "runs" / "mine"
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    assert {path.name: path.read_bytes() for path in attached.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]


def test_the_course_data_attached_on_kaggle_is_found(places, course_data, monkeypatch):
    monkeypatch.delenv("CPEN455_ROOT", raising=False)
    monkeypatch.setattr(data, "FOLDER", places / "empty" / "kit" / "data")
    attached = places / "kaggle_input" / "some" / "depth"
    attached.parent.mkdir(parents=True)
    course_data.rename(attached)
    assert platforms.find_root("cpen455") == attached
    assert len(data.load_split("cpen455", "test", platforms.find_root("cpen455"))) == 5
    assert platforms.find_root("cpen455", "mine") == "mine" and platforms.find_root("cartoons") is None


def test_a_gpu_that_is_listed_but_does_not_work(monkeypatch, capsys):
    """As a P100 under current builds: it is there, and no kernel runs on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _number: "Tesla P100-PCIE-16GB")
    convolve = device.try_convolution

    def try_convolution(where):
        if where.type == "cuda":
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
        convolve(where)

    monkeypatch.setattr(device, "try_convolution", try_convolution)
    monkeypatch.setattr(doctor, "try_convolution", try_convolution)
    assert device.pick_device() == torch.device("cpu")
    assert "cuda is listed but does not work (CUDA error: no kernel image" in capsys.readouterr().out
    lines = "\n".join(findings(capsys))
    assert "device cpu" in lines and re.search(r"FIX   GPU 0: Tesla P100.*\n      -> choose another", lines)


def test_the_doctor_reads_the_shipped_weights(capsys, monkeypatch, tmp_path):
    """An empty file, a pointer to one elsewhere, and one that is cut off are none."""
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path)
    for name in checkpoints.SHIPPED:
        save_small_model(tmp_path / f"{name}.safetensors", 2)
    assert any(line.startswith("ok    shipped weights") for line in findings(capsys))
    whole = (tmp_path / "cpen455.safetensors").read_bytes()
    for content in (b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", whole[:-4]):
        (tmp_path / "cpen455.safetensors").write_bytes(content)
        lines = "\n".join(findings(capsys))
        assert re.search(r"FIX   shipped weights: .*; missing or damaged: cpen455\n", lines), lines


def test_the_doctor_says_what_is_wrong_with_the_inception_weights(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("FID_INCEPTION", str(tmp_path / "nothing.pth"))
    assert f"FIX   FID is left out: $FID_INCEPTION names {tmp_path / 'nothing.pth'}" in "\n".join(findings(capsys))
    monkeypatch.delenv("FID_INCEPTION")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert "ok    FID is left out: no Inception weights" in findings(capsys)


@pytest.mark.parametrize("name", ["a**b", "[x]", "what?", "*"])
def test_a_runs_name_is_no_pattern(places, name, monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    attached = places / "kaggle_input" / "n" / "runs"
    for run in (name, "x", "whatx", "ab"):
        (attached / run).mkdir(parents=True)
    (attached / "x" / "config.json").write_text("other")
    (attached / "whatx" / "config.json").write_text("other")
    assert not platforms.find_run(name).exists()
    (attached / name / "config.json").write_text("its own")
    assert (platforms.find_run(name) / "config.json").read_text() == "its own"
