"""Pictures that people look at."""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .checkpoints import write_atomically
from .data import to_bytes

# Okabe and Ito's colours, which colour-blind people tell apart; the n-th class has the n-th
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")


def gallery(images: Tensor, labels: Tensor, class_names: tuple[str, ...], zoom: int = 3) -> Image.Image:
    """One row of pictures for each class, its name at the left. images: (N, 3, S, S) in [-1, 1]; labels: (N,)."""
    size, gap = images.shape[-1] * zoom, 2 * zoom
    font = ImageFont.load_default(min(size // 6, 16))
    margin = gap + max(int(font.getlength(name)) for name in class_names) + gap
    columns = int(torch.bincount(labels.cpu()).max())
    sheet = Image.new("RGB", (margin + columns * (size + gap), gap + len(class_names) * (size + gap)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, name in enumerate(class_names):
        top = gap + row * (size + gap)
        pen.text((gap, top + size // 2), name, fill="black", font=font, anchor="lm")
        for column, index in enumerate((labels == row).nonzero().flatten().tolist()):
            tile = to_picture(images[index]).resize((size, size), Image.Resampling.NEAREST)
            sheet.paste(tile, (margin + column * (size + gap), top))
    return sheet


def save_png(picture: Image.Image, path: str | Path) -> None:
    """Writes a PNG, whole or not at all."""
    write_atomically(path, lambda temporary: picture.save(temporary, format="PNG"))


def to_picture(image: Tensor) -> Image.Image:
    """(3, H, W) in [-1, 1] -> a picture."""
    return Image.fromarray(to_bytes(image.cpu()).permute(1, 2, 0).numpy())


def style() -> None:
    """Sets matplotlib to the kit's looks: small, quiet, in `PALETTE`, on white in light and dark themes."""
    import matplotlib.pyplot as plt

    plt.rc("figure", figsize=(6, 3.4), dpi=90, facecolor="white")
    plt.rc("figure.constrained_layout", use=True)
    plt.rc("font", size=10)
    plt.rc("axes", prop_cycle=plt.cycler(color=PALETTE))
    plt.rc("axes.spines", top=False, right=False)
    plt.rc("image", cmap="gray", interpolation="nearest")


def show_images(images: Tensor, titles: list[str] | None = None, columns: int = 8, size: float = 1.1):
    """Pictures in a grid, each under its title; -> the matplotlib figure. images: (N, 3, S, S) in [-1, 1]."""
    import matplotlib.pyplot as plt

    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    height = size * (1.25 if titles else 1)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * height), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for n, image in enumerate(images):
        axes.flat[n].imshow(to_picture(image))
        if titles:
            axes.flat[n].set_title(titles[n], fontsize=8)
    return figure
