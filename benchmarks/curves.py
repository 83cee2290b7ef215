"""`python -m benchmarks.curves`: the training of the shipped cpen455 as a figure; the numbers are in curves.json."""

import argparse
import json
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from kit.console import any_letter
from utils.checkpoints import write_atomically
from utils.figures import PALETTE, style

NUMBERS = Path(__file__).with_name("curves.json")
FIGURE = Path(__file__).parents[1] / "checkpoints" / "cpen455-curves.png"


def draw(about: dict) -> Figure:
    """One panel a measure, one colour a run; a run begins with the weights that the one before it ended with."""
    style()
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), sharex=True)
    for panel, measure in zip(panels, ("bits per dimension", "accuracy, %"), strict=True):
        before = 0
        for number, (run, colour) in enumerate(zip(about["runs"], PALETTE, strict=False), 1):
            epochs = [before + epoch for epoch in run["epoch"]]
            panel.plot(epochs, run[measure], ".-", color=colour, label=f"run {number}: {run['flags']}")
            before = epochs[-1]
        panel.set(xlabel="epoch", ylabel=measure)
        panel.grid(axis="y", color="0.9")
    figure.suptitle(f"{about['weights']} in training: {about['split']}, {about['count']} pictures", fontsize=10)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=9
    )
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__)
    parser.add_argument("--out", type=Path, default=FIGURE, help="a .png file")
    any_letter()
    out = parser.parse_args(arguments).out
    figure = draw(json.loads(NUMBERS.read_text(encoding="utf-8")))
    write_atomically(out, partial(figure.savefig, format="png", dpi=200))
    plt.close(figure)


if __name__ == "__main__":
    main()
