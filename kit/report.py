"""The sections of notebook 08: what a run, or a file of weights, is worth, or two of them side by side.

Each section is a function that takes what `examine` found, and displays tables and pictures; what a run has not got
is said in a sentence.
"""

import contextlib
import html
import platform
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from utils import UsageError, classify, figures, mixture
from utils.checkpoints import SHIPPED
from utils.data import UNKNOWN, load_split
from utils.device import pick_device
from utils.model import ConditionalPixelCNN
from utils.sampling import generate

from .platforms import KIT, find_root, find_weights, load_model, machine
from .runs import RunConfig, best_epoch, read_config, read_metrics
from .scores import wilson_interval
from .widgets.base import to_png

DRAWN = 4  # pictures of each class
CONFUSED = 8


@dataclass(frozen=True)
class Examined:
    """One checkpoint, evaluated once. A file of weights alone has no `config` and no `lines`.

    Args:
        file: the weights' file, and its epoch where that is known.
        data: data set, split and count.
        lines: of metrics.jsonl.
        x, y, classes: the pictures of the split whose label is known.
        nats: log p(x | y), float64 (N, C).
        drawn: `DRAWN` pictures of each class, random by seed 0, (DRAWN C, 3, S, S).
        ms_classifying, seconds_drawing: a picture.
    """

    name: str
    file: str
    data: str
    model: ConditionalPixelCNN
    config: RunConfig | None
    lines: list[dict]
    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    nats: Tensor
    drawn: Tensor
    ms_classifying: float
    seconds_drawing: float

    @property
    def scores(self) -> classify.Scores:
        return classify.score(self.nats.argmax(dim=1), self.y, self.model.config.num_classes)

    @property
    def posterior(self) -> Tensor:
        """p(y | x) under a uniform prior, (N, C)."""
        return classify.log_posterior(self.nats).exp()

    @property
    def bits_per_dim(self) -> float:
        of_truth = self.nats.gather(1, self.y[:, None])
        return float(mixture.bits_per_dim(-of_truth.mean(), self.model.config.image_size))

    @property
    def title(self) -> str:
        return f"{self.name}, {self.file}\n{self.data}"


def examine(
    name: str, split: str = "validation", dataset: str | None = None, data_root: str | Path | None = None
) -> Examined:
    """Evaluates a checkpoint in float32, as `python -m kit evaluate` does, and draws from it.

    Args:
        name: what `checkpoints.load_model` takes.
        dataset, data_root: those that the run was trained on if None; for shipped weights the one they were trained on.

    Raises:
        UsageError: no such weights or data, other classes, or a split without labels.
    """
    file = find_weights(name)
    model = load_model(name, pick_device())
    config, lines, epoch = None, [], ""
    if (file.parent / "config.json").is_file():
        config = read_config(file.parent.resolve())[1]
        lines = read_metrics(file.parent / "metrics.jsonl")
        if lines and file.name == "best.safetensors":
            epoch = f" of epoch {best_epoch(file.parent)['epoch']}"
    if dataset is None:
        if config is None and name not in SHIPPED:
            raise UsageError(f"{name} does not say which data set it is for: choose one with --dataset")
        dataset, data_root = (config.dataset, data_root or config.data_root) if config else (SHIPPED[name], data_root)
    pictures = load_split(dataset, split, find_root(dataset, data_root), model.config.image_size)
    if len(pictures.classes) != model.config.num_classes:
        raise UsageError(f"{dataset} has {len(pictures.classes)} classes, {name} knows {model.config.num_classes}")
    known = (pictures.labels != UNKNOWN).nonzero().flatten()
    if not len(known):
        raise UsageError(f"no label of {dataset}'s {split} split is known: report on another --split")
    x, y = (part[known] for part in pictures.tensors())

    started = time.perf_counter()
    nats = classify.class_log_likelihoods(model, x).double().cpu()
    classified = time.perf_counter()
    drawn = generate(model, drawn_labels(model), generator=torch.Generator().manual_seed(0)).float().cpu()
    return Examined(
        name=name, file=file.name + epoch, data=f"{dataset}, {split} split, {len(y)} pictures", model=model,
        config=config, lines=lines, x=x, y=y, classes=pictures.classes, nats=nats, drawn=drawn,
        ms_classifying=1000 * (classified - started) / len(y),
        seconds_drawing=(time.perf_counter() - classified) / len(drawn),
    )  # fmt: skip


def drawn_labels(model: ConditionalPixelCNN) -> Tensor:
    return torch.arange(model.config.num_classes).repeat_interleave(DRAWN)


def heading(examined: list[Examined]) -> None:
    sentence("Report on " + " and ".join(each.name for each in examined), "h1")


def sentence(text: str, tag: str = "p") -> None:
    from IPython.display import HTML, display

    display(HTML(f"<{tag}>{html.escape(text)}</{tag}>"))


def table(columns: list[tuple[str, dict[str, str]]], marked: bool = False) -> None:
    """A column under each name, in which "-" is what it has not got; `marked` makes rows bold whose values differ."""
    from IPython.display import HTML, display

    heads, body = "".join(f"<th>{html.escape(name)}</th>" for name, _ in columns), ""
    for what in dict.fromkeys(what for _, values in columns for what in values):
        cells = [html.escape(values.get(what, "-")) for _, values in columns]
        bold = "<b>{}</b>" if marked and len(set(cells)) > 1 else "{}"
        body += "<tr>" + "".join(f"<td>{bold.format(cell)}</td>" for cell in [html.escape(what), *cells]) + "</tr>"
    display(HTML(f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{body}</tbody></table>"))


def picture(drawing, alt: str) -> None:
    """A matplotlib figure or a PIL picture, with the words that stand for it where it is not seen."""
    from IPython.display import Image, display

    display(Image(to_png(drawing), alt=alt, retina=not hasattr(drawing, "tobytes")))


def panels(count: int, height: float):
    """A matplotlib figure of `count` axes side by side, sharp enough to print; -> figure, axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * count, height), dpi=180, layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]


def scores(examined: list[Examined]) -> None:
    def column(each: Examined) -> dict[str, str]:
        found, sure = each.scores, each.posterior
        low, high = wilson_interval(int(found.confusion.diag().sum()), found.count)
        return {
            "weights": each.file,
            "pictures": each.data,
            "bits per dimension": f"{each.bits_per_dim:.4f}",
            "accuracy": f"{found.accuracy:.2%}, {int(found.confusion.diag().sum())} of {found.count}",
            "its 95 % interval": f"{low:.1%} to {high:.1%}",
            "macro F1": f"{found.macro_f1:.2%}",
            "mean confidence": f"{sure.amax(dim=1).mean():.2%}",
            "calibration error": f"{classify.calibration_error(sure, each.y):.2%}",
        }

    table([(each.name, column(each)) for each in examined])


def settings(examined: list[Examined]) -> None:
    """The fields of both configs; where two runs differ the row is bold."""

    def column(each: Examined) -> dict[str, str]:
        values = each.model.config.to_dict() | (vars(each.config) if each.config else {})
        values |= {"fusion": ", ".join(values["fusion"]), "data_root": None}  # a path of one machine
        parameters = sum(p.numel() for p in each.model.parameters())
        return {"parameters": f"{parameters:,}"} | {k: str(v) for k, v in values.items() if v not in (None, "")}

    table([(each.name, column(each)) for each in examined], marked=len(examined) > 1)
    for each in examined:
        if not each.config:
            sentence(f"{each.name} is a file of weights: the settings it was trained with are not in it.")


def curves(examined: list[Examined]) -> None:
    figure, (left, right) = panels(2, 3.2)
    for each, colour in zip(examined, figures.PALETTE, strict=False):
        lines = each.lines
        if not lines:
            sentence(f"{each.name} has no metrics.jsonl, so there are no curves of it.")
            continue
        epochs = [line["epoch"] for line in lines]
        style = {"color": colour, "ms": 4}
        left.plot(epochs, [line["train_bpd"] for line in lines], "o-", label=f"{each.name}, training", **style)
        left.plot(epochs, [line["validation_bpd"] for line in lines], "s--", label=f"{each.name}, validation", **style)
        right.plot(epochs, [100 * line["validation_accuracy"] for line in lines], "s--", label=each.name, **style)
    left.set(ylabel="bits per dimension")
    right.set(ylabel="validation accuracy, %", ylim=(0, 105))
    if left.lines:
        for axis in (left, right):
            axis.set(xlabel="epoch")
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.legend(frameon=False)
        picture(figure, "bits per dimension and accuracy after each epoch")


def rough_fid(examined: list[Examined]) -> None:
    """The last FID that training has computed."""
    for each in examined:
        measured = [line for line in each.lines if "fid" in line]
        if measured:
            last = measured[-1]
            drawn, real = last["fid_counts"]
            sentence(
                f"{each.name}, weights of epoch {last['epoch']}: {last['fid']:.1f} at {last['fid_dims']} dims, {drawn} "
                f"samples against {real} validation pictures at the model's size: for watching one run, not for "
                f"comparing with others; python -m kit fid computes one that may be compared."
            )
        else:
            sentence(f"{each.name} has no FID in its metrics: train --fid-every N writes one there.")


def confusion(examined: list[Examined]) -> None:
    figure, axes = panels(len(examined), 4.0)
    for each, axis in zip(examined, axes, strict=True):
        found, classes = each.scores, each.classes
        axis.imshow(found.confusion / found.confusion.sum(1, keepdim=True).clamp(min=1), cmap="Blues", vmin=0, vmax=1)
        for truth, counts in enumerate(found.confusion.tolist()):
            for guess, count in enumerate(counts):
                dark = count > sum(counts) / 2
                axis.text(guess, truth, count, ha="center", va="center", color="white" if dark else "black")
        axis.set(
            xticks=range(len(classes)), yticks=range(len(classes)), xlabel="taken for", ylabel="true class, recall"
        )
        axis.set_xticklabels(classes, rotation=30, ha="right", rotation_mode="anchor")
        axis.set_yticklabels([f"{name} {recall:.0%}" for name, recall in zip(classes, found.recall, strict=True)])
        axis.set_title(each.title, fontsize=9)
    picture(figure, "confusion matrix: how many pictures of each class were taken for which")


def calibration(examined: list[Examined]) -> None:
    figure, axes = panels(len(examined), 3.6)
    for each, axis, colour in zip(examined, axes, figures.PALETTE, strict=False):
        curve = classify.calibration_curve(each.posterior, each.y)
        confidence, accuracy, _ = zip(*curve, strict=True)
        chance = 1 / each.model.config.num_classes
        axis.plot([chance, 1], [chance, 1], color="#999999", linestyle="--", label="calibrated")
        axis.plot(confidence, accuracy, "o-", color=colour, label=each.name)
        for x, y, count in curve:
            axis.annotate(str(count), (x, y), (4, -12), textcoords="offset points", fontsize=8)
        axis.set(xlabel="confidence", ylabel="accuracy", xlim=(chance, 1.08), ylim=(-0.1, 1.1))
        axis.set_title(each.title, fontsize=9)
        axis.legend(frameon=False, loc="upper left")
    picture(figure, "accuracy against confidence, in bins of confidence")


def most_confused(examined: list[Examined]) -> None:
    """The pictures with the largest posterior of a wrong class."""
    for each in examined:
        x, y, classes = each.x, each.y, each.classes
        others = each.nats.clone()
        others[torch.arange(len(y)), y] = -torch.inf
        wrong = others.argmax(dim=1)  # (N,)
        odds = classify.log_posterior(each.nats)  # near 1 probabilities are equal as numbers, their log odds are not
        rest = odds.scatter(1, wrong[:, None], -torch.inf).logsumexp(dim=1)
        order = (odds.gather(1, wrong[:, None])[:, 0] - rest).argsort(descending=True)[:CONFUSED]
        shares = each.posterior.gather(1, wrong[:, None])[:, 0]
        chances = [f"{share:.1%}" if share > 5e-4 else "below 0.1%" for share in shares[order].tolist()]
        pairs = zip(y[order].tolist(), wrong[order].tolist(), chances, strict=True)
        captions = [f"{classes[truth]}\nas {classes[guess]}\n{chance}" for truth, guess, chance in pairs]
        failed = int((each.nats.argmax(dim=1) != y).sum())
        sentence(
            f"{each.name}, {each.file}; {each.data}: {failed} are taken for another class"
            + (f". The {len(order)} most confused:" if failed >= len(order) else f". The {len(order)} nearest to it:")
        )
        picture(figures.captioned(x[order], captions, zoom=max(1, 96 // x.shape[-1])), "the most confused pictures")


def galleries(examined: list[Examined]) -> None:
    for each in examined:
        sentence(f"{each.name}, {each.file}: {DRAWN} pictures of each class, random by seed 0, none picked")
        zoom = max(1, 96 // each.model.config.image_size)
        sheet = figures.gallery(each.drawn, drawn_labels(each.model), each.model.class_names, zoom)
        picture(sheet, f"pictures drawn by {each.name}")


def timing(examined: list[Examined]) -> None:
    def column(each: Examined) -> dict[str, str]:
        trained = {}
        if each.lines and each.config:
            seconds = [line["seconds"] for line in each.lines]
            speed = statistics.median(line["images_per_second"] for line in each.lines)
            trained = {
                "epochs trained": f"{each.lines[-1]['epoch']} of {each.config.epochs}",
                "training, median": f"{speed:.1f} pictures/s",
                "an epoch, median": f"{statistics.median(seconds):.1f} s, validation included",
                "all epochs": f"{sum(seconds) / 60:.1f} minutes",
            }
        return trained | {
            f"classifying, {each.nats.shape[1]} labels": f"{each.ms_classifying:.1f} ms a picture, of {len(each.nats)}",
            "drawing": f"{each.seconds_drawing:.3f} s a picture, {len(each.drawn)} together",
        }

    table([(each.name, column(each)) for each in examined])
    for each in examined:
        if not each.lines:
            sentence(f"{each.name} has no metrics.jsonl: how long it trained is not known here.")


def versions(examined: list[Examined]) -> None:
    rows = {"kit": commit(), "Python": platform.python_version(), "date": time.strftime("%Y-%m-%d")}
    table([("this report", rows | {"machine": machine(next(examined[0].model.parameters()).device)})])


def commit() -> str:
    """The kit's commit, `-dirty` behind it when tracked files differ; a sentence where the kit is no git clone."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    if (KIT / ".git").exists():  # else git would name the repository around it
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            return subprocess.run(command, cwd=KIT, capture_output=True, text=True, check=True).stdout.strip()
    return "not a git clone, so its commit is not known"
