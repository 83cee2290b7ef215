"""Pictures that people look at."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .checkpoints import write_atomically
from .data import to_bytes


def gallery(images: Tensor, labels: Tensor, class_names: tuple[str, ...], zoom: int = 3) -> Image.Image:
    """One row of pictures for each class, its name at the left. images: (N, 3, S, S) in [-1, 1]; labels: (N,)."""
    size, gap = images.shape[-1] * zoom, 2 * zoom
    pictures = to_bytes(images.cpu()).permute(0, 2, 3, 1).numpy()  # (N, S, S, 3)
    font = ImageFont.load_default(size // 6)
    margin = gap + max(int(font.getlength(name)) for name in class_names) + gap
    columns = int(torch.bincount(labels.cpu()).max())
    sheet = Image.new("RGB", (margin + columns * (size + gap), gap + len(class_names) * (size + gap)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, name in enumerate(class_names):
        top = gap + row * (size + gap)
        pen.text((gap, top + size // 2), name, fill="black", font=font, anchor="lm")
        for column, index in enumerate((labels == row).nonzero().flatten().tolist()):
            tile = Image.fromarray(pictures[index]).resize((size, size), Image.Resampling.NEAREST)
            sheet.paste(tile, (margin + column * (size + gap), top))
    return sheet


def save_png(picture: Image.Image, path: str | Path) -> None:
    """Writes a PNG, whole or not at all."""
    write_atomically(path, lambda temporary: picture.save(temporary, format="PNG"))


def to_picture(image: Tensor) -> Image.Image:
    """(3, H, W) in [-1, 1] -> a picture."""
    return Image.fromarray(to_bytes(image.cpu()).permute(1, 2, 0).numpy())
