"""The sections of notebook 08: what a run, or a file of weights, is worth, or two of them side by side. Each displays
tables and pictures of what `examine` found; what a run has not got is said in a sentence."""

import contextlib
import html
import platform
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from IPython.display import HTML, Image, display
from matplotlib.figure import Figure
from torch import Tensor

from utils import UsageError, checkpoints, classify, data, device, figures, mixture, sampling
from utils.model import ConditionalPixelCNN

from .metrics import best_epoch, read_metrics, validated, whole
from .platforms import KIT, find_weights, load_model, load_pictures, machine
from .runs import RunConfig, read_config
from .scores import NAMED, draw_confusion, lowest, paired, percent, wilson_interval
from .widgets.base import captioned, to_png

DRAWN = 4  # pictures of each class
CONFUSED = 8


@dataclass(frozen=True)
class Examined:
    """One checkpoint, evaluated once. A file of weights alone has no `config` and no `lines`."""

    name: str
    file: str  # the weights', and its epoch where that is known
    data: str  # data set, split and count
    model: ConditionalPixelCNN
    config: RunConfig | None
    lines: list[dict]  # of metrics.jsonl
    x: Tensor  # the pictures of the split whose label is known, (N, 3, S, S)
    y: Tensor  # (N,)
    classes: tuple[str, ...]
    nats: Tensor  # log p(x | y), float64 (N, C)
    drawn: Tensor  # `DRAWN` pictures of each class, random by seed 0, (DRAWN C, 3, S, S)
    labels: Tensor  # of these
    times: dict[str, str]  # of classifying and of drawing

    @property
    def scores(self) -> classify.Scores:
        return classify.score(self.nats.argmax(dim=1), self.y, self.model.config.num_classes)

    @property
    def posterior(self) -> Tensor:
        """p(y | x) under a uniform prior, (N, C)."""
        return classify.log_posterior(self.nats).exp()


def examine(
    name: str, split: str = "validation", dataset: str | None = None, data_root: str | Path | None = None
) -> Examined:
    """Evaluates a checkpoint, which `find_weights` takes, in float32, as `python -m kit evaluate` does; draws from it.
    If not given, the data are those it was trained on. UsageError: no such weights or data, other classes, no label."""
    file = find_weights(name)
    model = load_model(name, device.pick_device())
    config, lines, epoch = None, [], ""
    if (file.parent / "config.json").is_file():
        config = read_config(file.parent.resolve())[1]
        lines = whole(read_metrics(file.parent / "metrics.jsonl"))
        if validated(lines) and file.name == "best.safetensors":
            epoch = f" of epoch {best_epoch(file.parent)['epoch']}"
    if dataset is None:
        if config is None and name not in checkpoints.SHIPPED:
            raise UsageError(f"{name} does not say which data set it is for: choose one with --dataset")
        dataset = config.dataset if config else checkpoints.SHIPPED[name]
        data_root = data_root or (config.data_root if config else None)
    pictures = load_pictures(dataset, split, data_root, model.config.image_size, model.class_names, name)
    known = (pictures.labels != data.UNKNOWN).nonzero().flatten()
    if not len(known):
        raise UsageError(f"no label of {dataset}'s {split} split is known: report on another --split")
    x, y = (part[known] for part in pictures.tensors())

    begun = time.perf_counter()
    nats = classify.class_log_likelihoods(model, x).cpu().double()
    classified = time.perf_counter()
    labels = torch.arange(model.config.num_classes).repeat_interleave(DRAWN)
    drawn = sampling.generate(model, labels, generator=torch.Generator().manual_seed(0)).float().cpu()
    finished = time.perf_counter()
    times = {
        f"classifying, {nats.shape[1]} labels": f"{1000 * (classified - begun) / len(y):.1f} ms a picture, of {len(y)}",
        "drawing": f"{(finished - classified) / len(drawn):.3f} s a picture, {len(drawn)} together",
    }
    return Examined(
        name=name, file=file.name + epoch, data=f"{dataset}, {split} split, {len(y)} pictures", model=model,
        config=config, lines=lines, x=x, y=y, classes=pictures.classes, nats=nats, drawn=drawn, labels=labels,
        times=times,
    )  # fmt: skip


def heading(examined: list[Examined]) -> None:
    sentence("Report on " + " and ".join(each.name for each in examined), "h1")


def sentence(text: str, tag: str = "p") -> None:
    display(HTML(f"<{tag}>{html.escape(text)}</{tag}>"))


def table(columns: list[tuple[str, dict[str, str]]], marked: bool = False) -> None:
    """A column under each name, in which "-" is what it has not got; `marked` makes rows bold whose values differ."""
    heads, body = "".join(f"<th>{html.escape(name)}</th>" for name, _ in columns), ""
    for what in dict.fromkeys(what for _, values in columns for what in values):
        cells = [html.escape(values.get(what, "-")) for _, values in columns]
        bold = "<b>{}</b>" if marked and len(set(cells)) > 1 else "{}"
        body += "<tr>" + "".join(f"<td>{bold.format(cell)}</td>" for cell in [html.escape(what), *cells]) + "</tr>"
    display(HTML(f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{body}</tbody></table>"))


def picture(drawing, alt: str) -> None:
    """A matplotlib figure or a PIL picture, with the words that stand for it where it is not seen."""
    display(Image(to_png(drawing), alt=alt, retina=not hasattr(drawing, "tobytes")))


def panels(examined: list[Examined], height: float, alt: str) -> Iterator[tuple]:
    """Yields each of them, its axes and its colour; then shows what was drawn, side by side."""
    figure = new_figure(len(examined), height)
    axes = figure.subplots(1, len(examined), squeeze=False)[0]
    for each, axis, colour in zip(examined, axes, figures.PALETTE, strict=False):
        axis.set_title(figures.plain(f"{each.name}, {each.file}\n{each.data}"), fontsize=9)
        yield each, axis, colour
    picture(figure, alt)


def new_figure(columns: int, height: float) -> Figure:
    return Figure(figsize=(4.6 * columns, height), dpi=180, layout="constrained")  # sharp enough to print


def scores(examined: list[Examined]) -> None:
    columns = []
    for each in examined:
        found, sure, truth = each.scores, each.posterior, each.nats.gather(1, each.y[:, None])
        hits = int(found.confusion.diag().sum())
        low, high = wilson_interval(hits, found.count)
        rows = {
            "weights": each.file,
            "pictures": each.data,
            "bits per dimension": f"{mixture.bits_per_dim(-truth.mean(), each.model.config.image_size):.4f}",
            "accuracy": f"{found.accuracy:.2%}, {hits} of {found.count}",
            "its 95 % interval": f"{low:.1%} to {high:.1%}",
            "macro F1": f"{found.macro_f1:.2%}",
            "mean confidence": f"{sure.amax(dim=1).mean():.2%}",
            "calibration error": f"{classify.calibration_error(sure, each.y):.2%}",
        }
        columns.append((each.name, rows))
    table(columns)
    a, b = examined[0], examined[-1]
    if len(examined) == 2 and torch.equal(a.x, b.x) and torch.equal(a.y, b.y):
        sentence(paired(a.nats.argmax(dim=1), b.nats.argmax(dim=1), a.y, (a.name, b.name)))


def settings(examined: list[Examined]) -> None:
    """The fields of both configs; where two runs differ the row is bold."""
    columns = []
    for each in examined:
        values = each.model.config.to_dict() | (vars(each.config) if each.config else {})
        values |= {"fusion": ", ".join(values["fusion"]), "data_root": None}  # a path of one machine
        parameters = f"{sum(p.numel() for p in each.model.parameters()):,}"
        known = {name: str(value) for name, value in values.items() if value not in (None, "")}
        columns.append((each.name, {"parameters": parameters} | known))
    table(columns, marked=len(examined) > 1)
    for each in examined:
        if not each.config:
            sentence(f"{each.name} is a file of weights: the settings it was trained with are not in it.")


def curves(examined: list[Examined]) -> None:
    figure = new_figure(2, 3.2)
    bits, accuracy = figure.subplots(1, 2)
    for each, colour in zip(examined, figures.PALETTE, strict=False):
        if not each.lines:
            sentence(f"{each.name} has no metrics.jsonl, so there are no curves of it.")
            continue
        epochs, train = ([line[name] for line in each.lines] for name in ("epoch", "train_bpd"))
        names = ("epoch", "validation_bpd", "validation_accuracy")
        of, validation, right = ([line[name] for line in validated(each.lines)] for name in names)
        style, name = {"color": colour, "ms": 4}, figures.plain(each.name)
        bits.plot(epochs, train, "o-", label=f"{name}, training", **style)
        bits.plot(of, validation, "s--", label=f"{name}, validation", **style)
        accuracy.plot(of, right, "s--", label=name, **style)
    if bits.lines:
        for axis, what in (bits, "bits per dimension"), (accuracy, "validation accuracy"):
            axis.set(xlabel="epoch", ylabel=what)
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.legend(frameon=False)
        accuracy.set_ylim(0, 1.05)
        accuracy.yaxis.set_major_formatter("{x:.0%}")
        picture(figure, "bits per dimension and accuracy after each epoch")


def rough_fid(examined: list[Examined]) -> None:
    """The last FID that training has computed."""
    for each in examined:
        last = next((line for line in reversed(each.lines) if "fid" in line), None)
        if not last:
            sentence(f"{each.name} has no FID in its metrics: it was trained without --fid-every.")
            continue
        drawn, real = last["fid_counts"]
        sentence(
            f"{each.name}, weights of epoch {last['epoch']}: {last['fid']:.1f} at {last['fid_dims']} dims, {drawn} "
            f"samples against {real} validation pictures at the model's size: for watching one run, not for "
            f"comparing with others; the kit's command fid computes one that may be compared."
        )


def confusion(examined: list[Examined]) -> None:
    alt = "confusion matrix: how many pictures of each class were taken for which"
    for each, axis, _ in panels(examined, 4.0, alt):
        draw_confusion(axis, each.scores, each.classes)
    for each in examined:
        if len(each.classes) > NAMED:
            recall, worst = each.scores.recall, lowest(each.scores)
            told = [f"{percent(recall[label], 0)} of {label}, {each.classes[label]}" for label in worst]
            sentence(f"{each.name}, the lowest recalls by number and name: {'; '.join(told)}")


def calibration(examined: list[Examined]) -> None:
    for each, axis, colour in panels(examined, 3.6, "accuracy against confidence, in bins of confidence"):
        curve = classify.calibration_curve(each.posterior, each.y)
        confidence, accuracy, _ = zip(*curve, strict=True)
        chance = 1 / each.model.config.num_classes
        axis.plot([chance, 1], [chance, 1], color="#999999", linestyle="--", label="calibrated")
        axis.plot(confidence, accuracy, "o-", color=colour, label=figures.plain(each.name))
        for x, y, count in curve:
            axis.annotate(str(count), (x, y), (4, -12), textcoords="offset points", fontsize=8)
        axis.set(xlabel="confidence", ylabel="accuracy", xlim=(chance, 1.08), ylim=(-0.1, 1.1))
        axis.legend(frameon=False, loc="upper left")


def most_confused(examined: list[Examined]) -> None:
    """The pictures with the largest posterior of a wrong class."""
    for each in examined:
        if len(each.classes) == 1:
            sentence(f"{each.name} knows one class only, which cannot be taken for another.")
            continue
        x, y, classes = each.x, each.y, figures.drawable(each.classes)
        wrong = each.nats.scatter(1, y[:, None], -torch.inf).argmax(dim=1)  # (N,)
        rest = each.nats.scatter(1, wrong[:, None], -torch.inf).logsumexp(dim=1)
        odds = each.nats.gather(1, wrong[:, None])[:, 0] - rest  # in logs: probabilities near 1 are equal as numbers
        order = odds.argsort(descending=True)[:CONFUSED].tolist()
        shares = each.posterior.gather(1, wrong[:, None])[:, 0].tolist()
        captions = [
            f"{classes[y[i]]}\nas {classes[wrong[i]]}\n{f'{shares[i]:.1%}' if shares[i] > 5e-4 else 'below 0.1%'}"
            for i in order
        ]
        failed = int((each.nats.argmax(dim=1) != y).sum())
        which = f"{len(order)} most confused" if failed >= len(order) else f"{len(order)} nearest to it"
        sentence(f"{each.name}, {each.file}; {each.data}: {failed} are taken for another class. The {which}:")
        picture(captioned(x[order], captions, zoom=max(1, 96 // x.shape[-1])), "the most confused pictures")


def galleries(examined: list[Examined]) -> None:
    for each in examined:
        sentence(f"{each.name}, {each.file}: {DRAWN} pictures of each class, random by seed 0, none picked")
        sheet = figures.gallery(each.drawn, each.labels, each.model.class_names, max(1, 96 // each.drawn.shape[-1]))
        picture(sheet, f"pictures drawn by {each.name}")


def timing(examined: list[Examined]) -> None:
    columns = []
    for each in examined:
        trained = {}
        if each.lines and each.config:
            seconds, every = [line["seconds"] for line in each.lines], each.config.validate_every
            validation = "included" if every == 1 else f"included in one of {every}"
            speed = statistics.median(line["images_per_second"] for line in each.lines)
            trained = {
                "epochs trained": f"{each.lines[-1]['epoch']} of {each.config.epochs}",
                "training, median": f"{speed:.1f} pictures/s",
                "an epoch, median": f"{statistics.median(seconds):.1f} s, validation {validation}",
                "all epochs": f"{sum(seconds) / 60:.1f} minutes",
            }
        columns.append((each.name, trained | each.times))
    table(columns)
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
            return subprocess.run(command, cwd=KIT, capture_output=True, encoding="utf-8", check=True).stdout.strip()
    return "not a git clone, so its commit is not known"
