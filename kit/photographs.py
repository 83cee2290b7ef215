"""A teacher's photographs, in a folder for each class: found, read as viewers show them, compared with one another."""

import hashlib
import itertools
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from utils import UsageError, listing, note
from utils.data import FOLDERS, class_folders
from utils.pictures import as_shown, nr_frames, say_left_out, suffixes, to_tensor, unreadable, visible, why_unreadable

HASH_SIDE = 12
# Near-duplicates differ in at most so many of the perceptual hash's 12 x 12 bits. All of 1040 of the course's
# photographs are found again when saved as JPEG of quality 50 (8 bits at most), made half as large (4), or both (12).
# Of 13.5 million pairs of different photographs the nearest differ in 30. The usual 8 x 8 bits confuse drawings of one
# kind; of 16 x 16 too many are fine detail, which JPEG changes.
NEAR = 12
SOURCES = re.compile(r"sources\.(md|txt|csv)", re.IGNORECASE)  # the teacher's own page on where they are from
NOT_ON_WINDOWS = re.compile(r'[<>:"/\\|?*]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)


@dataclass(eq=False)
class Photograph:
    """`pixels` are its centre square, resized, uint8 (S, S, 3); `exact` is the SHA-256 of all of it as it is shown,
    `near` the perceptual hash of the square, bool (144,)."""

    file: Path
    label: int
    pixels: np.ndarray
    exact: str
    near: np.ndarray
    split: str = ""  # not in the data set
    name: str = ""  # in the data set


@dataclass(frozen=True)
class Duplicate:
    """Two that are the same: kind `exact`, of which the first is left out; `near`; `two classes`, both are left out."""

    kind: str
    first: Photograph
    second: Photograph
    bits: int  # that differ


def find_photographs(folder: Path) -> dict[str, list[Path]]:
    """The pictures of each class, at any depth, both by name. Links are not followed.

    Raises UsageError: fewer than two classes, a class that cannot be a folder on every system, splits for classes.
    """
    found: dict[str, list[Path]] = {}
    others = [path for path in visible(folder) if not path.is_dir() and not SOURCES.fullmatch(path.name)]
    links: list[Path] = []
    for name, place in class_folders(folder).items():
        if place.is_symlink():
            links.append(place)
        elif NOT_ON_WINDOWS.search(name):
            raise UsageError(f"no folder can be called {name!r} on Windows, which a student may have: rename {place}")
        else:
            found[name] = _below(place, others, links)
    if links:
        note(f"links are not followed: {listing(map(in_a_line, links), 1)}")
    say_left_out(others, list(itertools.chain(*found.values())), folder, " and lies in a class's folder")
    if len({name.casefold() for name in found}) < len(found):
        raise UsageError(f"of the classes {listing(found)} two differ in capital letters alone: rename one")
    if {name.lower() for name in found} <= {name for names in FOLDERS.values() for name in names}:
        raise UsageError(f"{folder} holds splits, {listing(found)}, not classes: give a folder with CLASS/ in it")
    if len(found) < 2:
        raise UsageError(f"{folder} has one class, {listing(found)}: two are needed at least, a folder for each")
    return found


def _below(folder: Path, others: list[Path], links: list[Path]) -> list[Path]:
    """The pictures in a folder and in those below it; the other files and the links are added to what is there."""
    pictures = []
    for path in visible(folder):
        if path.is_symlink():
            links.append(path)
        elif path.is_dir():
            pictures += _below(path, others, links)
        elif path.suffix.lower() in suffixes() and path.is_file():
            pictures.append(path)
        else:
            others.append(path)
    return pictures


def read_photographs(files: dict[str, list[Path]], image_size: int) -> list[Photograph]:
    """All of them, class by class. Raises UsageError, which names those that cannot be read."""
    import imagehash

    labelled = [(label, file) for label, inside in enumerate(files.values()) for file in inside]
    found, small, moving, failed = [], [], [], {}
    for label, file in tqdm(labelled, leave=False, disable=None):
        try:
            with warnings.catch_warnings(), Image.open(file) as picture:
                warnings.simplefilter("ignore")  # a damaged tag, say: the picture is read or it is not
                whole = as_shown(picture)
                moving += [file] * (nr_frames(picture) > 1)
        except Exception as error:  # decoders raise all kinds of them for damaged files
            failed[file] = why_unreadable(error)
            continue
        side = min(whole.size)
        left, top = (whole.width - side) // 2, (whole.height - side) // 2
        square = Image.fromarray(np.asarray(whole)[top : top + side, left : left + side])  # the pixels alone, no tags
        small += [file] * (side < image_size)
        pixels = to_tensor(square, image_size).permute(1, 2, 0).contiguous().numpy()
        exact = hashlib.sha256(f"{whole.size}".encode() + whole.tobytes()).hexdigest()
        found.append(Photograph(file, label, pixels, exact, imagehash.phash(square, HASH_SIDE).hash.ravel()))
    if failed:
        raise unreadable(failed, len(labelled))
    if small:
        note(f"{len(small)} of {len(found)} pictures are smaller than {image_size}x{image_size} and were enlarged, "
             f"{in_a_line(small[0])} first")  # fmt: skip
    if moving:
        note(f"{len(moving)} of {len(found)} pictures have several frames: the first is taken, "
             f"{in_a_line(moving[0])} first")  # fmt: skip
    return found


def find_duplicates(photographs: list[Photograph]) -> tuple[list[list[Photograph]], list[Duplicate]]:
    """What a data set may hold, in groups of near-duplicates, most of them of one; and all pairs of duplicates.

    Of exact duplicates the first is kept, of those under two classes none: a label cannot be both.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    first: dict[tuple[str, int], Photograph] = {}
    twins = [(each, first.setdefault((each.exact, each.label), each)) for each in photographs]
    found = [Duplicate("exact", each, twin, 0) for each, twin in twins if each is not twin]
    single = list(first.values())
    pairs = near_pairs(np.array([each.near for each in single], dtype=bool).reshape(-1, HASH_SIDE**2))
    torn = {n for i, j, _ in pairs if single[i].label != single[j].label for n in (i, j)}
    for i, j, bits in pairs:
        kind = "near" if single[i].label == single[j].label else "two classes"
        found.append(Duplicate(kind, single[i], single[j], bits))
    alike = np.array([(i, j) for i, j, _ in pairs if i not in torn and j not in torn], dtype=int).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(alike)), alike.T), shape=(len(single), len(single)))
    groups: dict[int, list[Photograph]] = {}
    for n, number in enumerate(connected_components(graph, directed=False)[1]):
        if n not in torn:
            groups.setdefault(number, []).append(single[n])
    return list(groups.values()), found


def near_pairs(hashes: np.ndarray) -> list[tuple[int, int, int]]:
    """Where two hashes differ in at most `NEAR` bits: their places i < j, and in how many. hashes: bool (N, 144)."""
    from scipy.spatial.distance import cdist

    found = []
    for start in range(0, len(hashes), 1000):  # a part at a time: all would be N x N numbers
        bits = cdist(hashes[start : start + 1000], hashes[start:], "hamming") * hashes.shape[1]
        for i, j in np.argwhere(np.triu(bits <= NEAR, k=1)).tolist():
            found.append((start + i, start + j, round(bits[i, j])))
    return found


def in_a_line(path: Path) -> str:
    """A path without line breaks, whatever it is called."""
    return str(path) if str(path).isprintable() else repr(str(path))
