"""The top of a picture is given; the model draws the rest."""

import torch
from PIL import Image
from torch import Tensor

from utils import figures, mixture
from utils.data import ImageDataset
from utils.model import ConditionalPixelCNN

from .base import captioned, matched
from .compiled import generate
from .drawing import Drawing, drawing_controls


class Completion(Drawing):
    """The top of a picture is given, the model draws the rest for a class of your choice, several times.

    Below each stands the log-likelihood, under that class, of the rows that were not given.

    Args:
        model: draws and judges.
        dataset: where the pictures come from; UsageError if none do, or they have not the model's size or classes.
        zoom: screen pixels for one of the picture's.
    """

    def __init__(self, model: ConditionalPixelCNN, dataset: ImageDataset, zoom: int = 4):
        from ipywidgets import IntSlider

        dataset = matched(model, dataset)
        self.model, self.dataset, self.zoom = model, dataset, zoom
        size, first = model.config.image_size, dataset[0][1]
        start = first if 0 <= first < model.config.num_classes else 0  # not UNKNOWN, nor a number the model lacks
        controls = {
            "picture": IntSlider(0, min=0, max=len(dataset) - 1),
            "given": IntSlider(size // 2, min=0, max=size - 1, description="rows given"),
            **drawing_controls(model, count=4, label=start),
        }
        super().__init__(self._draw, controls, model.class_names)

    def log_likelihoods(self, images: Tensor, label: int, given: int) -> Tensor:
        """Nats of the rows from `given` on, each given what came before. images: (N, 3, S, S) -> (N,)"""
        images = images.to(next(self.model.parameters()).device)
        with torch.inference_mode():
            params = self.model(images, torch.full((len(images),), label, device=images.device))
            nats = mixture.log_prob(params, images, reduce=False)  # (N, S, S)
        return nats[:, given:].sum(dim=(1, 2)).cpu()

    def _draw(self, progress, picture: int, given: int, label: int, temperature: float, seed: int, count: int):
        truth = self.dataset[picture][0][None]  # (1, 3, S, S)
        top, name = truth.clone(), figures.drawable(self.class_names)[label]
        top[:, :, given:] = 1.0  # white

        def sheet(images: Tensor, numbers: list[str]) -> Image.Image:
            heads = [f"{given} rows given", *[name] * count, "truth"]
            captions = [f"{head}\n{text}" for head, text in zip(heads, ["", *numbers], strict=True)]
            return captioned(torch.cat([top, images.cpu(), truth]), captions, self.zoom)

        images = generate(
            self.model,
            torch.full((count,), label),
            generator=torch.Generator().manual_seed(seed),
            temperature=temperature,
            prefix=truth[:, :, :given],
            on_row=lambda _row, images: progress(lambda: sheet(images, ["\n"] * (count + 1))),
        ).cpu()
        nats, size = self.log_likelihoods(torch.cat([images, truth]), label, given), truth.shape[-1]
        bits = mixture.bits_per_dim(-nats, size) * size / (size - given)
        numbers = [f"{n:.0f} nats\n{b:.2f} bits/dim" for n, b in zip(nats.tolist(), bits.tolist(), strict=True)]
        progress(lambda: sheet(images, numbers))
