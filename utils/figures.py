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
    pictures = to_bytes(images.cpu()).permute(0, 2, 3, 1).numpy()  # (N, S, S, 3)
    font = ImageFont.load_default(min(size // 6, 16))
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


def captioned(images: Tensor, captions: list[str], zoom: int = 4) -> Image.Image:
    """Pictures side by side, each with its lines of text below it. images: (N, 3, S, S) in [-1, 1]."""
    size, gap, font = images.shape[-1] * zoom, 2 * zoom, ImageFont.load_default(13)
    lines = 1 + max(caption.count("\n") for caption in captions)
    width = max(size, *(int(font.getlength(line)) for caption in captions for line in caption.split("\n")))
    sheet = Image.new("RGB", (gap + len(images) * (width + gap), gap + size + gap + 18 * lines), "white")
    pen = ImageDraw.Draw(sheet)
    for column, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left = gap + column * (width + gap)
        sheet.paste(to_picture(image).resize((size, size), Image.Resampling.NEAREST), (left, gap))
        pen.multiline_text((left, gap + size + gap // 2), caption, fill="black", font=font)
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

    plt.rcParams.update(
        {
            "figure.figsize": (6, 3.4),
            "figure.dpi": 90,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.prop_cycle": plt.cycler(color=PALETTE),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
        }
    )


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
