"""Rows: drawing pictures, one forward pass for every pixel against cached activations."""

import torch

from kit.widgets import compiled
from kit.widgets.drawing import on_one_core
from utils.checkpoints import load_model
from utils.sampling import generate, generate_naive

from .common import Row, Setting, forward_flops, matmul_rate, seconds


def rows(setting: Setting):
    model = setting.model().eval()
    rate = matmul_rate(torch.float32, torch.device("cpu"))
    flops, repeats = forward_flops(model), setting.repeats

    for batch in (1, 4, 25, 100):
        labels = torch.arange(batch) % 4
        cached = seconds(lambda labels=labels: generate(model, labels), repeats)
        naive, note = None, f"{cached / batch:.3f} s an image"
        if batch in (1, 25):
            naive, how = naive_time(model, labels, repeats)
            note += f"; naive: {how}"
        yield Row(f"{batch} sample{'s' * (batch > 1)}, report's model", naive, cached, batch * flops / rate, note)

    large = setting.model(image_size=64).eval()
    labels = torch.arange(4)
    cached = seconds(lambda: generate(large, labels), repeats)
    yield Row(
        "4 samples at 64x64", None, cached, 4 * forward_flops(large) / rate, "to compare with 4 at 32x32: 4x the pixels"
    )

    shipped, label = load_model("cartoons"), torch.zeros(1, dtype=torch.int64)
    for network, count, what in (
        (model, 1, "1 sample, report's model"),
        (shipped, 1, "1 sample, shipped cartoons model"),
        (shipped, 4, "4 samples, shipped cartoons model"),
    ):
        labels, floor = label.expand(count), count * forward_flops(network) / rate
        if network is shipped:
            yield Row(what, None, seconds(lambda n=network, y=labels: generate(n, y), repeats), floor)
        yield in_a_widget(f"{what}, in a widget", network, labels, floor, repeats)


def in_a_widget(what: str, model, labels: torch.Tensor, floor: float, repeats: int) -> Row:
    """As the class slider draws once its loop is compiled, on one core."""
    with on_one_core():
        compiled.generate(model, labels)
        compiled.compiling[0].join()
        if not compiled.compiled.is_set():
            return Row(what, None, None, None, "not measured: Numba is missing")
        return Row(what, None, seconds(lambda: compiled.generate(model, labels), repeats), floor, "one core")


def naive_time(model, labels: torch.Tensor, repeats: int):
    """How long `generate_naive` takes, and how that is known; no time where two ways to know it differ by a tenth."""
    size, count = model.config.image_size, len(labels)
    known = torch.zeros(count, 3, size - 1, size)  # all rows cost the same: the last is drawn, the others are given
    row = seconds(lambda: generate_naive(model, labels, prefix=known), repeats)
    with torch.inference_mode():
        one_pass = seconds(lambda: model(torch.zeros(count, 3, size, size), labels), 2 * repeats)
    by_rows, by_passes = row.times(size), size**2 * one_pass
    how = f"{size} times the measured cost of a row"
    if abs(by_passes / by_rows - 1) > 0.1:
        return None, f"not known: {how} are {by_rows:.0f} s, {size**2} times that of a forward pass {by_passes:.0f} s"
    return by_rows, f"{how}; {size**2} times that of a forward pass are {by_passes:.0f} s"
