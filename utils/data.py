"""The data sets, read whole into memory as bytes and checked while they are read.

A batch of pictures is float32 (B, 3, S, S) in [-1, 1], where byte v is v / 127.5 - 1. Bits per dimension mean
something on 8-bit pixels only, so every picture is rounded to bytes after it has been resized.
"""

import csv
import io
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from . import UsageError, at_home, cartoons, class_order, composed, listing, note
from .pictures import find_pictures, read_images, say_left_out, to_tensor, visible

FOLDER = Path(__file__).resolve().parents[1] / "data"
DATASETS = ("cartoons", "cartoons-hard", "cpen455", "cifar10", "folder")
SPLITS = ("train", "validation", "test")
CPEN455_CLASSES = ("burger", "panda", "koala", "pizza")
FOLDERS = {"train": ("train", "training"), "validation": ("validation", "val", "valid"), "test": ("test",)}
BESIDE = re.compile(rf"({'|'.join(sum(FOLDERS.values(), ()))})|.*\.md|contact_sheet\.png", re.IGNORECASE)
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
        return self.at(self._shuffled()[:count])

    def held_out(self, count: int) -> "ImageDataset":
        """So many other pictures, chosen likewise: none of those of `subset`, as long as both together are not more
        than there are."""
        return self.at(self._shuffled().flip(0)[:count])

    def _shuffled(self) -> Tensor:
        """The order in which `subset` takes pictures: each class is shuffled, then they are dealt out evenly."""
        generator, due = torch.Generator().manual_seed(0), torch.empty(len(self), dtype=torch.float64)
        names = sorted(range(len(self.classes)), key=self.classes.__getitem__)  # whatever their numbers are
        for label in [UNKNOWN, *names]:
            members = (self.labels == label).nonzero().flatten()
            turns = torch.randperm(len(members), generator=generator) + 0.5
            due[members] = turns.double() / len(members)  # of the classes' k-th pictures that of the largest is first
        return due.argsort(stable=True)

    def at(self, places: Tensor) -> "ImageDataset":
        """The pictures at these places, in this order."""
        names = [self.names[i] for i in places.tolist()]
        return ImageDataset(self.images[places], self.labels[places], self.classes, names)

    def absent(self) -> list[str]:
        """The classes that have no picture."""
        there = set(self.labels.tolist())
        return [name for label, name in enumerate(self.classes) if label not in there]

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


def turned(x: Tensor, quarters: Tensor) -> Tensor:
    """Each picture of x (B, 3, S, S) turned to the left by its own number of quarters, int64 (B,), 0 to 3."""
    for n in (1, 2, 3):
        x = torch.where((quarters == n)[:, None, None, None], torch.rot90(x, n, (2, 3)), x)
    return x


def load_split(dataset: str, split: str, root: str | Path | None = None, image_size: int = 32) -> ImageDataset:
    """Reads a split of a data set.

    Args:
        dataset: one of `DATASETS`.
        split: one of `SPLITS`.
        root: where the data set lies; `folder` needs it, the cartoons have no use for it.
        image_size: height and width that the pictures are resized to.

    Raises:
        UsageError: unknown name, missing or damaged files; the text says which and what to do.
    """
    for what, given, known in (("data set", dataset, DATASETS), ("split", split, SPLITS)):
        if given not in known:
            raise UsageError(f"unknown {what} {given!r}: choose from {', '.join(known)}")
    root = Path(at_home(root)) if root else None
    if dataset in ("cartoons", "cartoons-hard"):
        images, labels = cartoons.draw(split, image_size, hard=dataset == "cartoons-hard")
        names = [f"{split}/{i:04d}" for i in range(len(labels))]
        return ImageDataset(torch.from_numpy(images), torch.from_numpy(labels), cartoons.CLASSES, names)
    if dataset == "cpen455":
        return _read_cpen455(find_cpen455(root), split, image_size)
    if dataset == "cifar10":
        return _read_cifar10(root, split, image_size)
    if root is None:
        raise UsageError("data set 'folder' needs --data-root DIR, with pictures in DIR/train/CLASS/")
    return _read_folder(root, split, image_size)


def number_of_classes(dataset: str, root: str | Path | None = None) -> int:
    """How many classes a data set has, without reading its pictures."""
    if dataset == "folder" and root is not None:
        return len(class_folders(_split_folder(Path(at_home(root)), "train")))
    return 10 if dataset == "cifar10" else 4


def find_cpen455(root: str | Path | None = None) -> Path:
    """The course data's folder: `root`, else $CPEN455_ROOT, data/cpen455 or ../shared/cpen455, the first that has it.
    Raises UsageError, which says where it was looked for."""
    places = [root] if root else [os.environ.get("CPEN455_ROOT"), FOLDER / "cpen455", FOLDER / "../../shared/cpen455"]
    candidates = [Path(at_home(place)) for place in places if place]
    for candidate in candidates:
        if (candidate / "train.csv").is_file():
            return candidate
    looked, cure = ", ".join(map(str, candidates)), _cure("cpen455", root)
    raise UsageError(f"data set 'cpen455' not found (looked in {looked}): {cure}, or set CPEN455_ROOT to its folder")


def _cure(dataset: str, root: str | Path | None) -> str:
    return f"`python -m kit data {dataset}{f' --root {shlex.quote(str(root))}' if root else ''}` downloads it"


def _read_cpen455(root: Path, split: str, image_size: int) -> ImageDataset:
    """`{split}.csv` holds rows `path,label`; paths are relative to the csv's folder."""
    table = root / f"{split}.csv"
    if not table.is_file():
        raise UsageError(f"{table} is missing: the data set in {root} is not complete")
    names, missing, labels = [], [], []
    for place, (number, row) in enumerate(read_rows(table)):
        where = f"{table}, row {number}"
        if len(row) != 2:
            raise UsageError(f"{where}: expected 2 columns (path,label), found {len(row)}")
        name = row[0].strip().replace("\\", "/")  # as Windows writes it
        there = (root / name).is_file()
        try:
            label = float(row[1])
        except ValueError:
            if place == 0 and not there:
                continue  # a header
            raise UsageError(f"{where}: the label {row[1]!r} is not a whole number") from None
        if label not in range(UNKNOWN, len(CPEN455_CLASSES)):
            raise UsageError(f"{where}: the label {row[1]} is not in -1 ... {len(CPEN455_CLASSES) - 1}")
        if not there:
            missing.append(f"{where}: there is no file {name}")
        names.append(name)
        labels.append(int(label))
    if missing:
        raise UsageError(missing[0] + (f", and {len(missing) - 1} others are missing" if missing[1:] else ""))
    if not names:
        raise UsageError(f"{table} is empty")
    images = read_images([root / name for name in names], image_size, expected_size=64)
    return ImageDataset(images, torch.tensor(labels), CPEN455_CLASSES, names)


def read_rows(table: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file and their numbers, from 1, as spreadsheets save it: with a byte-order mark, semicolons or
    tabs, blank lines."""
    try:
        text = table.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise UnicodeError
    except UnicodeError:
        raise UsageError(f"{table} is not in UTF-8: save it from the spreadsheet as `CSV UTF-8`") from None
    line = next((line for line in text.splitlines() if line.strip(", ;\t")), "")
    delimiter = max(",;\t", key=line.count)
    try:
        for number, row in enumerate(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True), start=1):
            while row and not row[-1].strip():  # an empty column at the end
                row.pop()
            if row and row != ["sep="]:  # Excel's own first line
                yield number, row
    except csv.Error as error:
        raise UsageError(f"{table} is not a CSV file: {error}") from None


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
    """`root/split/CLASS/**`, or `root/test/*` if labels are secret; classes are the folders of `root/train`, sorted."""
    train, folder = _split_folder(root, "train"), _split_folder(root, split)
    classes, left_out = tuple(class_folders(train)), [path for path in visible(folder) if not path.is_dir()]
    if beside := [path.name for path in visible(root) if not BESIDE.fullmatch(path.name)]:
        note(f"of {root} only the splits' folders are read, not {listing(beside)}")
    files, labels, places = [], [], [(UNKNOWN, folder)]
    if split == "test" and len(left_out) == len(visible(folder)) and find_pictures(folder)[0]:
        left_out = []
    else:
        folders = class_folders(folder)
        class_order(list(folders), classes, str(folder), str(train))
        places = [(label, folders[name]) for label, name in enumerate(classes)]
    for label, place in places:
        pictures, others = find_pictures(place)
        if not pictures:
            raise UsageError(f"there is no picture in {place}: put some there, or remove it from every split")
        files += pictures
        labels += [label] * len(pictures)
        left_out += others
    say_left_out(left_out, files, folder, "" if UNKNOWN in labels else " and lies in a class's folder")
    images = read_images(files, image_size, expected_size=image_size)
    return ImageDataset(images, torch.tensor(labels), classes, [file.relative_to(root).as_posix() for file in files])


def _split_folder(root: Path, split: str) -> Path:
    """The folder of a split, under any of the names that people give it."""
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}: --data-root takes one with pictures in train/CLASS/")
    inside = [path for path in visible(root) if path.is_dir()]
    found = [path for path in inside if path.name.lower() in FOLDERS[split]]
    if len(found) > 1:
        raise UsageError(f"{root} has {listing(f'{path.name}/' for path in found)} for one split: keep one of them")
    if not found:
        there = f"; there are {listing(path.name for path in inside)}" if inside else ""
        raise UsageError(f"{root / split} is missing: put pictures in {root}/{split}/CLASS/{there}")
    return found[0]


def class_folders(folder: Path) -> dict[str, Path]:
    """The classes' names, in alphabetical order, and their folders."""
    folders = [path for path in visible(folder) if path.is_dir()]
    if not folders:
        raise UsageError(f"no class folders in {folder}: put pictures in {folder}/CLASS/")
    if odd := [path.name for path in folders if not path.name.isprintable()]:
        raise UsageError(f"the folder {odd[0]!r} in {folder} has a letter that cannot be printed: rename it")
    found = {composed(path.name): path for path in folders}
    if len(found) < len(folders):
        raise UsageError(f"two folders in {folder} have the same name, with accents spelt in two ways: join them")
    return dict(sorted(found.items()))
