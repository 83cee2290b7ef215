"""Rows: classification by Bayes' rule, a float32 forward pass for every label against the kit's `evaluate`."""

import torch

from utils import UsageError
from utils.checkpoints import load_model
from utils.classify import class_log_likelihoods
from utils.data import load_split
from utils.device import pick_precision

from .common import Row, Setting, forward_flops, matmul_rate, seconds
from .plain import log_prob as plain_log_prob

CPU = torch.device("cpu")
COUNT = 519  # the course's validation split


@torch.no_grad()
def plain(model, x, batch_size=16):
    """One forward pass for every picture and label, in float32."""
    parts = []
    for part in x.split(batch_size):
        labels = [torch.full((len(part),), label) for label in range(model.config.num_classes)]
        parts.append(torch.stack([plain_log_prob(model(part, y), part) for y in labels], dim=1))
    return torch.cat(parts)


def rows(setting: Setting):
    precision = pick_precision(CPU)
    again, unchanged = recomputed_and_unchanged(setting, precision)

    model = setting.model().eval()
    with torch.no_grad():  # labels that differ by far, so that none is computed again: that part is counted below
        for name, weight in model.fusion.named_parameters():
            if name.startswith("maps.params"):
                weight.copy_(torch.arange(4.0)[:, None].expand_as(weight))
    size = model.config.image_size
    count = 8 if setting.tiny else 64
    x = torch.randint(0, 256, (count, 3, size, size)) / 127.5 - 1

    def of_all(work):
        return seconds(work, setting.repeats).times(COUNT / count)

    first = of_all(lambda: class_log_likelihoods(model, x, precision=precision))
    in_float32 = of_all(lambda: class_log_likelihoods(model, x))
    yield Row(
        f"classifying {COUNT} images x 4 labels, report's model",
        of_all(lambda: plain(model, x)),
        first + again * in_float32,
        COUNT * 4 * forward_flops(model) / matmul_rate(precision, CPU),
        f"{count} images measured; {str(precision).removeprefix('torch.')} {first:.0f} s, "
        f"then {again:.1%} of the labels in float32, which takes {in_float32:.0f} s for all; {unchanged}",
    )


def recomputed_and_unchanged(setting: Setting, precision) -> tuple[float, str]:
    """With trained weights on real pictures: the share of labels computed twice, and of pictures whose label stays."""
    try:
        name, dataset = "cpen455", load_split("cpen455", "validation")
    except UsageError:
        name, dataset = "cartoons", load_split("cartoons", "validation")
    model = load_model(name)
    x = (dataset.subset(8) if setting.tiny else dataset).tensors()[0]
    nr_computed = 0

    def count(_model, inputs, _output):
        nonlocal nr_computed
        nr_computed += len(inputs[0])

    with model.register_forward_hook(count):
        nats = class_log_likelihoods(model, x, precision=precision)
    same = (plain(model, x).argmax(1) == nats.argmax(1)).double().mean().item()
    return nr_computed / nats.numel() - 1, f"{same:.2%} of {len(x)} labels unchanged ({name} weights, validation split)"
