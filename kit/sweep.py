"""Grids in W&B's sweep format, run here one point after the other; what is finished is not run again."""

import itertools
import math
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from utils import UsageError, checkpoints

from .platforms import KIT, runs_folder
from .runs import best_epoch, load_state, read_config

KEYS = {"validation_bpd": 1, "validation_accuracy": 100}  # what is compared, and its factor in tables


def read_grid(path: str | Path) -> dict[str, list]:
    """The parameters of a sweep file and the values of each. Raises UsageError for anything but a grid."""
    import yaml

    try:
        sweep = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; the kit's own sweeps are in sweeps/") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {error}") from None
    if not isinstance(sweep, dict) or sweep.get("method") != "grid":
        raise UsageError(f"{path}: only sweeps with `method: grid` run here; `wandb sweep` runs the others")
    parameters = sweep.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise UsageError(f"{path} has no `parameters`")
    grid = {}
    for name, choice in parameters.items():
        if not isinstance(choice, dict) or set(choice) not in ({"value"}, {"values"}):
            raise UsageError(f"{path}: parameter {name!r} needs either `value: …` or `values: […]`")
        grid[name] = choice["values"] if "values" in choice else [choice["value"]]
        if not isinstance(grid[name], list) or not grid[name]:
            raise UsageError(f"{path}: the `values` of parameter {name!r} must be a list of at least one")
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
    """Runs the points of a sweep file that are not finished, then writes and prints what all have come to.

    Args:
        settings_of: the fields of the configs that `train` gets from such flags; raises UsageError for wrong ones.
        limit: at most so many points now.

    Returns:
        the exit status: 0, 1 if a point failed, 130 if asked to stop.
    """
    path = Path(path)
    grid = read_grid(path)
    folder = runs_folder() / path.stem
    wanted = {run_name(point, grid): point for point in points(grid)}
    if len(wanted) < len(points(grid)):
        raise UsageError(f"{path}: two points of the grid are the same")
    settings = {name: settings_of(["--run", f"{path.stem}/{name}", *flags(p)]) for name, p in wanted.items()}
    left = [name for name in wanted if not finished(folder / name, settings[name])]
    print(f"{len(wanted)} points, {len(wanted) - len(left)} of them finished, in {folder}", flush=True)

    failed: list[str] = []
    with Children() as children:
        for number, name in enumerate(left[:limit], start=1):
            print(f"\n[{number}/{len(left[:limit])}] {name}", flush=True)
            command = [sys.executable, "-m", "kit", "train", "--run", f"{path.stem}/{name}", *flags(wanted[name])]
            status = children.run(command + ["--resume"] * (folder / name / "config.json").exists())
            if children.stopped:
                break
            if not finished(folder / name, settings[name]):
                failed.append(f"{name} (exit status {status})")

    done = {name: point for name, point in wanted.items() if finished(folder / name, settings[name])}
    if done:
        summarise(folder, grid, done)
    if children.stopped:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    for name in failed:
        print(f"failed: {name}; its messages are above", file=sys.stderr)
    return 1 if failed else 0


class Children:
    """One command after the other; while open, Ctrl-C and SIGTERM go to the command, which saves and ends.

    Each has a session of its own: a terminal's Ctrl-C would else reach it twice, which means at once.
    """

    def __init__(self) -> None:
        self.child: subprocess.Popen | None = None
        self.stopped = 0

    def run(self, command: list[str]) -> int:
        if self.stopped:
            return 128 + self.stopped
        self.child = subprocess.Popen(command, cwd=KIT, start_new_session=True)
        if self.stopped:  # just before the child was known
            self.child.send_signal(self.stopped)
        return self.child.wait()

    def _on_signal(self, number, _frame) -> None:
        self.stopped = number
        if self.child:
            self.child.send_signal(number)

    def __enter__(self) -> "Children":
        self.old = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_error) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)


def summarise(folder: Path, grid: dict[str, list], done: dict[str, dict]) -> None:
    """Prints a table of the finished runs and writes it as table.md, with figure.png beside it."""
    best = {name: best_epoch(folder / name) for name in done}
    results: dict[str, list[dict]] = {}
    for name, point in done.items():
        results.setdefault(setting(point, grid), []).append(best[name])
    note = "Mean ± standard deviation over the seeds, each run at its epoch of fewest validation bits."
    parts = [*rows(results), "", note]
    nr_seeds = len({point.get("seed") for point in done.values()})
    if len(compared(grid)) > 1 and len(done) == nr_seeds * math.prod(len(grid[name]) for name in compared(grid)):
        note = "The same runs, averaged over all parameters but the one, into one for each seed."
        parts += ["", *rows(averages(grid, done, best)), "", note]
    table = "\n".join(parts) + "\n"
    checkpoints.write_atomically(folder / "table.md", lambda temporary: temporary.write_text(table))
    draw(folder / "figure.png", results)
    print(f"\n{table}\n{folder / 'table.md'} and figure.png hold this", flush=True)


def averages(grid: dict[str, list], done: dict[str, dict], best: dict[str, dict]) -> dict[str, list[dict]]:
    """For each value of each parameter the means over all other parameters, one for each seed."""
    result: dict[str, list[dict]] = {}
    for parameter in compared(grid):
        for value in grid[parameter]:
            of_seed: dict[int | None, list[dict]] = {}
            for name, point in done.items():
                if point[parameter] == value:
                    of_seed.setdefault(point.get("seed"), []).append(best[name])
            means = [{key: statistics.mean(line[key] for line in lines) for key in KEYS} for lines in of_seed.values()]
            result[f"{parameter}={value}"] = means
    return result


def rows(results: dict[str, list[dict]]) -> list[str]:
    """A Markdown table, a row for each setting."""
    table = ["| setting | validation bits/dim | accuracy, % | runs |", "|:--|--:|--:|--:|"]
    for label, lines in results.items():
        bits, accuracies = ([scale * line[key] for line in lines] for key, scale in KEYS.items())
        table.append(f"| {label} | {mean_and_spread(bits, 3)} | {mean_and_spread(accuracies, 1)} | {len(lines)} |")
    return table


def mean_and_spread(values: list[float], digits: int) -> str:
    """`3.512 ± 0.004`, the sample's standard deviation; a single value has none."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def draw(path: Path, results: dict[str, list[dict]]) -> None:
    """A row for each setting: its seeds as points, their mean as a stroke; bits at the left, accuracy at the right."""
    import matplotlib.pyplot as plt

    from utils.figures import PALETTE, style

    with plt.rc_context():
        style()
        figure, axes = plt.subplots(1, 2, sharey=True, figsize=(9, 1.1 + 0.3 * len(results)))
        labels = ("validation bits per dimension", "accuracy, %")
        for axis, colour, (key, scale), label in zip(axes, PALETTE, KEYS.items(), labels, strict=False):
            for row, lines in enumerate(results.values()):
                values = [scale * line[key] for line in lines]
                axis.plot(values, [row] * len(values), "o", color=colour, alpha=0.7, markersize=5)
                axis.plot(statistics.mean(values), row, "|", color="black", markersize=13)
            axis.set_xlabel(label)
            axis.grid(axis="x", alpha=0.3)
        axes[0].set_yticks(range(len(results)), results)
        axes[0].set_ylim(len(results) - 0.5, -0.5)  # the first setting on top
        checkpoints.write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
        plt.close(figure)
