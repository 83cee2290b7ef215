"""Rows: drawing pictures, one forward pass for every pixel against cached activations."""

import torch

from utils.checkpoints import load_model
from utils.sampling import generate, generate_naive

from .common import Row, Setting, forward_flops, matmul_rate, seconds


def rows(setting: Setting):
    model = setting.model().eval()
    size = model.config.image_size
    rate = matmul_rate(torch.float32, torch.device("cpu"))
    flops = forward_flops(model)

    for batch in (1, 4, 25, 100):
        labels = torch.arange(batch) % 4
        cached = seconds(lambda labels=labels: generate(model, labels), 1 if setting.tiny else 3)
        naive = None
        if batch in (1, 25):
            # all rows cost the same: the last one is drawn, the others are given, and counted
            known = torch.zeros(batch, 3, size - 1, size)
            with torch.inference_mode():
                model(torch.zeros(batch, 3, size, size), labels)  # warms up
            naive = size * seconds(lambda labels=labels, known=known: generate_naive(model, labels, prefix=known), 1, 0)
        note = f"{cached / batch:.3f} s an image"
        if naive is not None:
            note += f"; naive: {size} times the measured cost of one row"
        yield Row(f"{batch} samples, report's model", naive, cached, batch * flops / rate, note)

    large = setting.model(image_size=64).eval()
    labels = torch.arange(4)
    cached = seconds(lambda: generate(large, labels), 1 if setting.tiny else 3)
    yield Row(
        "4 samples at 64x64", None, cached, 4 * forward_flops(large) / rate, "to compare with 4 at 32x32: 4x the pixels"
    )

    shipped = load_model("cartoons")
    cached = seconds(lambda: generate(shipped, torch.tensor([0])), 1 if setting.tiny else 5)
    yield Row("1 sample, shipped cartoons model", None, cached, forward_flops(shipped) / rate)
