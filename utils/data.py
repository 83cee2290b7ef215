"""The data sets, read whole into memory as bytes and checked while they are read.

A batch of pictures is float32 (B, 3, S, S) in [-1, 1], where byte v is v / 127.5 - 1. Bits per dimension mean
something on 8-bit pixels only, so every picture is rounded to bytes after it has been resized.
"""

import csv
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import UsageError, cartoons, class_order

FOLDER = Path(__file__).resolve().parents[1] / "data"
DATASETS = ("cartoons", "cpen455", "cifar10", "folder")
SPLITS = ("train", "validation", "test")
CPEN455_CLASSES = ("burger", "panda", "koala", "pizza")
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
UNKNOWN = -1  # the label of pictures whose class is kept secret


class ImageDataset(torch.utils.data.Dataset):
    """Pictures and labels in memory; item i is (float32 (3, S, S) in [-1, 1], int label).

    Args:
        images: uint8 (N, 3, S, S).
        labels: int64 (N,), `UNKNOWN` where the class is not known.
        classes: the classes' names, by label.
        names: where each picture came from, as the data set names it.
    """

    def __init__(self, images: Tensor, labels: Tensor, classes: tuple[str, ...], names: list[str]):
        self.images, self.labels, self.classes, self.names = images, labels, classes, names

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return to_float(self.images[index]), int(self.labels[index])

    def subset(self, count: int) -> "ImageDataset":
        """So many pictures, all if there are fewer: chosen at random, the same ones everywhere, every class in its
        proportion."""
        return self._at(self._shuffled()[:count])

    def held_out(self, count: int) -> "ImageDataset":
        """So many other pictures, chosen likewise: none of those of `subset`, as long as both together are not more
        than there are."""
        return self._at(self._shuffled().flip(0)[:count])

    def _shuffled(self) -> Tensor:
        """The order in which `subset` takes pictures: each class is shuffled, then they are dealt out evenly."""
        generator, due = torch.Generator().manual_seed(0), torch.empty(len(self), dtype=torch.float64)
        for label in self.labels.unique():
            members = (self.labels == label).nonzero().flatten()
            turns = torch.randperm(len(members), generator=generator) + 0.5
            due[members] = turns.double() / len(members)  # of the classes' k-th pictures that of the largest is first
        return due.argsort(stable=True)

    def _at(self, places: Tensor) -> "ImageDataset":
        names = [self.names[i] for i in places.tolist()]
        return ImageDataset(self.images[places], self.labels[places], self.classes, names)

    def with_classes(self, class_names: Sequence[str], who: str) -> "ImageDataset":
        """The same pictures with labels that count along `class_names`, the classes of `who`. Raises UsageError, which
        shows both lists, where these are not the data set's own in any order."""
        order = class_order(self.classes, class_names, "the data set", who)
        table = torch.tensor([*order, UNKNOWN])  # UNKNOWN is -1: the last one
        return ImageDataset(self.images, table[self.labels], tuple(class_names), self.names)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Everything at once: float32 (N, 3, S, S) and int64 (N,)."""
        return to_float(self.images), self.labels


def to_float(images: Tensor) -> Tensor:
    """Bytes -> [-1, 1]."""
    return images.float() / 127.5 - 1


def to_bytes(images: Tensor) -> Tensor:
    """[-1, 1] -> bytes, rounded."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def shifted(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each picture of x (B, 3, S, S) moved by its own whole pixels, int64 (B,), less than S; its edge is repeated."""
    size = x.shape[-1]
    pixels = torch.arange(size, device=x.device)
    rows, columns = ((pixels - by[:, None]).clamp(0, size - 1) for by in (down, right))  # (B, S): where each comes from
    batch = torch.arange(len(x), device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def load_split(dataset: str, split: str, root: str | Path | None = None, image_size: int = 32) -> ImageDataset:
    """Reads a split of a data set.

    Args:
        dataset: one of `DATASETS`.
        split: one of `SPLITS`.
        root: where the data set lies; `folder` needs it, `cartoons` has no use for it.
        image_size: height and width that the pictures are resized to.

    Raises:
        UsageError: unknown name, missing or damaged files; the text says which and what to do.
    """
    for what, given, known in (("data set", dataset, DATASETS), ("split", split, SPLITS)):
        if given not in known:
            raise UsageError(f"unknown {what} {given!r}: choose from {', '.join(known)}")
    if dataset == "cartoons":
        images, labels = cartoons.draw(split, image_size)
        names = [f"{split}/{i:04d}" for i in range(len(labels))]
        return ImageDataset(torch.from_numpy(images), torch.from_numpy(labels), cartoons.CLASSES, names)
    if dataset == "cpen455":
        return _read_cpen455(find_cpen455(root), split, image_size)
    if dataset == "cifar10":
        return _read_cifar10(root, split, image_size)
    if root is None:
        raise UsageError("data set 'folder' needs --data-root DIR, with pictures in DIR/train/CLASS/")
    return _read_folder(Path(root), split, image_size)


def number_of_classes(dataset: str, root: str | Path | None = None) -> int:
    """How many classes a data set has, without reading its pictures."""
    if dataset == "folder" and root is not None:
        return len(_folder_classes(Path(root)))
    return 10 if dataset == "cifar10" else 4


def find_cpen455(root: str | Path | None = None) -> Path:
    """The course data's folder: `root`, else $CPEN455_ROOT, data/cpen455 or ../shared/cpen455, the first that has it.
    Raises UsageError, which says where it was looked for."""
    places = [root] if root else [os.environ.get("CPEN455_ROOT"), FOLDER / "cpen455", FOLDER / "../../shared/cpen455"]
    candidates = [Path(place) for place in places if place]
    for candidate in candidates:
        if (candidate / "train.csv").is_file():
            return candidate
    looked, cure = ", ".join(map(str, candidates)), _cure("cpen455", root)
    raise UsageError(f"data set 'cpen455' not found (looked in {looked}): {cure}, or set CPEN455_ROOT to its folder")


def _cure(dataset: str, root: str | Path | None) -> str:
    return f"`python -m kit data {dataset}{f' --root {shlex.quote(str(root))}' if root else ''}` downloads it"


def _read_cpen455(root: Path, split: str, image_size: int) -> ImageDataset:
    """`{split}.csv` holds rows `path,label` without a header; paths are relative to the csv's folder."""
    table = root / f"{split}.csv"
    if not table.is_file():
        raise UsageError(f"{table} is missing: the data set in {root} is not complete")
    names, labels = [], []
    with open(table, newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if len(row) != 2:
                raise UsageError(f"{table}, row {number}: expected 2 columns (path,label), found {len(row)}")
            try:
                label = int(row[1])
            except ValueError:
                raise UsageError(f"{table}, row {number}: the label {row[1]!r} is not a whole number") from None
            if not UNKNOWN <= label < len(CPEN455_CLASSES):
                raise UsageError(f"{table}, row {number}: the label {label} is not in -1 ... 3")
            if not (root / row[0]).is_file():
                raise UsageError(f"{table}, row {number}: there is no file {row[0]}")
            names.append(row[0])
            labels.append(label)
    if not names:
        raise UsageError(f"{table} is empty")
    images = read_images([root / name for name in names], image_size, expected_size=64)
    return ImageDataset(images, torch.tensor(labels), CPEN455_CLASSES, names)


def _read_cifar10(root: str | Path | None, split: str, image_size: int) -> ImageDataset:
    """45,000 training and 5,000 validation pictures from the official training files; the official test set."""
    from torchvision.datasets import CIFAR10

    folder = Path(root or FOLDER / "cifar10")
    try:
        official = CIFAR10(str(folder), train=split != "test", download=False)
    except RuntimeError:
        raise UsageError(f"CIFAR-10 not found in {folder}: {_cure('cifar10', root)}") from None
    part = {"train": slice(0, 45000), "validation": slice(45000, None), "test": slice(None)}[split]
    images = torch.stack([to_tensor(Image.fromarray(array), image_size) for array in official.data[part]])
    names = [f"{split}/{i:05d}" for i in range(len(images))]
    return ImageDataset(images, torch.tensor(official.targets[part]), tuple(official.classes), names)


def _read_folder(root: Path, split: str, image_size: int) -> ImageDataset:
    """`root/split/CLASS/*`; the classes are the folders of `root/train`, in alphabetical order."""
    classes = _folder_classes(root)
    if not (root / split).is_dir():
        raise UsageError(f"{root / split} is missing: put pictures in {root}/{split}/CLASS/")
    files = [p for name in classes for p in sorted((root / split / name).glob("*")) if p.suffix.lower() in SUFFIXES]
    if not files:
        raise UsageError(f"no pictures in {root / split}: put some in {root}/{split}/CLASS/")
    images = read_images(files, image_size, expected_size=image_size)
    labels = torch.tensor([classes.index(file.parent.name) for file in files])
    return ImageDataset(images, labels, classes, [str(file.relative_to(root)) for file in files])


def _folder_classes(root: Path) -> tuple[str, ...]:
    classes = tuple(sorted(p.name for p in (root / "train").glob("*") if p.is_dir()))
    if not classes:
        raise UsageError(f"no class folders in {root / 'train'}: put pictures in {root}/train/CLASS/")
    return classes


def read_images(files: list[Path], image_size: int, expected_size: int) -> Tensor:
    """Reads files as RGB, resized to uint8 (N, 3, S, S); says once if some were not of the expected size."""
    images, odd = [], []
    for file in files:
        try:
            with Image.open(file) as picture:
                if picture.size != (expected_size, expected_size):
                    odd.append(file)
                images.append(to_tensor(picture, image_size))
        except FileNotFoundError:
            raise UsageError(f"there is no file {file}") from None
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UsageError(f"{file} cannot be read as a picture: {error}") from None
    if odd:
        those = f"{len(odd)} of {len(files)} pictures were not {expected_size}x{expected_size}"
        print(f"note: {those} and were resized to {image_size}x{image_size}, {odd[0]} first", file=sys.stderr)
    return torch.stack(images)


def to_tensor(picture: Image.Image, image_size: int) -> Tensor:
    """RGB, antialiased bilinear, rounded to bytes: uint8 (3, S, S)."""
    picture = picture.convert("RGB")
    if picture.size != (image_size, image_size):
        picture = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
