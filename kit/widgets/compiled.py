"""Drawing the few pictures of a widget: on the device, and in the way, that is quickest for few."""

import contextlib
import copy
import itertools
import threading
import time
import weakref
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils import sampling
from utils.layers import modulate
from utils.model import ConditionalPixelCNN
from utils.sampling import NR_SCALES, CachedNetwork, PixelConv, blank_pictures, walk

cpu_is_quicker: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # of models on a GPU
compiling: list[threading.Thread] = []  # none or one
compiled = threading.Event()


def generate(model: ConditionalPixelCNN, labels: Tensor, **how) -> Tensor:
    """As `utils.sampling.generate`. On a CPU the first call has the loop of `pixel_loop` compiled, in a thread, which
    takes some seconds; from then on it draws. Its sums are taken in another order: once in some eighty pictures that
    rounds a colour to the next level, and what is drawn after that pixel differs."""
    model = on_cpu_if_quicker(model, len(labels))
    bias = model.head.conv.bias
    if bias.device.type != "cpu" or bias.dtype != torch.float32:
        return sampling.generate(model, labels, **how)
    if not compiling:
        compiling.append(threading.Thread(target=compile_loop, args=(model,), daemon=True))
        compiling[0].start()
    return (generate_compiled if compiled.is_set() else sampling.generate)(model, labels, **how)


def compile_loop(model: ConditionalPixelCNN) -> None:
    """Draws a row, for which the loop is compiled. Without Numba, or where it fails, nothing comes of it."""
    with contextlib.suppress(Exception), torch.inference_mode():
        labels = torch.zeros(1, dtype=torch.int64)
        images, _ = blank_pictures(model, labels, 1.0, None)
        CompiledRows(CachedNetwork(model, labels), 1.0).draw(0, images, torch.Generator(), is_known=False)
        compiled.set()


def on_cpu_if_quicker(model: ConditionalPixelCNN, nr_pictures: int) -> ConditionalPixelCNN:
    """The model, or for one on a GPU a copy on the CPU if that draws a row sooner, measured once: a pixel of few
    pictures is so little work that it takes a GPU longer to be told it."""
    if model.head.conv.bias.device.type == "cpu":
        return model
    if model not in cpu_is_quicker:
        cpu_is_quicker[model] = seconds_a_row(on_cpu(model), nr_pictures) < seconds_a_row(model, nr_pictures)
    return on_cpu(model) if cpu_is_quicker[model] else model


def on_cpu(model: ConditionalPixelCNN) -> ConditionalPixelCNN:
    copies = {id(weights): nn.Parameter(weights.detach().cpu()) for weights in model.parameters()}
    return copy.deepcopy(model, copies)


def seconds_a_row(model: ConditionalPixelCNN, nr_pictures: int) -> float:
    labels = torch.zeros(nr_pictures, dtype=torch.int64)
    with torch.inference_mode():
        images, _ = blank_pictures(model, labels, 1.0, None)
        steps = walk(model, images, labels.to(images.device))
        for _ in ("to warm up", "measured"):
            start = time.perf_counter()
            *_, (_, _, params) = itertools.islice(steps, images.shape[3])
            params.cpu()  # waits for the device
    return time.perf_counter() - start


@torch.inference_mode()
def generate_compiled(model, labels: Tensor, *, generator=None, temperature=1.0, prefix=None, on_row=None) -> Tensor:
    """As `utils.sampling.generate`, by the compiled loop, for a model in float32 on a CPU and a generator there."""
    images, nr_known = blank_pictures(model, labels, temperature, prefix)
    rows = CompiledRows(CachedNetwork(model.eval(), labels), temperature)
    for i in range(images.shape[2]):
        rows.draw(i, images, generator, is_known=i < nr_known)
        if on_row:
            on_row(i, images)
    return images


class KnownOutput:
    """In the place of a `PixelConv`: what is known of its output when a row begins is put where the loop reads it."""

    def __init__(self, conv: PixelConv, row: Tensor, known: Tensor):  # (B, W + 1, C), (B, W / stride, C')
        self.conv, self.row, self.known = conv, row.transpose(1, 2)[:, :, None], known

    def start_row(self, more: Tensor | None = None) -> None:
        known = F.conv2d(self.row, self.conv.upper, self.conv.bias, self.conv.stride)
        known = modulate(known if more is None else known + more, self.conv.modulation)
        self.known.copy_(known[:, :, 0].transpose(1, 2))


class CompiledRows:
    """A row of pixels at once: PyTorch begins the row, the loop draws its pixels. Both use the same memory."""

    def __init__(self, network: CachedNetwork, temperature: float):
        from .pixel_loop import Loop, draw_row

        self.network, self.temperature, self.draw_row = network, np.float32(temperature), draw_row
        scales = range(NR_SCALES)
        blocks = [(s, block) for s in scales for _, block in network.down_blocks[s]]
        self.nr_resnet = len(blocks) // NR_SCALES
        blocks += [(s, block) for s in reversed(scales) for _, block in network.up_blocks[s]]
        downs = [conv for _, conv in network.down_convs]
        batch, width, nr_filters = len(network.row), network.width, len(network.here[0])

        def new(*shape: int) -> Tensor:
            return network.row.new_zeros(shape)

        self.tensors = {
            "in_rows": new(len(blocks), batch, width + 1, 2 * nr_filters),
            "in_known": new(len(blocks), batch, width, nr_filters),
            "in_lower": torch.stack([block.conv_in.lower for _, block in blocks]),
            "out_rows": new(len(blocks), batch, width + 1, 2 * nr_filters),
            "out_known": new(len(blocks), batch, width, 2 * nr_filters),
            "out_lower": torch.stack([block.conv_out.lower for _, block in blocks]),
            "gains": torch.stack([gain_of(block.conv_out, batch) for _, block in blocks]),
            "from_ul": torch.stack([block.from_ul for _, block in blocks[self.nr_resnet * NR_SCALES :]]),
            "down_rows": new(len(downs), batch, width + 1, nr_filters),
            "down_known": new(len(downs), batch, width, nr_filters),
            "down_lower": torch.stack([conv.lower for conv in downs]),
            "ul_up": new(len(downs), batch, 2, width, nr_filters),
            "up_weights": torch.stack(network.up_weights),
            "up_biases": torch.stack(network.up_biases),
            "ul0": new(batch, width, nr_filters),
            "here": network.here,
            "middle": network.middle,
            "head": network.head,
            "head_bias": network.head_bias,
            "row": network.row,
            "early": new(batch, width, 3),
            "noise": new(width, batch, network.head_bias.shape[1] // 10 + 3),
            "pixels": new(batch, width, 3),
        }
        self.loop = Loop(**{name: tensor.contiguous().numpy() for name, tensor in self.tensors.items()})

        def known_output(conv: PixelConv, kind: str, nr: int, scale: int) -> KnownOutput:
            rows, known = self.tensors[f"{kind}_rows"][nr], self.tensors[f"{kind}_known"][nr]
            width_in = width >> scale
            return KnownOutput(conv, rows[:, : width_in + 1], known[:, : width_in // conv.stride])

        for nr, (s, block) in enumerate(blocks):
            block.conv_in = known_output(block.conv_in, "in", nr, s)
            block.conv_out = known_output(block.conv_out, "out", nr, s)
        down_convs: list[Any] = [(u, known_output(ul, "down", s, s)) for s, (u, ul) in enumerate(network.down_convs)]
        network.down_convs = down_convs

    def draw(self, i: int, images: Tensor, generator: torch.Generator | None, is_known: bool) -> None:
        """Row i of (B, 3, H, W), which is there already if it is known."""
        self.network.start_row(i)
        torch.stack(self.network.ul0, dim=1, out=self.tensors["ul0"])
        self.tensors["early"].copy_(self.network.early_row)
        self.tensors["pixels"].copy_(images[:, :, i].transpose(1, 2))
        if not is_known:
            self.tensors["noise"].uniform_(generator=generator)  # as `uniform_noise` for one pixel after the other
        self.draw_row(self.loop, i, self.nr_resnet, self.temperature, is_known)
        images[:, :, i] = self.tensors["pixels"].transpose(1, 2)


def gain_of(conv: PixelConv, batch: int) -> Tensor:
    gain = 1 if conv.gain is None else conv.gain  # (B, C') or (1, C')
    return conv.lower.new_ones(batch, conv.lower.shape[1]) * gain
