"""Sweeps: the grid as W&B makes it, runs that go on where they were left, and a table that says what they came to."""

import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image

from kit import sweep
from kit.__main__ import build_parser, main
from kit.commands import given, spelled_our_way
from kit.commands.train import name_by_wandbs_agent
from kit.runs import StopRequest, run_configs
from utils.fusion import SITES, parse_sites

REPOSITORY = Path(__file__).parents[1]
SHIPPED = sorted((REPOSITORY / "sweeps").glob("*.yaml"))


@pytest.fixture
def kit(tmp_path) -> Path:
    """A copy of the package, so that its runs land in a folder of the test's own."""
    for package in ("utils", "kit"):
        shutil.copytree(REPOSITORY / package, tmp_path / "kit" / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "kit"


def write_sweep(kit: Path, pictures: Path, **parameters) -> None:
    values = {"dataset": "folder", "data_root": str(pictures), "preset": "starter", "device": "cpu", "image_size": 8}
    values |= {"nr_filters": 2, "nr_resnet": 1, "nr_logistic_mix": 1, "epochs": 2, "precision": "float32"} | parameters
    choices = {name: {"values" if isinstance(value, list) else "value": value} for name, value in values.items()}
    (kit / "tiny.yaml").write_text(yaml.safe_dump({"method": "grid", "parameters": choices}, sort_keys=False))


def start(kit: Path, *flags: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "kit", "sweep", "tiny.yaml", *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=kit, env=environment, stdout=pipe, stderr=pipe, text=True)


def run(kit: Path, *flags: str) -> tuple[int, str, str]:
    process = start(kit, *flags)
    said, complained = process.communicate(timeout=300)
    return process.returncode, said, complained


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_sweep_goes_on_after_a_failure_and_runs_nothing_twice(kit, picture_folder):
    write_sweep(kit, picture_folder, device=["abacus", "cpu"], seed=[3])
    folder = kit / "checkpoints" / "runs" / "tiny"
    for finished in (0, 1):
        status, said, complained = run(kit)
        assert status == 1 and f"2 points, {finished} of them finished" in said
        assert complained.count("error: device 'abacus'") == 1
        assert complained.splitlines()[-1] == "failed: device=abacus,seed=3 (exit status 2); its messages are above"
        assert ("[2/2] device=cpu,seed=3" in said) == (finished == 0)
        best = min(metrics(folder / "device=cpu,seed=3"), key=lambda line: line["validation_bpd"])
        row = f"| device=cpu | {best['validation_bpd']:.3f} | {100 * best['validation_accuracy']:.1f} | 1 |"
        assert row in said and row in (folder / "table.md").read_text() and "device=abacus |" not in said


def test_the_table_and_the_figure(tmp_path, capsys):
    grid = {"seed": [0, 1, 2], "fusion": ["none", "film,late"], "epochs": [2]}
    bits = {"none": (4.5, 4.25, 4.75), "film,late": (3.0, 3.0, 3.6)}
    done = {sweep.run_name(point, grid): point for point in sweep.points(grid)}
    del done["fusion=film+late,seed=2"]  # not finished yet
    for name, point in done.items():
        best = {"epoch": 2, "validation_bpd": bits[point["fusion"]][point["seed"]], "validation_accuracy": 0.5}
        others = {"epoch": 1, "validation_bpd": 7.0}, {"epoch": 3, "validation_bpd": 5.0, "validation_accuracy": 0.9}
        lines = [best | others[0], best, best | others[1]]
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sweep.summarise(tmp_path, grid, done)
    table = (tmp_path / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert table.splitlines()[2:4] == [
        "| fusion=none | 4.500 ± 0.250 | 50.0 ± 0.0 | 3 |",
        "| fusion=film,late | 3.000 ± 0.000 | 50.0 ± 0.0 | 2 |",
    ]
    with Image.open(tmp_path / "figure.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(2**24)}
    assert (0, 0, 0) in colours and len(colours) > 10


def test_the_averages_over_all_parameters_but_one(tmp_path):
    grid = {"seed": [0, 1], "lr": [0.1, 0.2], "flip": [False, True]}
    done = {sweep.run_name(point, grid): point for point in sweep.points(grid)}
    for name, point in done.items():
        bits = 3 + point["seed"] / 4 + point["flip"] + (point["lr"] == 0.2) / 2
        line = {"epoch": 1, "validation_bpd": bits, "validation_accuracy": 0.5 + point["flip"] / 4}
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    sweep.summarise(tmp_path, grid, done)
    assert (tmp_path / "table.md").read_text().splitlines()[11:15] == [
        "| lr=0.1 | 3.625 ± 0.177 | 62.5 ± 0.0 | 2 |",
        "| lr=0.2 | 4.125 ± 0.177 | 62.5 ± 0.0 | 2 |",
        "| flip=False | 3.375 ± 0.177 | 50.0 ± 0.0 | 2 |",
        "| flip=True | 4.375 ± 0.177 | 75.0 ± 0.0 | 2 |",
    ]
    del done["lr=0.2,flip=True,seed=1"]  # with one missing the others are not comparable
    sweep.summarise(tmp_path, grid, done)
    assert "averaged" not in (tmp_path / "table.md").read_text()


def test_a_sweep_that_is_stopped_goes_on(kit, picture_folder):
    write_sweep(kit, picture_folder, epochs=2000, checkpoint_every=2000, seed=[0, 1])
    process = start(kit)
    running = kit / "checkpoints" / "runs" / "tiny" / "all,seed=0"
    deadline = time.monotonic() + 200
    while not (running / "metrics.jsonl").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=200)
    assert process.returncode == 130 and "[2/2]" not in said
    assert complained.splitlines()[-1] == "stopped; the same command goes on"
    done = metrics(running)
    assert len(done) < 2000 and (running / "last.pt").exists()

    write_sweep(kit, picture_folder, epochs=len(done) + 1, checkpoint_every=2000, seed=[0])
    status, said, complained = run(kit)
    assert status == 0 and f"epoch {len(done) + 1:3d}" in said and "epoch   1 " not in said
    assert metrics(running)[: len(done)] == done


def test_a_wrong_sweep_is_refused_before_anything_runs(tmp_path, capsys):
    path = tmp_path / "wrong.yaml"
    for text, word in [
        ("{method: grid, parameters: {colour: {value: 3}}}", "unrecognized arguments: --colour=3"),
        ("{method: grid, parameters: {lr: {values: [0.1, -1]}}}", "lr must be above 0"),
        ("{method: grid, parameters: {fusion: {values: [film, flim]}}}", "unknown fusion site 'flim'"),
        ("{method: grid, parameters: {lr: {values: []}}}", "list of at least one"),
        ("{method: grid, parameters: {lr: {min: 0, max: 1}}}", "either `value: …` or `values: […]`"),
        ("{method: grid, parameters: {lr: {values: [0.1, 0.1]}}}", "two points of the grid are the same"),
        ("{method: bayes, parameters: {lr: {value: 1}}}", "method: grid"),
        ("{method: grid}", "no `parameters`"),
        ("{method: grid, parameters: {minutes: {value: 5}}}", "give `epochs`, not `minutes`"),
        ("{method: grid, parameters: {wandb: {value: off}}}", "parameter 'wandb': YAML takes on, off, yes and no"),
        ("{method: grid, parameters: {fusion: {values: [film, no]}}}", "quote it"),
        ("{", "is not YAML"),
        ("[]", "method: grid"),
    ]:
        path.write_text(text)
        assert main(["sweep", str(path)]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and word in said.err, said.err
    assert main(["sweep", str(tmp_path / "nothing.yaml")]) == 2 and "cannot be read" in capsys.readouterr().err
    assert main(["sweep", str(path), "--limit", "0"]) == 2 and "--limit" in capsys.readouterr().err


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_sweeps_run_under_wandbs_agent(path, monkeypatch):
    """The command that wandb's own code makes of each point is one that we take, and means the same as ours."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    monkeypatch.setenv("WANDB_SWEEP_ID", "abcd")
    monkeypatch.setenv("WANDB_RUN_ID", "efgh")
    config = yaml.safe_load(path.read_text())
    assert (REPOSITORY / config["program"]).is_file() and config["metric"]["name"].startswith("validation_")
    assert create_sweep_command(list(config["command"])) == [
        *("${env}", "${interpreter}", "-m", "kit", "train", "${args}")
    ]
    parser = build_parser()
    for point in sweep.points(sweep.read_grid(path)):
        theirs = create_sweep_command_args({"args": {name: {"value": value} for name, value in point.items()}})["args"]
        assert theirs == sweep.flags(point)
        args = parser.parse_args(["train", *theirs])
        model_config, train_config = run_configs(args.preset, 4, **given(vars(args)))
        values = model_config.to_dict() | vars(train_config)
        if "fusion" in point:
            point["fusion"] = list(parse_sites(point["fusion"]))
        assert {name: values[name] for name in point if name != "preset"} == {
            name: value for name, value in point.items() if name != "preset"
        }
        assert args.run is None and name_by_wandbs_agent() == "abcd/efgh"


def test_what_the_shipped_sweeps_compare():
    fusion, report = (sweep.read_grid(REPOSITORY / "sweeps" / f"{name}.yaml") for name in ("fusion", "report"))
    assert len(sweep.points(fusion)) == 39 and len(sweep.points(report)) == 16
    compared = [parse_sites(sites) for sites in fusion["fusion"]]
    assert len(set(compared)) == 13 and all((site,) in compared for site in SITES) and () in compared
    names = [sweep.run_name(point, fusion) for point in sweep.points(fusion)]
    assert len(set(names)) == 39 and names[12] == "fusion=all,seed=0" and "fusion=early+late,seed=2" in names


def test_the_grid_in_its_order():
    grid = {"a": [1, 2], "b": [3], "seed": [5, 6]}
    assert [tuple(point.values()) for point in sweep.points(grid)] == [(1, 3, 5), (1, 3, 6), (2, 3, 5), (2, 3, 6)]
    assert sweep.run_name({"a": "x/../y,z", "b": 3, "seed": 5}, grid) == "a=x-..-y+z,seed=5"


def test_wandbs_spelling_of_flags():
    args = build_parser().parse_args(["train", "--run=x_y", "--nr_filters=7", "--flip=True", "--compile=False"])
    assert (args.run, args.nr_filters, args.flip, args.compile) == ("x_y", 7, True, False)
    assert spelled_our_way("a_file.png") == "a_file.png"


def test_mean_and_spread():
    values = [3.1, 3.4, 3.9]
    deviation = (sum((v - sum(values) / 3) ** 2 for v in values) / 2) ** 0.5
    assert sweep.mean_and_spread(values, 3) == f"{sum(values) / 3:.3f} ± {deviation:.3f}"
    assert sweep.mean_and_spread([2.0], 1) == "2.0" and statistics.stdev([1, 3]) == pytest.approx(2**0.5)


def test_asked_to_stop_between_two_points_no_other_begins():
    with StopRequest(math.inf) as stop:
        signal.raise_signal(signal.SIGTERM)
        assert sweep.run_child(["a command that is not there"], stop) == 130


@pytest.mark.parametrize("name", ["demo.yaml", "Demo.yaml", "my sweep .yaml", "-a.yaml"])
def test_a_file_whose_name_no_run_may_have_is_refused_at_once(tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr(sweep, "run_child", lambda *_args: pytest.fail("it has begun"))
    (tmp_path / name).write_text("{method: grid, parameters: {lr: {value: 0.1}}}")
    assert main(["sweep", str(tmp_path / name)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "rename this file" in said.err and said.err.count("\n") == 1


def test_words_in_quotes_and_switches_stay(tmp_path):
    path = tmp_path / "words.yaml"
    path.write_text("{method: grid, parameters: {wandb: {value: 'off'}, flip: {values: [yes, no]}}}")
    assert sweep.read_grid(path) == {"wandb": ["off"], "flip": [True, False]}
