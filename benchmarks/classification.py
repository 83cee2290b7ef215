"""Rows: zero-shot classification, a float32 forward pass for every label against the kit's `evaluate`."""

import torch

from utils import UsageError
from utils.checkpoints import load_model
from utils.classify import class_log_likelihoods
from utils.data import load_split
from utils.runtime import autocast, pick_precision

from .common import Row, Setting, forward_flops, matmul_rate, seconds
from .plain import log_prob as plain_log_prob

CPU = torch.device("cpu")
COUNT = 519  # the course's validation split


@torch.no_grad()
def plain(model, x, batch_size=64):
    """One forward pass for every picture and label, in float32."""
    parts = []
    for part in x.split(batch_size):
        labels = [torch.full((len(part),), label) for label in range(model.config.num_classes)]
        parts.append(torch.stack([plain_log_prob(model(part, y), part) for y in labels], dim=1))
    return torch.cat(parts)


def tuned(model, x, precision):
    with autocast(CPU, precision):
        return class_log_likelihoods(model, x)


def rows(setting: Setting):
    model = setting.model().eval()
    size = model.config.image_size
    precision = pick_precision(CPU)
    count = 8 if setting.tiny else 64
    x = torch.randint(0, 256, (count, 3, size, size)) / 127.5 - 1
    repeats = 1 if setting.tiny else 3
    scale = COUNT / count
    yield Row(
        f"classifying {COUNT} images x 4 labels, paper's model",
        scale * seconds(lambda: plain(model, x), repeats),
        scale * seconds(lambda: tuned(model, x, precision), repeats),
        COUNT * 4 * forward_flops(model) / matmul_rate(precision, CPU),
        f"measured on {count} images; {str(precision).removeprefix('torch.')}",
    )
    yield agreement(setting, precision)


def agreement(setting: Setting, precision) -> Row:
    """How many pictures keep their label, with trained weights on real pictures."""
    try:
        name, dataset = "cpen455", load_split("cpen455", "validation")
    except UsageError:
        name, dataset = "cartoons", load_split("cartoons", "validation")
    model = load_model(name)
    x = (dataset.first(8) if setting.tiny else dataset).tensors()[0]
    same = (plain(model, x).argmax(1) == tuned(model, x, precision).argmax(1)).double().mean().item()
    return Row(f"label unchanged, {name} weights", None, None, None, f"{same:.2%} of {len(x)} validation images")
