"""Where am I, and what the doctor says of it."""

import re

import pytest

from utils import checkpoints, runtime


def findings(capsys) -> list[str]:
    runtime.doctor()
    return capsys.readouterr().out.splitlines()


def test_the_doctor_finds_nothing_wrong_here(capsys, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    lines = findings(capsys)
    assert not [line for line in lines if line.startswith("MEND") and "disk" not in line]
    assert any("device" in line and "precision" in line for line in lines)


def test_the_doctor_never_shows_the_key(capsys, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "sesame-open-up")
    lines = findings(capsys)
    assert any("W&B key found" in line for line in lines) and "sesame" not in "".join(lines)


def test_the_doctor_says_how_to_mend(capsys, monkeypatch, tmp_path):
    version = runtime.importlib.metadata.version
    monkeypatch.setattr(
        runtime.importlib.metadata, "version", lambda name: "1.18.0" if name == "scipy" else version(name)
    )
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path)
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert not runtime.doctor()
    text = capsys.readouterr().out
    for what, how in {
        "scipy 1.18.0": "scipy<1.18",
        "shipped weights: none": "git checkout checkpoints",
        "utils is": "first on sys.path",
    }.items():
        assert re.search(rf"MEND  {what}.*\n      -> .*{how}", text), text


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
    assert runtime.platform_name() == expected
