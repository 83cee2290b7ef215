"""A network that goes on learning from a data set, with any loss: what `labels`, `drawing` and `cascade` compare."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor

from utils import training
from utils.data import ImageDataset, to_float
from utils.model import ConditionalPixelCNN

WARMUP, EMA_DECAY = 50, 0.99
# of (model, x, y, which): what is minimised and the bits per dimension, (B,) each; `which` is a pair of int64 (B,), the
# places of the pictures in the data set, and 1 where they are mirrored
Loss = Callable[..., tuple[Tensor, Tensor]]


def generative(model, x: Tensor, y: Tensor, which) -> tuple[Tensor, Tensor]:
    return training.generative_loss(model, x, y)


class GoingOn:
    """Muon's steps on batches drawn at random, mirrored at random.

    Args:
        rates: `lr` and `adam_lr` of `TrainConfig`.
    """

    def __init__(
        self, model: ConditionalPixelCNN, data: ImageDataset, batch: int, rates: dict, loss: Loss = generative
    ):
        self.model, self.data, self.batch, self.loss = model.train().requires_grad_(True), data, batch, loss
        self.optimizer = training.build_optimizer(model, training.TrainConfig(optimizer="muon", **rates))
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]

    def step(self, share_of_rate: float = 1.0) -> None:
        places, mirrored = torch.randint(len(self.data), (self.batch,)), torch.randint(2, (self.batch,))
        x = to_float(self.data.images[places])
        x = torch.where(mirrored[:, None, None, None] == 1, x.flip(3), x)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share_of_rate

        def loss_of(model, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return self.loss(model, x, y, (places, mirrored))

        y = self.data.labels[places]
        training.train_step(self.model, x, y, self.optimizer, self.scaler, torch.bfloat16, 1.0, loss_of)


def gone_on(
    start: ConditionalPixelCNN,
    data: ImageDataset,
    batch: int,
    rates: dict,
    steps: int,
    seed: int,
    loss: Loss = generative,
) -> ConditionalPixelCNN:
    """-> the average of a copy that has gone on for so many steps, along a cosine."""
    torch.manual_seed(seed)
    going, averaged = GoingOn(copy.deepcopy(start), data, batch, rates, loss), copy.deepcopy(start).eval()
    for n in range(steps):
        going.step(0.5 * (1 + math.cos(math.pi * n / steps)) * min(1.0, (n + 1) / WARMUP))
        training.update_average(averaged, going.model, EMA_DECAY, n)
    return averaged.requires_grad_(False)
