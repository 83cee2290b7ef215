"""Grids in W&B's sweep format, run here one point after the other; what is finished is not run again."""

import itertools
import math
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from utils import UsageError, checkpoints
from utils.model import ModelConfig

from .console import MAIN
from .metrics import best_epoch
from .platforms import check_name, runs_folder
from .runs import RunConfig, StopRequest, load_state, read_config

SWITCHES = {field.name for config in (ModelConfig, RunConfig) for field in fields(config) if field.type is bool}
Results = dict[str, list[np.ndarray]]  # for each setting its runs: (validation bits, accuracy in percent) of each


def read_grid(path: str | Path) -> dict[str, list]:
    """The parameters of a sweep file and the values of each. Raises UsageError for anything but a grid."""
    import yaml

    try:
        sweep = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; the kit's own sweeps are in sweeps/") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {error}") from None
    if not isinstance(sweep, dict) or sweep.get("method") != "grid":
        raise UsageError(f"{path}: only sweeps with `method: grid` run here; `wandb sweep` runs the others")
    parameters = sweep.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise UsageError(f"{path} has no `parameters`")
    if "minutes" in parameters:
        raise UsageError(f"{path}: runs are compared at the same number of epochs: give `epochs`, not `minutes`")
    grid = {}
    for name, choice in parameters.items():
        if not isinstance(choice, dict) or set(choice) not in ({"value"}, {"values"}):
            raise UsageError(f"{path}: parameter {name!r} needs either `value: …` or `values: […]`")
        grid[name] = choice["values"] if "values" in choice else [choice["value"]]
        if not isinstance(grid[name], list) or not grid[name]:
            raise UsageError(f"{path}: the `values` of parameter {name!r} must be a list of at least one")
        if name not in SWITCHES and any(isinstance(value, bool) for value in grid[name]):
            raise UsageError(f"{path}: parameter {name!r}: YAML takes on, off, yes and no for true and false: quote it")
    return grid


def points(grid: dict[str, list]) -> list[dict]:
    """All combinations, the last parameter changing fastest."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def compared(grid: dict[str, list]) -> list[str]:
    """The parameters that have several values, apart from the seed."""
    return [name for name in grid if len(grid[name]) > 1 and name != "seed"]


def setting(point: dict, grid: dict[str, list]) -> str:
    """What tells a point from the others, apart from its seed: `lr=0.002,nr_filters=40`."""
    return ",".join(f"{name}={point[name]}" for name in compared(grid)) or "all"


def run_name(point: dict, grid: dict[str, list]) -> str:
    """The point's folder. It does not change when the grid grows, so that nothing is run twice."""
    name = setting(point | {k: v.replace(",", "+") for k, v in point.items() if isinstance(v, str)}, grid)
    seed = f",seed={point['seed']}" if "seed" in grid else ""
    return re.sub(r"[^\w.,=+-]", "-", name + seed)


def flags(point: dict) -> list[str]:
    """As W&B's agent writes them for `${args}`."""
    return [f"--{name}={value}" for name, value in point.items()]


def finished(folder: Path, settings: dict) -> bool:
    """Whether the run in `folder` has these settings and has saved its last epoch."""
    try:
        model_config, config = read_config(folder)
        stored = model_config.to_dict() | vars(config)
        same = all(stored[name] == value for name, value in settings.items())
        return same and load_state(folder / "last.pt")["epoch"] >= config.epochs
    except UsageError:  # not begun, or not yet saved
        return False


def run(path: str | Path, settings_of: Callable[[list[str]], dict], limit: int | None = None) -> int:
    """Runs the points of a sweep file that are not finished, at most `limit` of them now; then writes and prints what
    all have come to. -> the exit status: 0, 1 if a point failed, 130 if asked to stop. `settings_of` gives the fields
    of the configs that `train` gets from such flags. Raises UsageError for a wrong file or wrong flags."""
    path = Path(path)
    try:
        check_name(f"{path.stem}/all")
    except UsageError as error:
        raise UsageError(f"{path}: its runs are called after it: rename this file ({error})") from None
    grid = read_grid(path)
    folder = runs_folder() / path.stem
    wanted = {run_name(point, grid): point for point in points(grid)}
    if len(wanted) < len(points(grid)):
        raise UsageError(f"{path}: two points of the grid are the same")
    settings = {name: settings_of(["--run", f"{path.stem}/{name}", *flags(p)]) for name, p in wanted.items()}
    left = [name for name in wanted if not finished(folder / name, settings[name])]
    print(f"{len(wanted)} points, {len(wanted) - len(left)} of them finished, in {folder}", flush=True)

    failed: list[str] = []
    with StopRequest(math.inf) as stop:
        for number, name in enumerate(left[:limit], start=1):
            print(f"\n[{number}/{len(left[:limit])}] {name}", flush=True)
            command = [sys.executable, MAIN, "train", "--run", f"{path.stem}/{name}", *flags(wanted[name])]
            status = run_child(command + ["--resume"] * (folder / name / "config.json").exists(), stop)
            if stop.reason():
                break
            if not finished(folder / name, settings[name]):
                failed.append(f"{name} (exit status {status})")

    done = {name: point for name, point in wanted.items() if finished(folder / name, settings[name])}
    if done:
        summarise(folder, grid, done)
    if stop.reason():
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    for name in failed:
        print(f"failed: {name}; its messages are above", file=sys.stderr)
    return 1 if failed else 0


def run_child(command: list[str], stop: StopRequest) -> int:
    """Its exit status. When this process is asked to stop, the child is asked too: it saves and ends, at the second
    time at once. It has a session of its own, because a terminal's Ctrl-C would else reach it twice."""
    if stop.reason():  # between two points
        return 130
    child = subprocess.Popen(command, start_new_session=True)
    asked = False
    while True:
        try:
            return child.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            again = False
        except KeyboardInterrupt:
            again = True
        if again or (stop.reason() and not asked):
            child.send_signal(signal.SIGINT)
            asked = True


def summarise(folder: Path, grid: dict[str, list], done: dict[str, dict]) -> None:
    """Prints a table of the finished runs and writes it as table.md, and figure.png next to it."""
    scores = {}
    results: Results = defaultdict(list)
    for name, point in done.items():
        line = best_epoch(folder / name)
        scores[name] = np.array([line["validation_bpd"], 100 * line["validation_accuracy"]])
        results[setting(point, grid)].append(scores[name])
    note = "Mean ± standard deviation over the seeds, each run at its epoch of fewest validation bits."
    parts = [*rows(results), "", note]
    seeds = {point.get("seed") for point in done.values()}
    names = compared(grid)
    if len(names) > 1 and len(done) == len(seeds) * math.prod(len(grid[name]) for name in names):
        averages: Results = defaultdict(list)  # for each value of each parameter the means over all the others
        for parameter, value, seed in ((name, value, seed) for name in names for value in grid[name] for seed in seeds):
            alike = [name for name, p in done.items() if p[parameter] == value and p.get("seed") == seed]
            averages[f"{parameter}={value}"].append(np.mean([scores[name] for name in alike], axis=0))
        note = "The same runs, averaged over all parameters but the one, into one for each seed."
        parts += ["", *rows(averages), "", note]
    table = "\n".join(parts) + "\n"
    checkpoints.write_atomically(folder / "table.md", lambda temporary: temporary.write_text(table, encoding="utf-8"))
    draw(folder / "figure.png", results)
    print(f"\n{table}\n{folder / 'table.md'} and figure.png hold this", flush=True)


def rows(results: Results) -> list[str]:
    """A Markdown table, a row for each setting."""
    table = ["| setting | validation bits/dim | accuracy, % | runs |", "|:--|--:|--:|--:|"]
    for label, runs in results.items():
        bits, accuracies = zip(*runs, strict=True)
        table.append(f"| {label} | {mean_and_spread(bits, 3)} | {mean_and_spread(accuracies, 1)} | {len(runs)} |")
    return table


def mean_and_spread(values: Sequence[float], digits: int) -> str:
    """`3.512 ± 0.004`, the sample's standard deviation; a single value has none."""
    spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def draw(path: Path, results: Results) -> None:
    """A row for each setting: its seeds as points, their mean as a stroke; bits at the left, accuracy at the right."""
    import matplotlib.pyplot as plt

    from utils.figures import PALETTE, style

    with plt.rc_context():
        style()
        figure, axes = plt.subplots(1, 2, sharey=True, figsize=(9, 1.1 + 0.3 * len(results)))
        for column, label in enumerate(("validation bits per dimension", "accuracy, %")):
            axis = axes[column]
            for row, runs in enumerate(results.values()):
                values = [run[column] for run in runs]
                axis.plot(values, [row] * len(values), "o", color=PALETTE[column], alpha=0.7, markersize=5)
                axis.plot(np.mean(values), row, "|", color="black", markersize=13)
            axis.set_xlabel(label)
            axis.grid(axis="x", alpha=0.3)
        axes[0].set_yticks(range(len(results)), results)
        axes[0].set_ylim(len(results) - 0.5, -0.5)  # the first setting on top
        checkpoints.write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
        plt.close(figure)
