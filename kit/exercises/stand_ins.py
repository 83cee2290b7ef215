"""What the checks hand to an attempt in the place of a network and of pictures, and what watches its operations."""

import math
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


def random_pictures(count: int, height: int, width: int) -> Tensor:
    """Random ones on the 256 levels, float64 (N, 3, H, W) in [-1, 1]."""
    return torch.randint(0, 256, (count, 3, height, width)).double() / 127.5 - 1


class StandIn(nn.Module):
    """In the place of a network: double precision, quick, on pictures of any size; it keeps what it is called with."""

    def __init__(self, nr_classes: int = 3, nr_logistic_mix: int = 2):
        super().__init__()
        self.config = SimpleNamespace(num_classes=nr_classes)
        self.class_names = tuple(str(label) for label in range(nr_classes))
        self.conv = nn.Conv2d(3, 10 * nr_logistic_mix, 1)
        self.label = nn.Embedding(nr_classes, 10 * nr_logistic_mix)
        self.calls: list[tuple[Tensor, Tensor, bool]] = []
        self.double()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if int(y.max()) >= self.config.num_classes:
            raise ValueError(f"label {int(y.max())} for a model of {self.config.num_classes} classes")
        self.calls.append((x, y, self.training))
        if self.training:
            torch.rand(())  # as dropout does: an order that hangs on PyTorch's own generator is found out
        return self.conv(x) + self.label(y)[:, :, None, None]


class Grey(nn.Module):
    """In the place of a network too: under label c every colour value is byte 128, `LEVEL`, with probability p[c]."""

    LEVEL = 1 / 255

    def __init__(self, probabilities: list[float]):
        super().__init__()
        self.config = SimpleNamespace(num_classes=len(probabilities))
        self.class_names = tuple(str(label) for label in range(len(probabilities)))
        numbers = torch.zeros(len(probabilities), 10, 1, 1, dtype=torch.float64)  # one logistic, no coupling
        numbers[:, [1, 4, 7]] = self.LEVEL
        scales = torch.tensor([510 * math.atanh(p) for p in probabilities], dtype=torch.float64)
        numbers[:, [2, 5, 8]] = -scales.log()[:, None, None, None]  # the mean's bin has tanh(1 / (510 scale))
        self.numbers = nn.Parameter(numbers)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.numbers[y].expand(len(x), 10, *x.shape[2:])


class Watch(TorchDispatchMode):
    """Sees every operation while it is open."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch._dynamo is imported, which takes two seconds; nothing is compiled here
