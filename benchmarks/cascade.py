"""Coarse to fine: one network draws an 8x8 picture of the class, a second one the 32x32 picture, which it sees all of.

The coarse picture c is a function of the fine one x, so log p(c | y) + log p(x | c, y) is at most the log p(x | y) of
the two together: the bits per dimension that come of it are an upper bound of theirs.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils import mixture, training
from utils.data import ImageDataset, to_bytes
from utils.fusion import Fusion
from utils.layers import concat_elu
from utils.model import ConditionalPixelCNN, ModelConfig
from utils.sampling import generate

from .going_on import generative, gone_on

FACTOR = 4  # the coarse picture is so many times smaller
COARSE = dict(nr_resnet=1, nr_filters=48, nr_logistic_mix=5, dropout=0.0, fusion="middle,late,film")
COARSE_RATES, COARSE_BATCH = dict(lr=0.02, adam_lr=0.005), 32
FINE_RATES, FINE_BATCH = dict(lr=5e-3, adam_lr=1e-3), 8


def coarse_of(x: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 3, H / 4, W / 4): means of 4x4 pixels, on the 256 levels."""
    return mixture.to_levels(F.avg_pool2d(x, FACTOR))


class FusionOfCoarse(nn.Module):
    """A network's fusion that also adds, at u0 and ul0, what two convolutions make of the coarse picture. It starts at
    zero, so the network begins as it was."""

    def __init__(self, fusion: Fusion, nr_filters: int):
        super().__init__()
        self.fusion = fusion
        self.read = nn.Conv2d(3, nr_filters, 3, padding=1)
        self.tell = nn.Conv2d(2 * nr_filters, 2 * nr_filters, 3, padding=1)
        nn.init.zeros_(self.tell.weight)
        nn.init.zeros_(self.tell.bias)
        self.told: dict[str, Tensor] = {}
        self.row = 0

    @property
    def maps(self) -> nn.ModuleDict:
        return self.fusion.maps

    def see(self, coarse: Tensor) -> None:
        """The coarse pictures (B, 3, H / 4, W / 4) of the next pass, or of the next drawing, which comes row by row."""
        seen = F.interpolate(coarse, scale_factor=FACTOR)
        u0, ul0 = self.tell(concat_elu(self.read(seen))).chunk(2, dim=1)  # (B, F, H, W) each
        self.told, self.row = {"u0": u0, "ul0": ul0}, 0

    def modulations(self, y: Tensor) -> list:
        return self.fusion.modulations(y)

    def add(self, where: str, h: Tensor, y: Tensor) -> Tensor:
        h = self.fusion.add(where, h, y)
        if where not in ("u0", "ul0"):
            return h
        told = self.told[where]
        if h.shape[2] == told.shape[2]:
            return h + told
        told = told[:, :, self.row, None]
        self.row += where == "ul0"
        return h + told


def loss_given_coarse(model: ConditionalPixelCNN, x: Tensor, y: Tensor, which) -> tuple[Tensor, Tensor]:
    model.fusion.see(coarse_of(x))  # type: ignore[operator]
    return training.generative_loss(model, x, y)


class CoarseToFine:
    """The two networks, of which the fine one goes on from `start`."""

    def __init__(self, start: ConditionalPixelCNN, data: ImageDataset, steps: int, coarse_steps: int, seed: int):
        self.size = start.config.image_size
        small = ImageDataset(to_bytes(coarse_of(data.tensors()[0])), data.labels, data.classes, data.names)
        config = ModelConfig(len(data.classes), image_size=self.size // FACTOR, **COARSE)
        coarse = ConditionalPixelCNN(config)
        training.initialise(coarse, small.images, small.labels, seed)
        self.coarse = gone_on(coarse, small, COARSE_BATCH, COARSE_RATES, coarse_steps, seed, generative)
        fine = copy.deepcopy(start)
        fine.fusion = FusionOfCoarse(fine.fusion, start.config.nr_filters)
        self.fine = gone_on(fine, data, FINE_BATCH, FINE_RATES, steps, seed, loss_given_coarse)

    def generate(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        self.fine.fusion.see(generate(self.coarse, labels, generator=generator))
        return generate(self.fine, labels, generator=generator)

    @torch.inference_mode()
    def bits_per_dim(self, data: ImageDataset) -> float:
        """At most so many, over all pictures, under their labels."""
        total = 0.0
        x, y = data.tensors()
        for part, labels in zip(x.split(32), y.split(32), strict=True):
            coarse = coarse_of(part)
            self.fine.fusion.see(coarse)
            total -= float(mixture.log_prob(self.fine(part, labels), part).sum())
            total -= float(mixture.log_prob(self.coarse(coarse, labels), coarse).sum())
        return mixture.bits_per_dim(total / len(x), self.size)
