"""A generative classifier, by Bayes' rule: p(y | x) is proportional to p(x | y) p(y).

Labels were inputs of the training. Under a uniform prior the label that makes a picture likeliest wins.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import parametrize

from . import UsageError, mixture
from .data import UNKNOWN
from .device import autocast
from .model import ConditionalPixelCNN

CLOSE = 8.0  # nats; bfloat16 moves such distances by some 7 at 32x32; of what is farther apart, no label changed


@torch.inference_mode()
def class_log_likelihoods(
    model: ConditionalPixelCNN,
    x: Tensor,
    batch_size: int = 32,
    precision: torch.dtype = torch.float32,
    progress: Callable[[int], object] | None = None,
) -> Tensor:
    """log p(x | y) for every picture and every label, in nats: (N, C) on the model's device.

    Args:
        x: float (N, 3, H, W) in [-1, 1], on any device.
        batch_size: pictures in one forward pass.
        precision: what autocast computes in. Below float32 the labels that come within `CLOSE` of the likeliest are
            computed once more, in float32, so that rounding does not choose between them.
        progress: called with the number of pictures just done.
    """
    device = next(model.parameters()).device

    def log_likelihood(pictures: Tensor, labels: Tensor) -> Tensor:
        return mixture.log_prob(model(pictures, labels), pictures)

    rows, every_label = [], torch.arange(model.config.num_classes, device=device)
    with parametrize.cached():  # weight norm is worked out once
        for part in x.split(batch_size):
            part = part.to(device, memory_format=torch.channels_last)  # the faster layout of a forward pass
            with autocast(device, precision):
                columns = [log_likelihood(part, label.expand(len(part))) for label in every_label]
            nats = torch.stack(columns, dim=1)  # (B, C)
            if precision != torch.float32:
                close = nats > nats.amax(dim=1, keepdim=True) - CLOSE
                picture, label = (close & (close.sum(dim=1, keepdim=True) > 1)).nonzero(as_tuple=True)
                for which, labels in zip(picture.split(batch_size), label.split(batch_size), strict=True):
                    nats[which, labels] = log_likelihood(part[which], labels)
            rows.append(nats)
            if progress:
                progress(len(part))
    return torch.cat(rows)


@torch.inference_mode()
def evidence_map(model: ConditionalPixelCNN, x: Tensor, label: int, against: int) -> Tensor:
    """Where a picture (3, H, W) speaks for one class and against another: log p(pixel | before, label) - the same for
    `against`, nats (H, W), whose sum is the difference of the two log-likelihoods."""
    device = next(model.parameters()).device
    pictures = x.to(device).expand(2, -1, -1, -1)
    params = model(pictures, torch.tensor([label, against], device=device))
    for_label, for_other = mixture.log_prob(params, pictures, reduce=False)  # (H, W) each
    return for_label - for_other


def log_posterior(log_likelihoods: Tensor, prior: Tensor | None = None) -> Tensor:
    """log p(y | x). log_likelihoods: (N, C) nats; prior: (C,) probabilities, uniform if None. -> (N, C)"""
    if prior is not None:
        if prior.shape != log_likelihoods.shape[1:] or not bool((prior >= 0).all()) or not 0 < prior.sum() < math.inf:
            rule = f"{log_likelihoods.shape[1]} numbers, none negative or infinite, not all 0"
            raise UsageError(f"the prior must be {rule}; {prior.numel()} are given")
        log_likelihoods = log_likelihoods + torch.log(prior / prior.sum()).to(log_likelihoods)
    return torch.log_softmax(log_likelihoods, dim=1)


@dataclass(frozen=True)
class Scores:
    """What a classification is worth. `confusion[t, p]` counts pictures of class t taken for class p."""

    count: int
    accuracy: float
    macro_f1: float
    recall: list[float]
    confusion: Tensor


def score(predictions: Tensor, labels: Tensor, num_classes: int) -> Scores:
    """Compares (N,) predictions with (N,) labels; pictures of unknown label are left out.

    Macro F1 is the mean over the classes of 2 TP / (2 TP + FP + FN), a class that is neither there nor predicted
    counting as 0; recall of a class that is not there is NaN, and all is NaN when no label is known.
    """
    known = labels != UNKNOWN
    predictions, labels = predictions[known].cpu(), labels[known].cpu()
    cells = torch.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    confusion = cells.view(num_classes, num_classes)
    hits, there, predicted = confusion.diag(), confusion.sum(1), confusion.sum(0)
    f1 = 2 * hits / (there + predicted).clamp(min=1)
    count = int(there.sum())
    accuracy, macro_f1 = (float(hits.sum() / count), float(f1.mean())) if count else (math.nan, math.nan)
    return Scores(count, accuracy, macro_f1, (hits / there).tolist(), confusion)


def calibration_curve(posterior: Tensor, labels: Tensor, nr_bins: int = 10) -> list[tuple[float, float, int]]:
    """(mean confidence, accuracy, count) of each bin of confidence that holds pictures. posterior: (N, C)."""
    confidence, predictions = posterior.cpu().max(dim=1)
    right = (predictions == labels.cpu()).double()
    bins = (confidence * nr_bins).long().clamp(max=nr_bins - 1)
    chosen = [bins == b for b in range(nr_bins)]
    return [(float(confidence[c].mean()), float(right[c].mean()), int(c.sum())) for c in chosen if c.any()]


def calibration_error(posterior: Tensor, labels: Tensor, nr_bins: int = 10) -> float:
    """Expected calibration error: |confidence - accuracy|, averaged over the pictures of `calibration_curve`'s bins."""
    curve = calibration_curve(posterior, labels, nr_bins)
    return sum(count * abs(confidence - accuracy) for confidence, accuracy, count in curve) / len(labels)


def fit_temperature(log_likelihoods: Tensor, labels: Tensor) -> float:
    """The T for which softmax(log_likelihoods / T) gives the labels the greatest likelihood (Guo et al. 2017). Fit it
    on pictures that are not reported on. A likelihood of thousands of correlated pixels is far too sure: T is large."""
    grid = torch.logspace(-1, 4, 501, dtype=torch.float64)
    nats, labels = log_likelihoods.cpu().double(), labels.cpu()
    losses = [F.cross_entropy(nats / t, labels) for t in grid]
    return float(grid[int(torch.stack(losses).argmin())])


def fit_calibration(log_likelihoods: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """The temperature T and the biases b (C,) in nats, which sum to 0, for which softmax(log_likelihoods / T + b) gives
    the labels the greatest likelihood: by Newton-like steps of L-BFGS in float64. T alone changes
    confidence; b changes labels too. Fit both on pictures that neither trained the model nor are reported on."""
    nats, labels = log_likelihoods.cpu().double(), labels.cpu()
    log_temperature = torch.tensor(fit_temperature(nats, labels)).double().log().requires_grad_()
    bias = torch.zeros(nats.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(nats / log_temperature.exp() + bias, labels)
        value.backward()
        return value

    optimizer.step(loss)
    return float(log_temperature.detach().exp()), (bias - bias.mean()).detach()
