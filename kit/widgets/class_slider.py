"""The class slider: pictures of the chosen class, drawn while you watch."""

import torch
from torch import Tensor

from utils import figures
from utils.model import ConditionalPixelCNN

from .compiled import generate
from .drawing import Drawing, drawing_controls


class ClassSlider(Drawing):
    """Pictures that grow row by row; moving a control begins a new drawing.

    Args:
        model: whose classes are offered, by name.
        zoom: screen pixels for one of the picture's.
    """

    def __init__(self, model: ConditionalPixelCNN, zoom: int = 4):
        self.model, self.zoom = model, zoom
        super().__init__(self._draw, drawing_controls(model, count=4), model.class_names)

    def _draw(self, progress, label: int, temperature: float, seed: int, count: int) -> None:
        def on_row(_row: int, images: Tensor) -> None:
            progress(lambda: figures.gallery(images, torch.zeros_like(labels), (name,), self.zoom))

        name = figures.drawable(self.class_names)[label]
        labels, generator = torch.full((count,), label), torch.Generator().manual_seed(seed)
        generate(self.model, labels, generator=generator, temperature=temperature, on_row=on_row)
