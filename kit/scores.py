"""What a classification comes to, printed and drawn."""

import math
import unicodedata
from pathlib import Path

import torch
from torch import Tensor

from utils import UsageError, classify, listing, mixture, note
from utils.data import UNKNOWN, ImageDataset
from utils.figures import all_shortened, drawable, plain
from utils.model import ConditionalPixelCNN

from .distributed import rank, say
from .tables import write_table

WIDEST = 120  # characters of a line that a screen has room for
LOWEST = 10  # classes that are shown where there is no room for all
NAMED = 20  # classes; in the picture of more there is no room for their names


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval for the share of hits among `count` pictures, at least 1 (Wilson, JASA 22, 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(hits, count).proportion_ci(method="wilson")
    return interval.low, interval.high


def sign_test(only_first: int, only_second: int) -> float:
    """The exact two-sided p of two classifiers on the same pictures, of which each names so many right alone."""
    from scipy.stats import binomtest

    return float(binomtest(only_first, only_first + only_second).pvalue) if only_first + only_second else 1.0


def paired(first: Tensor, second: Tensor, labels: Tensor, names: tuple[str, str] = ("A", "B")) -> str:
    """Two predictions (N,) for the same pictures compared, in one sentence; pictures of unknown label are left out."""
    known = labels != UNKNOWN
    hit, other = (p[known].cpu() == labels[known].cpu() for p in (first, second))
    alone = int((hit & ~other).sum()), int((other & ~hit).sum())
    value = p_value(sign_test(*alone))
    return f"right alone: {names[0]} {alone[0]}, {names[1]} {alone[1]} of {int(known.sum())}; sign test {value}"


def p_value(p: float) -> str:
    """`p = 0.03`, with no more digits than it is worth."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.1g}" if p < 0.1 else f"p = {p:.2f}"


def report(
    nats: Tensor, logits: Tensor, dataset: ImageDataset, model: ConditionalPixelCNN, split: str, how: str,
    table: Path | None = None,
) -> None:  # fmt: skip
    """Prints bits per dimension by `nats` and, by `logits`, accuracy, F1, recall and confusion. Both: (N, C). A matrix
    of confusion that is too wide to print is written to `table`, if given, as CSV."""
    image_size, y = model.config.image_size, dataset.labels
    known = y != UNKNOWN
    say(f"{split}, {len(y)} pictures, {how}")
    if not known.any():
        marginal = torch.logsumexp(nats - math.log(nats.shape[1]), dim=1)
        bpd = mixture.bits_per_dim(-marginal.mean(), image_size)
        say(f"bits per dimension  {bpd:.4f}  (over all classes: no label is known, so there is no accuracy)")
        return
    bpd = mixture.bits_per_dim(-nats[known].gather(1, y[known][:, None]).mean(), image_size)
    scores = classify.score(logits.argmax(dim=1), y, model.config.num_classes)
    error = classify.calibration_error(torch.softmax(logits[known], dim=1), y[known])
    say(f"bits per dimension  {bpd:.4f}")
    low, high = wilson_interval(int(scores.confusion.diag().sum()), scores.count)
    say(f"accuracy            {scores.accuracy:.2%}  of {scores.count}, 95 % interval {low:.1%} to {high:.1%}")
    say(f"macro F1            {scores.macro_f1:.2%}")
    say(f"calibration error   {error:.2%}")
    width = max(map(columns, dataset.classes)) + 2
    if width * (1 + len(dataset.classes)) + 8 > WIDEST:
        show_lowest(scores, dataset.classes, table)
        return
    say("recall and confusion (rows: the truth, columns: what it was taken for)")
    say(" " * (width + 8) + "".join(" " * (width - columns(name)) + name for name in dataset.classes))
    for name, recall, row in zip(dataset.classes, scores.recall, scores.confusion.tolist(), strict=True):
        say(padded(name, width) + f"{percent(recall):>8}" + "".join(f"{n:>{width}d}" for n in row))


def columns(text: str) -> int:
    """How many columns of a terminal a text takes: Chinese, Japanese and Korean letters are two wide."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def padded(text: str, width: int) -> str:
    return text + " " * (width - columns(text))


def percent(recall: float, digits: int = 1) -> str:
    """A class without pictures has no recall."""
    return "-" if math.isnan(recall) else f"{recall:.{digits}%}"


def lowest(scores: classify.Scores) -> list[int]:
    """The labels of the `LOWEST` classes with the lowest recall, of those that have pictures."""
    there = [label for label, recall in enumerate(scores.recall) if not math.isnan(recall)]
    return sorted(there, key=lambda label: scores.recall[label])[:LOWEST]


def show_lowest(scores: classify.Scores, classes: tuple[str, ...], table: Path | None) -> None:
    """Prints what the classes with the lowest recall were taken for; writes the whole matrix of confusion."""
    written = table is not None and write_confusion(scores.confusion, classes, table)
    names = all_shortened(classes, 30)
    width = max(map(columns, names)) + 2
    say(f"lowest recall of {len(classes)} classes" + (f"; the whole confusion matrix is in {table}" if written else ""))
    say(padded("", width) + "  recall  pictures  most often taken for")
    for label in lowest(scores):
        counts = scores.confusion[label].clone()
        of, counts[label] = int(counts.sum()), 0
        order = counts.argsort(descending=True, stable=True).tolist()
        others = [f"{names[c]} ({counts[c]})" for c in order if counts[c]]
        say(f"{padded(names[label], width)}{percent(scores.recall[label]):>8}{of:>10}  {listing(others, 3) or '-'}")
    if absent := [name for name, recall in zip(names, scores.recall, strict=True) if math.isnan(recall)]:
        say(f"without a picture here: {listing(absent, 5)}")


def write_confusion(confusion: Tensor, classes: tuple[str, ...], path: Path) -> bool:
    """A row for each true class, a column for what it was taken for, as spreadsheets read it; -> it was written."""
    rows = zip(classes, confusion.tolist(), strict=True)
    try:
        if rank() == 0:
            write_table(path, [["truth", *classes], *([name, *row] for name, row in rows)])
    except UsageError as error:  # the numbers are still worth showing
        note(str(error))
        return False
    return True


def draw_confusion(axis, scores: classify.Scores, classes: tuple[str, ...]) -> None:
    """The matrix of confusion on matplotlib's axis: names, recalls and counts, or of many classes colours alone."""
    counts, ticks = scores.confusion, range(len(classes))
    axis.imshow(counts / counts.sum(1, keepdim=True).clamp(min=1), cmap="Blues", vmin=0, vmax=1)
    if len(classes) > NAMED:
        axis.locator_params(integer=True)
        axis.set(xlabel="taken for the class of this number", ylabel="number of the true class")
        return
    size = min(10, 120 / len(classes))
    for truth, row in enumerate(counts.tolist()):
        for guess, count in enumerate(row):
            colour = "white" if count > sum(row) / 2 else "black"  # on dark, on light
            axis.text(guess, truth, count, ha="center", va="center", color=colour, fontsize=size)
    names = [plain(name) for name in drawable(classes)]
    recalls = [f"{name} {percent(recall, 0)}" for name, recall in zip(names, scores.recall, strict=True)]
    axis.set_xticks(ticks, names, rotation=30 if size == 10 else 60, ha="right", rotation_mode="anchor", fontsize=size)
    axis.set_yticks(ticks, recalls, fontsize=size)
    axis.set(xlabel="taken for", ylabel="true class, recall")
