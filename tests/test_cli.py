"""Every command once, and every wrong input: one line on standard error, status 2, nothing half-written."""

import json
import os
import pickle
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import save_small_model, small_model
from PIL import Image
from safetensors.torch import save_file
from scipy.stats import binomtest

from kit.__main__ import COMMANDS, build_parser, main
from kit.commands import Parser, add_flags, call
from kit.commands.generate import read_classes
from kit.runs import sole_writer
from kit.wandb_log import MODES
from utils import UsageError, checkpoints
from utils.data import CPEN455_CLASSES, DATASETS
from utils.fusion import SITES
from utils.training import PRESETS

TINY = ["--nr-filters=4", "--nr-resnet=1", "--nr-logistic-mix=1", "--image-size=8", "--device=cpu"]


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch) -> Path:
    """Runs land in a folder of the test's own."""
    monkeypatch.setattr(checkpoints, "FOLDER", tmp_path / "checkpoints")
    monkeypatch.setenv("PIXELCNN_RUNS", str(tmp_path / "checkpoints" / "runs"))
    return tmp_path / "checkpoints" / "runs"


def train(folder, *flags) -> int:
    return main(["train", "--dataset", "folder", "--data-root", str(folder), *TINY, "--epochs", "1", *flags])


@pytest.fixture
def weights(tmp_path) -> Path:
    model = small_model(torch.float32, num_classes=2)
    model.class_names = ("dark", "light")
    checkpoints.save_model(model, tmp_path / "two.safetensors")
    return tmp_path / "two.safetensors"


def test_python_dash_m_kit_says_at_once_what_it_can_do():
    """Without PyTorch, which takes a second to import."""
    code = "import runpy, sys; sys.modules['torch'] = None; sys.argv[1:] = ['--help']; "
    command = [sys.executable, "-c", code + "runpy.run_module('kit', run_name='__main__')"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=True)
    assert all(f"\n    {name}" in done.stdout for name in COMMANDS) and "  train a model\n" in done.stdout


@pytest.mark.parametrize("command", ["demo", "train", "evaluate", "generate", "classify"])
def test_help_of_each_command(command, capsys):
    with pytest.raises(SystemExit) as leaving:
        main([command, "--help"])
    assert leaving.value.code == 0 and "--device" in capsys.readouterr().out


def test_every_flag_of_every_command_has_a_sentence_and_no_other_words():
    """It is the docstring's, so that a field's name in it is one that people can type."""
    (commands,) = (action for action in build_parser()._actions if action.dest == "command")
    assert set(commands.choices) == set(COMMANDS)
    for name, command in commands.choices.items():
        assert command.description and command.format_help().startswith(f"usage: python -m kit {name}")
        for action in command._actions[1:]:  # the first is --help
            assert len(action.help) > 5 and "`" not in action.help and "  " not in action.help, (name, action.dest)
    train = commands.choices["train"].format_help()
    for word in (*DATASETS, *SITES, *PRESETS, *MODES, "cosine", "muon", "bfloat16"):
        assert word in train, word


def test_flags_are_what_a_signature_says(capsys):
    """Positional, required, several times, yes or no; the sentence as written, its name and its default beside it."""

    @dataclass
    class Options:
        """Words.

        Args:
            kind: what it is,
                on two lines.
        """

        kind: str = "plain"

    def command(
        first: str, /, needed: str, options: Options, yes: bool = False, again: tuple[str, ...] = (), times: int = 0
    ) -> None:
        """Do it.

        Args:
            first: of all.
            needed: 5 % of `all`.
            yes: or no.
            again: and again.
            times: how often.

        Raises:
            needed: never.
        """
        seen.append((first, needed, options.kind, yes, again))

    seen: list = []
    parser = Parser(prog="p")
    add_flags(parser, command)
    call(command, vars(parser.parse_args(["7", "--needed=x", "--yes", "--again", "a", "--again=b"])))
    call(command, vars(parser.parse_args(["7", "--needed=x", "--kind", "odd", "--no-yes"])))
    assert seen == [("7", "x", "plain", True, ["a", "b"]), ("7", "x", "odd", False, [])]
    with pytest.raises(UsageError, match="required: --needed"):
        parser.parse_args(["7"])
    said = " ".join(parser.format_help().split())
    assert "--times N how often. (default: 0)" in said
    assert "what it is, on two lines. (default: plain)" in said and "5 % of all." in said and "never" not in said


def test_the_old_command_says_where_it_went():
    command = [sys.executable, "-m", "utils", "train", "--run", "mine"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "python -m kit" in done.stderr


def test_a_missing_package_is_named(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert_refused(
        capsys, ["data", "cpen455", "--root", tmp_path / "new"], "package 'pooch' is missing: ", "-m pip install -r "
    )
    (tmp_path / "s.yaml").touch()
    for absent, command in (("scipy", ["demo", *TINY, "--epochs", "1", "--train-limit", "8"]), ("yaml", ["sweep"])):
        code = f"import sys; sys.modules[{absent!r}] = sys.modules[{absent + '.stats'!r}] = None; "
        code += "from kit.__main__ import main; sys.exit(main(sys.argv[1:]))"
        words = {"demo": command, "sweep": ["sweep", str(tmp_path / "s.yaml")]}[command[0]]
        for given, status in ((words, 2), (["--help"], 0)):  # only the command that needs it
            start = [sys.executable, "-c", code, *given]
            done = subprocess.run(start, capture_output=True, text=True, cwd=Path(__file__).parents[1])
            assert done.returncode == status, done.stderr
            assert (f"package '{absent}' is missing" in done.stderr) == bool(status)


def test_demo(runs, capsys):
    assert main(["demo", *TINY, "--epochs", "1", "--train-limit", "64"]) == 0
    said = capsys.readouterr().out
    assert "test split, 500 pictures" in said and "accuracy" in said and "macro F1" in said and "type next" in said
    with Image.open(runs / "demo" / "gallery.png") as picture:
        assert picture.width > picture.height > 4 * 8
    assert main(["demo", *TINY, "--epochs", "1", "--train-limit", "32"]) == 0  # a second demo replaces the first
    assert json.loads((runs / "demo" / "config.json").read_text())["pictures"] == 32
    assert [path.name for path in runs.iterdir()] == ["demo"]


@pytest.fixture
def demo_before(runs) -> Path:
    (runs / "demo").mkdir(parents=True)
    save_small_model(runs / "demo" / "best.safetensors", 4)
    return runs / "demo"


@pytest.mark.parametrize(
    "flags,word",
    [
        *((["--device=cuda"], "cuda"), (["--init=nope"], "no weights found for 'nope'")),
        *((["--init=demo"], "others: dark, light"), (["--time-limit=0s"], "the demo was stopped")),
    ],
)
def test_a_demo_that_does_not_end_leaves_the_one_before(demo_before, capsys, monkeypatch, flags, word):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["demo", *TINY, "--epochs=1", "--train-limit=32", *flags]) == 2
    said, wrong = capsys.readouterr()
    assert wrong.count("\n") == 1 and word in wrong
    assert "training on" not in said or flags[0] not in ("--device=cuda", "--init=nope")
    assert [path.name for path in demo_before.parent.iterdir()] == ["demo"]
    assert [path.name for path in demo_before.iterdir()] == ["best.safetensors"]


def test_two_demos_at_once(demo_before, capsys):
    with sole_writer(demo_before):
        assert_refused(capsys, ["demo", *TINY, "--epochs=1"], "another process trains")
    assert [path.name for path in demo_before.iterdir()] == ["best.safetensors"]


def test_train_and_resume(runs, picture_folder, capsys):
    assert train(picture_folder, "--run", "mine") == 0
    assert train(picture_folder, "--run", "mine", "--resume", "--epochs", "3") == 0
    said = capsys.readouterr().out
    assert [f"epoch {n:3d}" in said for n in (1, 2, 3)] == [True] * 3 and "bits/dim" in said
    assert len((runs / "mine" / "metrics.jsonl").read_text().splitlines()) == 3
    assert main(["train", "--run", "mine", "--resume"]) == 0  # all is done: nothing to do, no error
    assert len((runs / "mine" / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_run_that_began_as_paper_goes_on(runs, picture_folder, capsys):
    """config.json holds values, not names; before RunConfig came, they stood in another order."""
    words = ["--run", "old", "--seed", "3", "--flip"]
    assert train(picture_folder, *words, "--preset", "report") == 0
    config = json.loads((runs / "old" / "config.json").read_text())
    config["train"] = dict(sorted(config["train"].items()))
    (runs / "old" / "config.json").write_text(json.dumps(config))
    more = [*words, "--preset", "paper", "--fusion", "paper", "--resume", "--epochs", "2"]
    assert train(picture_folder, *more) == 0
    assert len((runs / "old" / "metrics.jsonl").read_text().splitlines()) == 2
    assert_refused(capsys, ["train", "--run", "new", "--preset", "paper"], "choose from report, starter, original")


def test_evaluate(weights, picture_folder, capsys):
    where = ["--checkpoint", str(weights), "--dataset", "folder", "--data-root", str(picture_folder)]
    assert main(["evaluate", *where]) == 0
    said = capsys.readouterr().out
    assert "folder validation split, 6 pictures" in said and "dark" in said
    accuracy, low, high = (float(share) for share in re.findall(r"([\d.]+)%", said.splitlines()[2]))
    interval = binomtest(round(accuracy / 100 * 6), 6).proportion_ci(method="wilson")
    assert [low, high] == [round(100 * end, 1) for end in interval] and "of 6, 95 % interval" in said
    assert main(["evaluate", *where]) == 0
    assert capsys.readouterr().out == said, "the same checkpoint gives the same numbers"
    assert main(["evaluate", *where, "--mirror", "--calibrate", "4"]) == 0
    with_all = capsys.readouterr().out
    assert "mirrored pictures" in with_all and "fitted on 4 training pictures" in with_all
    assert with_all.splitlines()[1] == said.splitlines()[1], "bits per dimension are of the pictures as they are"
    assert main(["evaluate", *where, "--ensemble", str(weights)]) == 0
    with_itself = capsys.readouterr().out
    assert with_itself.splitlines()[1:] == said.splitlines()[1:], "a mean of equals"
    assert main(["evaluate", *where, "--prior", "1,0"]) == 0  # a certain prior decides alone
    rows = capsys.readouterr().out.splitlines()[-2:]
    assert [row.split()[-2:] for row in rows] == [["3", "0"], ["3", "0"]]


def test_evaluate_against_others(weights, picture_folder, tmp_path, capsys):
    """Plainly is without mirror, prior and ensemble; labels meet by class name, pictures at each model's own size."""
    where = ["--checkpoint", str(weights), "--dataset", "folder", "--data-root", str(picture_folder)]
    assert main(["evaluate", *where]) == 0
    alone = capsys.readouterr().out.splitlines()
    assert main(["evaluate", *where, "--against", str(weights)]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    both = f"right alone: {weights} as above 0, {weights} plainly 0 of 6; sign test p = 1.00"
    assert lines == alone and last == f"paired comparison   {both}"
    assert main(["evaluate", *where, "--prior=1,0", "--mirror", "--calibrate=4", "--against", str(weights)]) == 0
    said = capsys.readouterr().out
    recall = [float(alone[-2:][n].split()[1].strip("%")) / 100 for n in (0, 1)]
    first, second = 3 - round(3 * recall[0]), round(3 * recall[1])  # all are taken for the first class
    assert f"right alone: {weights} as above {first}, {weights} plainly {second} of 6" in said

    other = small_model(torch.float32, num_classes=2, image_size=16)
    other.class_names = ("light", "dark")
    checkpoints.save_model(other, tmp_path / "other.safetensors")
    where[1] = str(tmp_path / "other.safetensors")
    assert main(["evaluate", *where]) == 0
    others = capsys.readouterr().out
    where[1] = str(weights)
    assert main(["evaluate", *where, "--against", str(tmp_path / "other.safetensors")]) == 0
    found = re.search(r"right alone: .* as above (\d), .* plainly (\d) of 6", capsys.readouterr().out)
    right = [round(6 * float(re.search(r"accuracy +([\d.]+)%", text)[1]) / 100) for text in ("\n".join(alone), others)]
    assert int(found[1]) - int(found[2]) == right[0] - right[1]


def test_evaluate_without_labels(course_data, tmp_path, capsys):
    checkpoints.save_model(small_model(torch.float32, num_classes=4), tmp_path / "four.safetensors")
    where = [
        "--checkpoint",
        str(tmp_path / "four.safetensors"),
        "--dataset",
        "cpen455",
        "--data-root",
        str(course_data),
    ]
    assert main(["evaluate", *where, "--split", "test"]) == 0
    assert "no label is known" in capsys.readouterr().out
    against = ["evaluate", *where, "--split", "test", "--against", where[1]]
    assert_refused(capsys, against, "--against", "no label of the cpen455 test split is known")


def test_generate(weights, tmp_path, capsys):
    flags = ["generate", "--checkpoint", str(weights), "--per-class", "2"]
    assert main([*flags, "--out", str(tmp_path / "a")]) == 0
    names = {f"Class{c}_image_{n:02d}.png" for c in (0, 1) for n in (1, 2)} | {"gallery.png"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == names
    assert main([*flags, "--out", str(tmp_path / "b")]) == 0
    assert main([*flags, "--out", str(tmp_path / "c"), "--seed", "1"]) == 0
    content = {folder: [(tmp_path / folder / name).read_bytes() for name in sorted(names)] for folder in "abc"}
    assert content["a"] == content["b"] != content["c"]
    assert main([*flags, "--out", str(tmp_path / "d"), "--classes", "light"]) == 0
    assert sorted(p.name[:6] for p in (tmp_path / "d").glob("Class*")) == ["Class1", "Class1"]


def test_which_classes_are_meant():
    """A name before a number, with or without spaces."""
    folders = ("1", "10", "2", "cat", " dog", "a,b", "caf\u00e9")
    for text, labels in {
        "1": [0],
        "10,2": [1, 2],
        "0,3": [0, 3],
        "cat, dog": [3, 4],
        "cat ,cat": [3, 3],
        " cat": [3],
        "a,b": [5],
        '"a,b",cat': [5, 3],
        "caf\u00e9,cafe\u0301": [6, 6],
    }.items():
        assert read_classes(text, folders) == labels, text
    assert read_classes(None, folders) == [0, 1, 2, 3, 4, 5, 6]
    many = tuple(f"class{i}" for i in range(300))
    with pytest.raises(UsageError, match=r"'dog': choose from class0, .*class9 and 290 more$"):
        read_classes("class299,dog", many)


def test_classify(weights, picture_folder, capsys):
    files = [str(path) for path in sorted((picture_folder / "test").rglob("*.png"))]
    assert main(["classify", "--checkpoint", str(weights), *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and all(line.startswith(file) for line, file in zip(lines, files, strict=True))


# wrong inputs


def assert_refused(capsys, arguments, *words):
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and "Traceback" not in said.err
    assert all(word in said.err for word in words), said.err


def test_status_and_standard_error_of_the_process():
    command = [sys.executable, "-m", "kit", "evaluate", "--checkpoint", "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: no weights found for 'nothing'") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "flags,word",
    [
        (["--preset", "nonsense"], "unknown preset 'nonsense'"),
        (["--fusion", "nowhere"], "unknown fusion site 'nowhere'"),
        (["--batch-size", "0"], "batch_size must be at least 1"),
        (["--batch-size", "many"], "invalid int value"),
        (["--dataset", "nothing"], "unknown data set 'nothing'"),
        (["--dataset", "cpen455", "--data-root", "/nowhere"], "'cpen455' not found"),
        (["--device", "abacus"], "device 'abacus'"),
        (["--precision", "int3"], "unknown precision 'int3'"),
        (["--image-size", "30"], "divisible by 4"),
        (["--schedule", "linear"], "unknown schedule"),
        (["--resume"], "no run 'new' to resume"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_wrong_settings_of_train(runs, picture_folder, capsys, flags, word):
    base = ["train", "--dataset", "folder", "--data-root", picture_folder, *TINY, "--run", "new"]
    assert_refused(capsys, [*base, *flags], word)
    assert not (runs / "new").exists()


@pytest.mark.parametrize(
    "name", ["../outside", "/absolute", "", ".", "..", "a/b/c", "a/..", "../a", "a//", "demo", "demo/a"]
)
def test_a_runs_name_is_a_name(picture_folder, capsys, name):
    base = ["train", "--dataset", "folder", "--data-root", picture_folder, *TINY]
    assert_refused(capsys, [*base, f"--run={name}"], "--run")


def test_a_run_that_exists_is_not_overwritten(runs, picture_folder, capsys):
    assert train(picture_folder, "--run", "mine") == 0
    before = {path.name: path.read_bytes() for path in (runs / "mine").iterdir()}
    base = ["train", "--dataset", "folder", "--data-root", picture_folder, *TINY, "--run", "mine"]
    assert_refused(capsys, base, "exists already")
    assert_refused(capsys, [*base, "--resume", "--nr-filters", "5"], "began with nr_filters = 4")
    (runs / "mine" / "config.json").write_text("{")
    assert_refused(capsys, ["train", "--run", "mine", "--resume"], "config.json is damaged")
    (runs / "mine" / "config.json").write_bytes(before["config.json"])
    assert {path.name: path.read_bytes() for path in (runs / "mine").iterdir()} == before


@pytest.mark.parametrize(
    "row,word",
    [
        ("train/nothing.jpg,1", "no file train/nothing.jpg"),
        ("train/0000001.jpg,1,2", "expected 2 columns"),
        ("train/0000001.jpg,panda", "not a whole number"),
        ("train/0000001.jpg,4", "not in -1 ... 3"),
    ],
)
def test_spoilt_table(runs, course_data, capsys, row, word):
    with open(course_data / "train.csv", "a") as table:
        table.write(row + "\n")
    base = ["train", "--dataset", "cpen455", "--data-root", course_data, *TINY, "--run", "new"]
    assert_refused(capsys, base, "train.csv, row 13", word)
    assert not (runs / "new").exists()


def test_truncated_picture_is_named(course_data, tmp_path, capsys):
    picture = next((course_data / "validation").iterdir())
    picture.write_bytes(picture.read_bytes()[:200])
    checkpoints.save_model(small_model(torch.float32, num_classes=4), tmp_path / "four.safetensors")
    where = ["--checkpoint", tmp_path / "four.safetensors", "--dataset", "cpen455", "--data-root", course_data]
    assert_refused(capsys, ["evaluate", *where], picture.name)
    assert_refused(capsys, ["classify", "--checkpoint", tmp_path / "four.safetensors", picture], picture.name)


class Bomb:
    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("kind", ["truncated", "pickle", "text", "other architecture", "missing"])
def test_wrong_checkpoints(weights, tmp_path, capsys, kind):
    proof = tmp_path / "executed"
    if kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif kind == "pickle":
        weights.write_bytes(pickle.dumps(Bomb(proof)))
    elif kind == "text":
        weights.write_text("no weights, but a text that is long enough to be read as a header")
    elif kind == "other architecture":
        save_file({"weight": torch.zeros(3)}, weights)
    else:
        weights.unlink()
    for command in (["evaluate"], ["generate", "--out", tmp_path / "out"], ["classify", "x.png"]):
        assert_refused(capsys, [command[0], "--checkpoint", weights, *command[1:]], str(weights))
    assert not proof.exists() and not (tmp_path / "out").exists()


def test_wrong_settings_of_the_others(weights, picture_folder, tmp_path, capsys):
    model = ["--checkpoint", weights]
    assert_refused(capsys, ["evaluate", *model, "--dataset", "cartoons"], "burger", "others: dark, light")
    assert_refused(capsys, ["evaluate", *model, "--split", "exam"], "unknown split 'exam'")
    assert_refused(capsys, ["evaluate", *model, "--prior", "1,2,3"], "prior must be 2 numbers", "3 are given")
    assert_refused(capsys, ["evaluate", *model, "--prior", "much"], "--prior must be 2 numbers")
    assert_refused(capsys, ["evaluate", *model, "--calibrate", "-1"], "--calibrate must not be negative")
    assert_refused(capsys, ["evaluate", *model, "--batch-size", "0"], "batch_size must be at least 1")
    other = save_small_model(tmp_path / "three.safetensors", 3)
    assert_refused(
        capsys, ["evaluate", *model, "--ensemble", other], f"--ensemble {other} has others: dark, light, other"
    )
    where = [*model, "--dataset", "folder", "--data-root", picture_folder]
    assert_refused(capsys, ["evaluate", *where, "--against", "nothing"], "no weights found for 'nothing'")
    assert_refused(
        capsys, ["evaluate", *where, "--against", other], f"--against {other} has others: dark, light, other"
    )
    assert_refused(capsys, ["classify", *model, tmp_path / "nothing.png"], "nothing.png")
    assert_refused(capsys, ["generate", *model, "--out", tmp_path / "out", "--classes", "cat"], "unknown class 'cat'")
    assert_refused(capsys, ["generate", *model, "--out", tmp_path / "out", "--classes", ""], "unknown class ''")
    assert_refused(capsys, ["generate", *model, "--out", tmp_path / "out", "--per-class", "0"], "--per-class")
    assert_refused(capsys, ["generate", *model, "--out", tmp_path / "out", "--temperature", "-1"], "temperature")
    assert_refused(capsys, ["generate", *model, "--out", picture_folder], "not empty")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("absent", ["filelock", "tqdm", "PIL", "torch", "numpy", "safetensors"])
def test_a_package_without_which_nothing_works_is_named(absent):
    code = f"import runpy, sys; sys.modules[{absent!r}] = None; runpy.run_module('kit', run_name='__main__')"
    start = [sys.executable, "-c", code, "train", "--run", "mine"]
    done = subprocess.run(start, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    *before, last = done.stderr.splitlines()
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr, done.stderr
    assert not before or absent == "numpy", "PyTorch has a warning of its own"
    assert f"package {absent!r} is missing" in last and "pip install -r requirements.txt" in last


@pytest.mark.parametrize(
    "error, words",
    [
        (PermissionError(13, "Permission denied", "/shut/x"), "error: /shut/x: Permission denied"),
        (OSError(28, "No space left on device"), "error: No space left on device"),
        (OSError("odd\nthings"), "error: odd things"),
        (MemoryError(), "not enough memory: ask for fewer pictures at once"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "not enough memory"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), "not enough memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            "not enough memory",
        ),
        (ImportError("DLL load failed", name="torch._C"), "package 'torch' does not work here (DLL load failed)"),
    ],
)
def test_what_this_machine_refuses_is_one_line(capsys, monkeypatch, weights, error, words):
    def refuse(*_args):
        raise error

    monkeypatch.setattr("kit.classifier.load_model", refuse)
    assert_refused(capsys, ["evaluate", "--checkpoint", weights], words)


def test_a_fault_of_the_kit_is_not_hidden(monkeypatch, weights):
    monkeypatch.setattr("kit.classifier.load_model", lambda *_args: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        main(["evaluate", "--checkpoint", str(weights)])


@pytest.mark.parametrize("words", ["--help", "classify --checkpoint cartoons data/README.md", "evaluate"])
def test_a_reader_that_has_gone_is_no_error(words):
    """As `| head` does; standard output is a pipe that nobody reads any more."""
    command = [sys.executable, "-m", "kit", *words.split()]
    reader, writer = os.pipe()
    os.close(reader)
    how: dict = {"cwd": Path(__file__).parents[1], "env": os.environ | {"PYTHONUNBUFFERED": ""}}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, **how)
    os.close(writer)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
    assert done.returncode == (141 if words == "--help" else 2)


@pytest.mark.parametrize("module", ["kit", "kit.publish", "benchmarks", "benchmarks.gpu", "notebooks.build"])
def test_letters_that_the_output_lacks_are_numbered(module):
    code = "import runpy, sys; sys.argv = ['x', 'cat-\u732b', '--\u732b']\ntry:\n    runpy.run_module("
    code += f"{module!r}, run_name='__main__')\nexcept SystemExit:\n    pass\nprint('\u732b')"
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    start = [sys.executable, "-c", code]
    done = subprocess.run(start, capture_output=True, text=True, cwd=Path(__file__).parents[1], env=environment)
    assert done.returncode == 0 and done.stdout == "\\u732b\n" and "Traceback" not in done.stderr, done.stderr


def test_numbers_and_names_that_nobody_means(weights, picture_folder, tmp_path, capsys, runs):
    model, out = ["--checkpoint", weights], ["--out", tmp_path / "out"]
    where = ["--dataset", "folder", "--data-root", picture_folder]
    far = 10**30
    assert_refused(capsys, ["evaluate", *model, *where, "--batch-size", far], f"--batch-size: {far} is far too large")
    assert_refused(capsys, ["generate", *model, *out, "--per-class", far], "--per-class")
    for seed in (-1, 2**64):
        assert_refused(capsys, ["generate", *model, *out, f"--seed={seed}"], "seed must be 0 to 18446744073709551615")
        words = ["course-export", tmp_path / "out", "--checkpoint", "nothing", f"--seed={seed}"]
        assert_refused(capsys, words, "seed must be 0 to")
        assert_refused(capsys, ["train", "--run=r", *where, f"--seed={seed}"], "seed must be 0 to")
    for number in ("inf", "nan", "-0.1"):
        for what in ("temperature", "guidance"):
            assert_refused(capsys, ["generate", *model, *out, f"--{what}={number}"], f"{what} must not be")
    for prior in ("inf,1", "nan,1", "3e38,3e38"):
        assert_refused(capsys, ["evaluate", *model, *where, "--prior", prior], "prior must be 2 numbers")
    for field in ("hybrid", "grad-clip"):
        words = f"{field.replace('-', '_')} must be at least 0 and finite, not inf"
        assert_refused(capsys, ["train", "--run=r", *where, f"--{field}=inf"], words)
    assert_refused(capsys, ["train", *where, "--run=cartoons"], "shipped weights are called so")
    assert not (tmp_path / "out").exists() and not runs.exists()
    assert main([*map(str, ["generate", *model, *out, "--per-class=1", f"--seed={2**64 - 1}"])]) == 0


def test_weights_that_may_not_be_read(weights, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_args: False)  # root may read everything
    assert_refused(capsys, ["evaluate", "--checkpoint", weights], f"{weights} cannot be read")


@pytest.mark.parametrize("closed,status", [("2>&-", 2), (">&-", 2), (">&- 2>&-", 2), ("<&- >&- 2>&-", 2)])
def test_closed_streams_change_no_status(closed, status):
    start = ["sh", "-c", f'exec "$0" -m kit evaluate --checkpoint nothing {closed}', sys.executable]
    done = subprocess.run(start, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == status and done.stdout == "" and "Traceback" not in done.stderr
    assert ("no weights found" in done.stderr) == ("2" not in closed)


@pytest.mark.parametrize(
    "left_over", [{"WORLD_SIZE": ""}, {"WORLD_SIZE": "4"}, {"RANK": "3"}, {"WORLD_SIZE": "4", "RANK": "3"}]
)
def test_what_a_cluster_has_left_in_the_environment_starts_nothing(left_over, capsys, monkeypatch):
    for name, value in left_over.items():
        monkeypatch.setenv(name, value)
    assert_refused(capsys, ["evaluate", "--checkpoint", "nothing"], "no weights found for 'nothing'")


def test_only_a_switch_is_true_or_false():
    parser = build_parser()
    args = parser.parse_args(["train", "--run=true", "--flip=true", "--compile=False", "--no-flip=True"])
    assert (args.run, args.flip, args.compile) == ("true", False, False)
    assert parser.parse_args(["evaluate", "--checkpoint=False"]).checkpoint == "False"
    with pytest.raises(UsageError, match="explicit argument 'maybe'"):
        parser.parse_args(["train", "--flip=maybe"])


def test_where_one_may_not_write_is_said_before_the_work(weights, course_data, tmp_path, capsys, monkeypatch):
    def work(*_args, **_how):
        raise AssertionError("it has begun")

    (tmp_path / "file").touch()
    shut = tmp_path / "file" / "in"
    monkeypatch.setattr("kit.distributed.generate", work)
    monkeypatch.setattr("kit.commands.report.page", work)
    monkeypatch.setattr("kit.commands.report.DIST", shut)
    monkeypatch.setattr("kit.classifier.Classifier.log_likelihoods", work)
    model = ["--checkpoint", weights]
    assert_refused(capsys, ["generate", *model, "--out", shut], f"cannot write into {shut} (Not a directory)")
    assert_refused(capsys, ["report", weights], f"cannot write into {shut}")
    course = small_model(torch.float32, num_classes=4)
    course.class_names = CPEN455_CLASSES
    checkpoints.save_model(course, tmp_path / "course.safetensors")
    whose = ["--checkpoint", tmp_path / "course.safetensors", "--data-root", course_data]
    assert_refused(capsys, ["submit", *whose, "--out", shut / "a.csv"], f"cannot write into {shut}")
    with pytest.raises(AssertionError, match="it has begun"):
        main([*map(str, ["generate", *model, "--out", tmp_path / "new" / "out"])])
    assert not (tmp_path / "new").exists()


def test_a_kernel_starts_without_a_word(tmp_path, capfd):
    import nbformat

    from notebooks import build

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(6 * 7)")])
    build.execute(notebook, tmp_path, timeout=60)
    assert notebook.cells[0].outputs[0].text == "42\n" and "WARNING" not in capfd.readouterr().err
