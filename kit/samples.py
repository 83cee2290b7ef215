"""Drawn pictures: a folder of them, named as the course names them, written whole and read strictly; a gallery."""

import re
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from utils import UsageError
from utils.figures import gallery, save_png, to_picture
from utils.model import ConditionalPixelCNN
from utils.pictures import visible

from . import distributed
from .console import typed
from .platforms import check_writable

SAMPLE = re.compile(r"Class(\d+)_image_(\d+)\.png")


def new_folder(path: str | Path) -> Path:
    """The path, if nothing is there or a folder without anything of a person's: no old file may be taken for a new one.
    Raises UsageError, also where one may not write."""
    path = Path(path)
    if path.exists() and (not path.is_dir() or visible(path)):
        raise UsageError(f"{path} is there already and not empty: choose another, so that nothing old is counted")
    check_writable(path)
    return path


def save_samples(images: Tensor, labels: Tensor, folder: Path) -> None:
    """Writes (N, 3, S, S) as `Class{c}_image_{nn}.png`, counted from 1 in each class, as the course names them."""
    counts: Counter[int] = Counter()
    for label, image in zip(labels.tolist(), images, strict=True):
        counts[label] += 1
        save_png(to_picture(image), folder / f"Class{label}_image_{counts[label]:02d}.png")


def list_samples(folder: Path) -> list[Path]:
    """The samples in a folder, by name. Refuses whatever `generate` has not written there in one go."""
    files: list[Path] = []
    numbers: dict[str, list[int]] = {}
    for path in visible(folder) if folder.is_dir() else []:
        match = SAMPLE.fullmatch(path.name)
        if match and path.is_file():  # a pipe, say, would be waited for
            files.append(path)
            numbers.setdefault(match[1], []).append(int(match[2]))
        elif path.name != "gallery.png":
            raise UsageError(f"{path} is not a sample (Class0_image_01.png ...): remove it, or generate a new folder")
    if not files:
        drawing = typed("generate", "--checkpoint", "cartoons", "--out", folder)
        raise UsageError(f"no samples in {folder}: `{drawing}`, say, draws some")
    per_class = len(files) // len(numbers)
    for label, found in numbers.items():
        if sorted(found) != list(range(1, per_class + 1)):
            raise UsageError(
                f"{folder} does not hold one set of samples: of Class{label}, {per_class} are due, numbered from 1; "
                f"some are stale or missing, generate a new folder"
            )
    return files


def draw_gallery(model: ConditionalPixelCNN, path: Path, seed: int, per_class: int = 8) -> None:
    """Draws `per_class` pictures of every class, random by the seed, into a PNG. All processes must call it."""
    labels = torch.arange(model.config.num_classes).repeat_interleave(per_class)
    images = distributed.generate(model, labels, seed)
    if distributed.rank() == 0:
        save_png(gallery(images, labels, model.class_names), path)
