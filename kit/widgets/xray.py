"""The causality X-ray: which inputs an output sees, shown by the gradient, in a sound network and in leaky ones."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

from utils import figures
from utils.model import ConditionalPixelCNN, ModelConfig

from .base import Panel

SIZE = 16


def gradient_at(network: Callable[[Tensor], Tensor], row: int, column: int) -> tuple[Tensor, int]:
    """|gradient| of the output at a pixel, or at the coarser cell that holds it, summed over the input's channels.

    -> (16, 16), and how many pixels wide a cell of the output is.
    """
    x = torch.randn(1, 3, SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = network(x.requires_grad_())[0]  # (C, H, W)
    scale = SIZE // out.shape[-1]
    weight = torch.linspace(1, 2, len(out), dtype=torch.float64)  # unequal: channels must not cancel
    (seen,) = torch.autograd.grad((out[:, row // scale, column // scale] * weight).sum(), x)
    return seen.abs().sum(dim=1)[0], scale


def xray(axis, seen, row, column, title, blind=None):
    """Draws one output's map, seen: (H, W)."""
    from matplotlib.colors import ListedColormap

    order = torch.arange(seen.numel()).view_as(seen)
    future = order >= row * len(seen) + column
    strength = (seen / seen.max()).log10().where((seen > 0) & ~future, torch.nan)
    shown = axis.imshow(strength, cmap="Blues", vmin=-10, vmax=0)
    areas = [(future, "0.85"), (future & (seen > 0), figures.PALETTE[5])]
    for area, colour in areas + ([] if blind is None else [(blind, figures.PALETTE[6])]):
        axis.imshow(torch.ones_like(seen).where(area, torch.nan), cmap=ListedColormap([colour]))
    axis.plot(column, row, "kx", markersize=6)
    axis.set_title(title, fontsize=9)
    axis.set(xticks=[0, len(seen) - 1], yticks=[0, len(seen) - 1])
    return shown


def faults_of(model):
    """Ways to break a `ConditionalPixelCNN`: contexts by name, inside of which it is broken."""
    up = model.up_convs[0]["u"]  # doubles height and width, to the full size

    def no_shift(x):
        return x

    def one_row_early(u):
        return F.pad(up.conv(u)[:, :, 1:], (0, 0, 0, 1))

    return {
        "none": nullcontext(),
        "no down_shift": patch("utils.model.down_shift", no_shift),
        "no right_shift": patch("utils.model.right_shift", no_shift),
        "padded on the right": patch.object(model.down_blocks[0][0].ul.conv_in, "padding", (0, 1, 1, 0)),
        "upsampled a row early": patch.object(up, "forward", one_row_early),
    }


class CausalityXray(Panel):
    """Drag the output pixel: the inputs that it sees light up, in a small random network, read at any depth.

    networks: more to choose from, by name: float64 (B, 3, 16, 16) -> (B, C, H, W); depth, stream and fault do nothing
    to these.
    """

    def __init__(self, networks: dict[str, Callable[[Tensor], Tensor]] | None = None):
        from ipywidgets import HBox, IntSlider, SelectionSlider

        figures.style()
        config = ModelConfig(4, nr_resnet=2, nr_filters=4, nr_logistic_mix=1, image_size=SIZE, fusion=())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = ConditionalPixelCNN(config).double().eval()
        self.networks, self.faults = networks or {}, faults_of(self.model)
        down = [(s, pair) for s, blocks in enumerate(self.model.down_blocks) for pair in blocks]  # type: ignore
        up = [(s, pair) for s, blocks in reversed([*enumerate(self.model.up_blocks)]) for pair in blocks]  # type: ignore
        self.pairs = {f"{n}, at {SIZE >> s}x{SIZE >> s}": pair for n, (s, pair) in enumerate(down + up, 1)}
        self.last = list(self.pairs)[-1]
        controls = {
            "row": IntSlider(10, min=0, max=SIZE - 1),
            "column": IntSlider(6, min=0, max=SIZE - 1),
            "depth": SelectionSlider(options=list(self.pairs), value=self.last, description="after block"),
            "stream": SelectionSlider(options=[("both (ul)", 1), ("vertical (u)", 0)]),
            "fault": SelectionSlider(options=list(self.faults)),
        }
        if self.networks:
            controls["network"] = SelectionSlider(options=["PixelCNN++", *self.networks])
        both = list(controls.values())
        super().__init__(self._draw, controls, [HBox(both[n : n + 2]) for n in (0, 2, 4)])

    def network(self, x: Tensor, depth: str = "", stream: int = 1) -> Tensor:
        """What the network has made of x after a pair of blocks, the last if none is named. -> (B, 4, H, W)"""
        caught: list[Tensor] = []
        pair = self.pairs[depth or self.last]
        hook = pair.register_forward_hook(lambda _pair, _inputs, streams: caught.append(streams[stream]))
        self.model(x, torch.zeros(len(x), dtype=torch.long))
        hook.remove()
        return caught[0]

    def _draw(self, row: int, column: int, depth: str, stream: int, fault: str, network: str = ""):
        import matplotlib.pyplot as plt

        read = self.networks.get(network, partial(self.network, depth=depth, stream=stream))
        with self.faults[fault]:
            seen, scale = gradient_at(read, row, column)
        row, column = row // scale * scale, column // scale * scale  # where a coarse cell stands
        leaks = (seen.flatten()[row * SIZE + column :] > 0).sum()
        figure, axis = plt.subplots(figsize=(5.4, 4.4))
        shown = xray(axis, seen, row, column, f"pixels of the future that are seen: {leaks}")
        axis.set(xlabel="column", ylabel="row")
        figure.colorbar(shown, label="log10 (|gradient| / max)")
        return figure
