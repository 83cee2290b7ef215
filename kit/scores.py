"""What a classification comes to, printed."""

import math

import torch
from torch import Tensor

from utils import classify, mixture
from utils.data import UNKNOWN, ImageDataset
from utils.model import ConditionalPixelCNN

from .distributed import say


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval for the share of hits among `count` pictures, at least 1 (Wilson, JASA 22, 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(hits, count).proportion_ci(method="wilson")
    return interval.low, interval.high


def report(
    nats: Tensor, logits: Tensor, dataset: ImageDataset, model: ConditionalPixelCNN, split: str, how: str
) -> None:
    """Prints bits per dimension by `nats` and, by `logits`, accuracy, F1, recall and confusion. Both: (N, C)."""
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
    width = max(map(len, dataset.classes)) + 2
    say("recall and confusion (rows: the truth, columns: what it was taken for)")
    say(" " * (width + 8) + "".join(f"{name:>{width}}" for name in dataset.classes))
    for name, recall, row in zip(dataset.classes, scores.recall, scores.confusion.tolist(), strict=True):
        say(f"{name:<{width}}{recall:>8.1%}" + "".join(f"{n:>{width}d}" for n in row))
