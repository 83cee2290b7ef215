"""A data set of a teacher's own from photographs: `students/`, to be given out, and `teacher/`, to be kept.

Near-duplicates never lie in different splits. The numbers in the files' names follow the SHA-256 of the pixels: they
say nothing about a picture's class, not even to somebody who knows this file, the seed and the counts of the classes.
"""

import hashlib
import os
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, ImageDraw

from utils import UsageError, __version__, listing, note
from utils.data import ImageDataset, load_split
from utils.figures import gallery, lettering, save_png
from utils.model import ModelConfig
from utils.pictures import visible
from utils.training import check_seed

from . import leaderboard
from .console import typed
from .photographs import (
    NEAR,
    SOURCES,
    Duplicate,
    Photograph,
    find_duplicates,
    find_photographs,
    in_a_line,
    read_photographs,
)
from .platforms import check_writable, template
from .tables import write_table

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}  # as in the course's data
SHOWN = {"train": 8, "validation": 4, "test": 8}  # of each class in a contact sheet


def make(folder: str | Path, out: str | Path, image_size: int = 32, seed: int = 0) -> None:
    """Reads `folder`/CLASS/**, which stays as it is, and lays the data set down in `out`, new or empty, by one rename.
    What a killed call left is removed: only one at a time may work on an `out`.

    Raises UsageError: no photographs, too few of a class, some that cannot be read, a class that cannot be a folder on
    every system, an `out` that holds something or lies in `folder`; OSError where one may not read or write.
    """
    folder, out = Path(folder).resolve(), Path(out).resolve()
    check_seed(seed)
    check_places(folder, out)
    files = find_photographs(folder)
    classes = tuple(files)
    ModelConfig(num_classes=len(classes), image_size=image_size)  # raises for numbers that no network can have
    photographs = read_photographs(files, image_size)
    groups, duplicates = find_duplicates(photographs)
    chance = random.Random(seed)
    for label, name in enumerate(classes):
        share_out(name, [group for group in groups if group[0].label == label], chance)
    kept = [each for each in photographs if each.split]
    give_names(kept, classes)
    words = in_words(groups, duplicates)
    page = card(kept, classes, seed, words, sources(folder, classes))

    work = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    try:
        write_students(work / "students", kept, page)
        write_teacher(work / "teacher", folder, kept, classes, duplicates)
        if hasattr(os, "sync"):  # not on Windows
            os.sync()  # or after a power cut the name could be there without the bytes
        if out.is_dir():
            out.rmdir()  # it is empty
        os.rename(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)

    if torn := [each for each in duplicates if each.kind == "two classes"]:
        those = listing((f"{in_a_line(each.first.file)} and {in_a_line(each.second.file)}" for each in torn), 3)
        note(f"the same picture lies under two classes, so both are left out: {those}")
    counts = Counter(each.split for each in kept)
    sizes = ", ".join(f"{counts[split]} {split}" for split in SHARES)
    print(f"{out}: {len(kept)} of {len(photographs)} pictures, {len(classes)} classes; {sizes}", *words, sep="\n")
    print(f"give out {out / 'students'}; first read its card.md, and fill in the sources there")
    print(f"keep {out / 'teacher'} to yourself: test_labels.csv in it holds the labels of the test pictures")
    flags = ("--dataset", "folder", "--data-root", out / "students", "--image-size", image_size)
    print(f"to train on it: {typed('train', *flags)}")


def check_places(folder: Path, out: Path) -> None:
    """Raises UsageError unless `folder` is there and `out` can be made without touching anything of a person's."""
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}: give one with photographs in a folder for each class")
    if out.is_relative_to(folder) or folder.is_relative_to(out):
        raise UsageError(f"{folder} and --out {out} must not lie in one another: choose another place with --out")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} is there already and not empty: choose a new folder with --out")
    check_writable(out.parent)


def share_out(name: str, groups: list[list[Photograph]], chance: random.Random) -> None:
    """Gives each picture of a class its split, so that each of these has its share, and one group at least.
    Raises UsageError where there are fewer groups than splits."""
    if len(groups) < len(SHARES):
        needed = f"{len(SHARES)} are needed at least, one for each split"
        raise UsageError(f"class {name!r} has {len(groups)} pictures that differ: {needed}")
    chance.shuffle(groups)
    groups.sort(key=len, reverse=True)  # the large ones while there is room; those of a size stay shuffled
    count, filled = sum(map(len, groups)), Counter[str]()
    room = {split: max(1, round(share * count)) for split, share in SHARES.items()}
    room["train"] = count - room["validation"] - room["test"]
    for n, group in enumerate(groups):
        empty = [split for split in SHARES if not filled[split]]
        choice = empty if len(groups) - n <= len(empty) else SHARES
        split = max(choice, key=lambda split: room[split] - filled[split])
        filled[split] += len(group)
        for each in group:
            each.split = split


def give_names(kept: list[Photograph], classes: tuple[str, ...]) -> None:
    """Gives each its new name, and sorts them by it."""
    folders: dict[str, list[Photograph]] = {}
    for each in kept:
        place = each.split if each.split == "test" else f"{each.split}/{classes[each.label]}"
        folders.setdefault(place, []).append(each)
    for place, inside in folders.items():
        # whoever knows the seed could undo a shuffle by it, and so number the test pictures' classes
        inside.sort(key=lambda each: hashlib.sha256(each.pixels.tobytes()).digest())
        for number, each in enumerate(inside, 1):
            each.name = f"{place}/{number:0{max(4, len(str(len(inside))))}d}.png"
    kept.sort(key=lambda each: each.name)


def write_students(folder: Path, kept: list[Photograph], page: str) -> None:
    """The pictures, the page about them, and a contact sheet of those whose class may be seen."""
    for each in kept:
        (folder / each.name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(each.pixels).save(folder / each.name)
    (folder / "card.md").write_text(page, encoding="utf-8")
    size = kept[0].pixels.shape[0]
    sets = {split: load_split("folder", split, folder, size) for split in ("train", "validation")}
    save_png(contact_sheet(sets), folder / "contact_sheet.png")


def write_teacher(
    teacher: Path, folder: Path, kept: list[Photograph], classes: tuple[str, ...], duplicates: list[Duplicate]
) -> None:
    """The labels of the test pictures, a contact sheet of these, where each picture is from, and all duplicates."""
    test = [each for each in kept if each.split == "test"]
    names, labels = [each.name for each in test], [each.label for each in test]
    leaderboard.write(teacher / "test_labels.csv", names, labels, nr_classes=len(classes))
    images = torch.from_numpy(np.array([each.pixels for each in test])).permute(0, 3, 1, 2)
    known = ImageDataset(images, torch.tensor(labels), classes, names)
    save_png(contact_sheet({"test": known}), teacher / "contact_sheet.png")

    def old(each: Photograph) -> str:
        return each.file.relative_to(folder).as_posix()

    rows: list[tuple] = [(each.name, old(each), each.split) for each in kept]
    write_table(teacher / "where-from.csv", [("picture", "photograph", "split"), *rows])
    out = "left out"
    rows = [
        (pair.kind, old(pair.first), pair.first.split or out, old(pair.second), pair.second.split or out, pair.bits)
        for pair in duplicates
    ]
    heads = ("kind", "photograph", "its split", "same as", "split of that", "bits that differ, of 144")
    write_table(teacher / "duplicates.csv", [heads, *rows])


def contact_sheet(sets: dict[str, ImageDataset]) -> Image.Image:
    """A gallery of each split, of the first pictures of each class: their numbers are in random order."""
    strips = []
    for split, pictures in sets.items():
        places = [(pictures.labels == label).nonzero().flatten() for label in range(len(pictures.classes))]
        x, y = pictures.at(torch.cat([some[: SHOWN[split]] for some in places])).tensors()
        strips.append(gallery(x, y, pictures.classes, zoom=max(1, 96 // x.shape[-1])))
    head, top = 28, 0
    size = max(strip.width for strip in strips), sum(head + strip.height for strip in strips)
    sheet = Image.new("RGB", size, "white")
    for split, strip in zip(sets, strips, strict=True):
        ImageDraw.Draw(sheet).text((6, top + head // 2), split, fill="black", font=lettering(18), anchor="lm")
        sheet.paste(strip, (0, top + head))
        top += head + strip.height
    return sheet


def in_words(groups: list[list[Photograph]], duplicates: list[Duplicate]) -> list[str]:
    """What was found of each kind of duplicate, in a line."""
    alike = [len(group) for group in groups if len(group) > 1]
    exact = sum(pair.kind == "exact" for pair in duplicates)
    torn = {each.file for pair in duplicates if pair.kind == "two classes" for each in (pair.first, pair.second)}
    groups_of = f"{sum(alike)} pictures in groups of up to {max(alike)}, each group in one split" if alike else "none"
    return [
        f"exact duplicates: {exact} left out, one of each kept" if exact else "exact duplicates: none",
        f"near-duplicates: {groups_of}",
        f"under two classes: {len(torn)} left out" if torn else "under two classes: none",
    ]


def card(kept: list[Photograph], classes: tuple[str, ...], seed: int, words: list[str], sources: str) -> str:
    """The page about the data set, without a word on where it was made or what the files were called."""
    counts = Counter((each.label, each.split) for each in kept)
    rows = [(n, escaped(name), *(counts[n, split] for split in SHARES)) for n, name in enumerate(classes)]
    rows.append(("", "all", *(sum(counts[n, split] for n in range(len(classes))) for split in SHARES)))
    return template("data_card.txt").format(
        count=len(kept), classes=len(classes), size=kept[0].pixels.shape[0], seed=seed, date=time.strftime("%Y-%m-%d"),
        rows=table(rows), duplicates="\n".join(f"- {line}" for line in words), near=NEAR, sources=sources,
        version=__version__, pillow=PIL.__version__,
    )  # fmt: skip


def sources(folder: Path, classes: tuple[str, ...]) -> str:
    """The text of the folder's SOURCES.md, .txt or .csv; without one a table to fill in."""
    named = [path for path in visible(folder) if SOURCES.fullmatch(path.name)]
    found = [path for path in named if path.is_file() and not path.is_symlink()]
    if not found:
        blank = table((escaped(name), "", "", "") for name in classes)
        return f"| class | from where | by whom | licence |\n|---|---|---|---|\n{blank}"
    if len(found) > 1:
        raise UsageError(f"{folder} has {listing(path.name for path in found)}: keep one of them")
    try:
        text = found[0].read_text(encoding="utf-8-sig").strip()
    except UnicodeError:
        raise UsageError(f"{found[0]} is not in UTF-8: save it so") from None
    return text if found[0].suffix.lower() == ".md" else f"```\n{text}\n```"


def table(rows: Iterable[Sequence]) -> str:
    """The rows of one in Markdown."""
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in rows)


def escaped(text: str) -> str:
    """The text as Markdown shows it letter by letter."""
    return re.sub(r"([\\`*_\[\]<>&|~])", r"\\\1", text)
