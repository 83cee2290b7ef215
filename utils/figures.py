"""Pictures that people look at."""

import functools
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from . import composed, listing, note
from .checkpoints import write_atomically
from .data import to_bytes

# Okabe and Ito's colours, which colour-blind people tell apart; the n-th class has the n-th
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
LONGEST = 20  # letters of a class's name that a picture has room for


@functools.cache
def lettering(size: int):
    """DejaVu Sans, which matplotlib brings and writes with: Latin, Greek, Cyrillic. Without matplotlib Pillow's font,
    which has little more than ASCII."""
    try:
        import matplotlib

        return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)
    except (ImportError, OSError):
        return ImageFont.load_default(size)


@functools.cache
def can_draw(text: str) -> bool:
    """Whether the font has every letter of it, all of a script that runs from left to right."""
    font, backwards = lettering(16), ("R", "AL")  # old releases of matplotlib draw these in the wrong order
    box = bytes(font.getmask("\U0010ffff"))  # no letter has this number
    return text.isprintable() and not any(
        unicodedata.bidirectional(letter) in backwards or bytes(font.getmask(letter)) == box for letter in text
    )


def shortened(name: str, most: int = LONGEST) -> str:
    """Of more than `most` letters the first and the last, where long names differ."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[most // 2 + 1 - most :]}"


def all_shortened(names: Sequence[str], most: int) -> list[str]:
    """The names shortened, or as they are where two would then be the same."""
    short = [shortened(name, most) for name in names]
    return short if len(set(short)) == len(set(names)) else list(names)


@functools.cache  # so that the note comes once
def drawable(class_names: tuple[str, ...]) -> tuple[str, ...]:
    """The names as pictures show them: long ones shortened, and `class 0` for class 0 if the font cannot draw its name.
    A note on standard error says which number stands for which name."""
    numbers = tuple(f"class {label}" for label in range(len(class_names)))
    shown = tuple(
        shortened(name) if can_draw(name) and name.strip() else number
        for name, number in zip(map(composed, class_names), numbers, strict=True)
    )
    if len(set(shown)) < len(shown):  # shortened, or beside a class that is called `class 0`
        shown = numbers
    told = [
        f"{number} is {class_names[n]!r}" for n, number in enumerate(numbers) if shown[n] == number != class_names[n]
    ]
    if told:
        lacking = sorted({repr(letter) for name in class_names for letter in name if not can_draw(letter)})
        reason = f"the font lacks {listing(lacking)}" if lacking else "some names would look alike"
        note(f"{reason}, so pictures show numbers: {listing(told)}")
    return shown


def plain(text: str) -> str:
    """A text as matplotlib shows it letter by letter: `$` begins no formula, a leading `_` does not hide it from a
    legend, and `?` stands for what the font lacks."""
    letters = (c if c == "\n" or can_draw(c) else "?" for c in composed(text))
    return (" " if text.startswith("_") else "") + "".join(letters).replace("$", r"\$")


def gallery(images: Tensor, labels: Tensor, class_names: tuple[str, ...], zoom: int = 3) -> Image.Image:
    """One row for each class that has pictures, its name at the left. images: (N, 3, S, S) in [-1, 1]; labels: (N,)."""
    size, gap, names = images.shape[-1] * zoom, 2 * zoom, drawable(tuple(class_names))
    font = lettering(max(11, min(size // 6, 16)))
    margin = gap + max(int(font.getlength(name)) for name in names) + gap
    there, counts = labels.unique(return_counts=True)
    sheet = Image.new("RGB", (margin + int(counts.max()) * (size + gap), gap + len(there) * (size + gap)), "white")
    pen = ImageDraw.Draw(sheet)
    for row, label in enumerate(there.tolist()):
        top = gap + row * (size + gap)
        pen.text((gap, top + size // 2), names[label], fill="black", font=font, anchor="lm")
        for column, index in enumerate((labels == label).nonzero().flatten().tolist()):
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

    plt.rc("figure", figsize=(6, 3.4), dpi=100, facecolor="white")
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
            axes.flat[n].set_title(plain(titles[n]), fontsize=8)
    return figure
