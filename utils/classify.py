"""A generative model as a classifier, by Bayes' rule: p(y | x) is proportional to p(x | y) p(y).

Nobody trained it to tell classes apart; the label under which a picture is likeliest wins.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from . import UsageError, mixture
from .data import UNKNOWN
from .model import ConditionalPixelCNN


@torch.inference_mode()
def class_log_likelihoods(model: ConditionalPixelCNN, x: Tensor, batch_size: int = 64, progress=None) -> Tensor:
    """log p(x | y) for every picture and every label.

    Args:
        x: float (N, 3, H, W) in [-1, 1], on any device.
        batch_size: pictures in one forward pass.
        progress: called with the number of pictures just done.

    Returns:
        nats (N, C), on the model's device.
    """
    device = next(model.parameters()).device
    rows = []
    for part in x.split(batch_size):
        part = part.to(device)
        columns = [
            mixture.log_prob(model(part, torch.full((len(part),), label, device=device)), part)
            for label in range(model.config.num_classes)
        ]
        rows.append(torch.stack(columns, dim=1))
        if progress:
            progress(len(part))
    return torch.cat(rows)


def log_posterior(log_likelihoods: Tensor, prior: Tensor | None = None) -> Tensor:
    """log p(y | x). log_likelihoods: (N, C) nats; prior: (C,) probabilities, uniform if None. -> (N, C)"""
    if prior is not None:
        if prior.shape != log_likelihoods.shape[1:] or not bool((prior >= 0).all()) or not prior.sum() > 0:
            raise UsageError(f"the prior must be {log_likelihoods.shape[1]} numbers, none negative, not all 0")
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
    confusion = torch.bincount(labels * num_classes + predictions, minlength=num_classes**2)
    confusion = confusion.view(num_classes, num_classes)
    hits, there, predicted = confusion.diag(), confusion.sum(1), confusion.sum(0)
    f1 = 2 * hits / (there + predicted).clamp(min=1)
    count = int(there.sum())
    return Scores(
        count=count,
        accuracy=float(hits.sum() / count) if count else float("nan"),
        macro_f1=float(f1.mean()) if count else float("nan"),
        recall=(hits / there).tolist(),
        confusion=confusion,
    )
