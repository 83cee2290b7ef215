"""The small CNN that `benchmarks.quality` compares with: trained on the same pictures to name their classes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from utils.data import ImageDataset, shifted
from utils.device import autocast, pick_precision

WIDTHS = (32, 64, 128, 256)  # 1.17 million parameters
BATCH, LR, WEIGHT_DECAY, SHIFT = 64, 2e-3, 0.05, 2


class SmallCNN(nn.Module):
    """Two convolutions a scale, four scales; -> features (B, 256) and logits (B, C)."""

    def __init__(self, num_classes: int):
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in zip((3, *WIDTHS), WIDTHS, strict=False):
            for channels in (before, width):
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
        self.body = nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(WIDTHS[-1], num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return features, self.head(features)


def held_and_rest(train: ImageDataset, seed: int) -> tuple[ImageDataset, ImageDataset]:
    """A random tenth of the training pictures, which the CNN does not see, and those that it learns from."""
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    return train.at(order[: len(order) // 10]), train.at(order[len(order) // 10 :])


def augment(x: Tensor) -> Tensor:
    """Mirrors each picture with probability 1/2 and shifts it by up to `SHIFT` pixels; edges are repeated."""
    x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
    return shifted(x, *torch.randint(-SHIFT, SHIFT + 1, (2, len(x))))


def train_cnn(x: Tensor, y: Tensor, num_classes: int, epochs: int, device: torch.device, seed: int) -> SmallCNN:
    torch.manual_seed(seed)
    cnn = SmallCNN(num_classes).to(device)
    optimizer = torch.optim.AdamW(cnn.parameters(), weight_decay=WEIGHT_DECAY)
    nr_batches = max(1, len(x) // BATCH)
    step, steps = 0, epochs * nr_batches
    for _ in tqdm(range(epochs), desc="CNN", leave=False, disable=None):
        for part in torch.randperm(len(x)).tensor_split(nr_batches):
            for group in optimizer.param_groups:  # warm-up, then cosine
                group["lr"] = LR * min(1.0, (step + 1) / nr_batches) * 0.5 * (1 + math.cos(math.pi * step / steps))
            with autocast(device, pick_precision(device)):
                loss = F.cross_entropy(cnn(augment(x[part]).to(device))[1], y[part].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    return cnn.eval()


@torch.inference_mode()
def outputs(cnn: SmallCNN, x: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, 256) and logits (N, C), float64 on the CPU."""
    device = next(cnn.parameters()).device
    parts = [cnn(part.to(device)) for part in x.split(4 * BATCH)]
    features, logits = (torch.cat(both).cpu().double() for both in zip(*parts, strict=True))
    return features, logits
