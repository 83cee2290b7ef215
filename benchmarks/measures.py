"""What `benchmarks.quality` measures with: log-likelihoods by rows, classifiers' scores, pictures of no class."""

import math
from unittest import mock

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn.utils import parametrize
from tqdm.auto import tqdm

from kit.fid import extrapolated
from kit.scores import wilson_interval
from utils import cartoons, mixture
from utils.classify import calibration_error, log_posterior, score
from utils.data import ImageDataset, load_split
from utils.model import ConditionalPixelCNN

GREY = 128 / 127.5 - 1  # a byte's level, as every pixel of a picture
HALVES = ("lower half", "upper half")
DRAWS = 200  # random subsets of each size, for the Fréchet distance without its bias


@torch.inference_mode()
def row_log_likelihoods(model: ConditionalPixelCNN, x: Tensor) -> Tensor:
    """log p(row | rows above, label) for every picture, label and row: nats (N, C, H), float64 on the CPU.

    No pixel depends on a later one, so the sum over the upper rows alone is exactly the upper part's log-likelihood,
    whatever stands below.
    """
    device = next(model.parameters()).device
    parts = []
    with parametrize.cached():
        for part in tqdm(x.split(32), desc="log-likelihoods", leave=False, disable=None):
            part = part.to(device)
            labels = [torch.full((len(part),), label, device=device) for label in range(model.config.num_classes)]
            columns = [mixture.log_prob(model(part, y), part, reduce=False).sum(dim=2) for y in labels]  # (B, H)
            parts.append(torch.stack(columns, dim=1).cpu().double())
    return torch.cat(parts)


def bits(nats: Tensor, image_size: int) -> Tensor:
    """log p(x | y) (N, C) under a uniform prior -> -log2 p(x) per dimension, (N,)."""
    return mixture.bits_per_dim(math.log(nats.shape[1]) - torch.logsumexp(nats, dim=1), image_size)


def auroc(familiar: Tensor, other: Tensor) -> float:
    """The chance that a familiar picture's score is above another's, by ranks; ties count half. 1-D tensors."""
    ranks = rankdata(torch.cat([familiar, other]).numpy())  # ties share their mean rank
    n, m = len(familiar), len(other)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def nearest(queries: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean square distance of each (N, D) to the nearest of (M, D), and which that is: (N,), (N,)."""
    distances, which = torch.cdist(queries, reference, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1)
    return distances / queries.shape[1] ** 0.5, which


def nearest_other(x: Tensor) -> Tensor:
    """Root mean square distance of each of (N, D) to the nearest of the others: (N,). Small where all are alike."""
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(math.inf)
    return distances.min(dim=1).values / x.shape[1] ** 0.5


def classification(logits: Tensor, y: Tensor, temperature: float) -> dict:
    """Accuracy with its 95 % interval (Wilson), calibration before and after. logits: (N, C)."""
    scores = score(logits.argmax(1), y, logits.shape[1])
    low, high = wilson_interval(int(scores.confusion.diag().sum()), scores.count)
    return {
        "accuracy": scores.accuracy,
        "95 % from": low,
        "to": high,
        "macro F1": scores.macro_f1,
        "calibration error": calibration_error(log_posterior(logits).exp(), y),
        "with temperature": calibration_error(log_posterior(logits / temperature).exp(), y),
        "temperature": temperature,
    }


def right_alone(first: Tensor, second: Tensor) -> tuple[int, int]:
    """Of two bool (N,) that say which pictures each names right: how many only the first does, and only the second."""
    return int((first & ~second).sum()), int((second & ~first).sum())


def accuracy(logits: Tensor, y: Tensor) -> float:
    return score(logits.argmax(1), y, logits.shape[1]).accuracy


def rows_of(half: str, size: int) -> slice:
    return slice(size // 2, size) if half == "lower half" else slice(0, size // 2)


def half_grey(x: Tensor, half: str) -> Tensor:
    covered = x.clone()
    covered[:, :, rows_of(half, x.shape[2])] = GREY
    return covered


def cartoons_without_grain(size: int) -> ImageDataset:
    """The validation cartoons, drawn by the same random numbers, without what `Canvas.develop` lays over them."""
    develop = cartoons.Canvas.develop

    def developed(canvas: cartoons.Canvas) -> np.ndarray:
        normal = {"normal.side_effect": lambda mean, deviation, shape: np.zeros(shape)}
        canvas.rng = mock.Mock(wraps=canvas.rng, **normal)  # every other random number as before
        return develop(canvas)

    with mock.patch.object(cartoons.Canvas, "develop", developed):
        return load_split("cartoons", "validation", None, size)


def pictures_of_no_class(x: Tensor, dataset: str, generator: torch.Generator) -> dict[str, Tensor]:
    """Other pictures in the shape of x (N, 3, S, S), on the 256 levels."""
    n, _, size, _ = x.shape
    order = torch.rand(n, 1, size * size, generator=generator).argsort(dim=2).expand(-1, 3, -1)
    sets = {}
    if not dataset.startswith("cartoons"):
        drawn = load_split("cartoons", "validation", None, size), cartoons_without_grain(size)
        names = "cartoons", "cartoons without grain"
        sets = {name: each.subset(n).tensors()[0] for name, each in zip(names, drawn, strict=True)}
    return sets | {
        "uniform noise": torch.randint(0, 256, x.shape, generator=generator) / 127.5 - 1,
        "one colour": (torch.randint(0, 256, (n, 3, 1, 1), generator=generator) / 127.5 - 1).expand_as(x),
        "pixels shuffled": x.flatten(2).gather(2, order).view_as(x),
        "upside down": x.flip(2),
        **{f"{half} grey": half_grey(x, half) for half in HALVES},
    }


def frechet_distances(features: dict[str, Tensor], held: Tensor) -> list[dict]:
    """Of every set's features from the held-out pictures', at several sizes of the set and at the end of the line over
    1/N. The held-out set is the same for all; what its own size adds stays in."""
    most = min(map(len, features.values()))
    counts = [round(most / part) for part in np.linspace(4, 1, 4)]
    rows = []
    for name, part in features.items():
        end, means = extrapolated(part.numpy(), held.numpy(), counts, draws=DRAWS)
        rows.append({"pictures": name} | {f"N = {n}": mean for n, mean in means} | {"extrapolated": end})
    return rows
