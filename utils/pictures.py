"""Picture files as people have them, whoever reads them: what in a folder counts, and how a picture is shown.

What is left out, or changed, is said in one note, with a count and the first name.
"""

import contextlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import UsageError, listing, note

SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".ppm", ".pgm"}
# what systems leave in folders, beside names that begin with a dot; in small letters
SYSTEM_NAMES = {"thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "zbthumbnail.info", "picasa.ini", "desktop.ini"}
SYSTEM_NAMES |= {"__macosx", "__pycache__", "@eadir", "#recycle", "$recycle.bin", "recycler", "icon\r"}
SYSTEM_NAMES |= {"system volume information", "lost+found"}
TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE"}
TURNS |= {8: "ROTATE_90"}  # what sets a picture upright, by its orientation tag


def is_visible(name: str) -> bool:
    """Whether a person has given this name: it is not hidden, and none that a system has left behind."""
    return not name.startswith((".", "~$")) and name.lower() not in SYSTEM_NAMES


def visible(folder: Path) -> list[Path]:
    """What people have put into a folder, by name."""
    return [folder / name for name in sorted(path.name for path in folder.iterdir()) if is_visible(name)]


def find_pictures(folder: Path) -> tuple[list[Path], list[Path]]:
    """The pictures in a folder, at any depth, by name, and the other files."""
    pictures: list[Path] = []
    others: list[Path] = []
    readable = suffixes()
    for path in visible(folder):
        if not path.is_dir():
            (pictures if path.suffix.lower() in readable and path.is_file() else others).append(path)
        elif not folder.resolve().is_relative_to(path.resolve()):  # else a link leads back to where we are
            deeper = find_pictures(path)
            pictures += deeper[0]
            others += deeper[1]
    return pictures, others


def say_left_out(left_out: Sequence[Path], pictures: Sequence[Path], folder: str | Path, where: str = "") -> None:
    """One note on the files in a folder that were not taken for pictures, if there are any."""
    if left_out:
        of = f"{len(left_out)} of {len(left_out) + len(pictures)} files in {folder} were left out, {left_out[0]} first"
        note(f"{of}: what is read ends in {', '.join(sorted(suffixes()))}{where}")


def suffixes() -> set[str]:
    """The endings, in small letters, of what can be read here: older Pillows do not know AVIF."""
    return SUFFIXES & Image.registered_extensions().keys()


def read_images(
    files: Sequence[Path], image_size: int, expected_size: int, broken: dict[Path, str] | None = None
) -> Tensor:
    """Reads files as RGB, resized to uint8 (N, 3, S, S); says once if some were not of the expected size, or had
    several frames. What cannot be read goes into `broken`, with the reason; without that, UsageError names all."""
    images, odd, moving, failed = [], [], [], {} if broken is None else broken
    for file in files:
        try:
            with warnings.catch_warnings(), Image.open(file) as picture:
                warnings.simplefilter("ignore")  # a damaged tag, say: the picture is read or it is not
                images.append(to_tensor(picture, image_size))
                odd += [file] * (picture.size != (expected_size, expected_size))
                moving += [file] * (nr_frames(picture) > 1)
        except Exception as error:  # decoders raise all kinds of them for damaged files
            failed[file] = why_unreadable(error)
    if failed and broken is None:
        raise unreadable(failed, len(files))
    if odd:
        those = f"{len(odd)} of {len(files)} pictures were not {expected_size}x{expected_size}"
        note(f"{those} and were resized to {image_size}x{image_size}, {odd[0]} first")
    if moving:
        note(f"{len(moving)} of {len(files)} pictures have several frames: the first is taken, {moving[0]} first")
    return torch.stack(images) if images else torch.empty(0, 3, image_size, image_size, dtype=torch.uint8)


def unreadable(failed: dict[Path, str], count: int) -> UsageError:
    """The error that names the files, of so many, that cannot be read, and why."""
    if len(failed) == 1:
        return UsageError("".join(f"{file} cannot be read as a picture: {why}" for file, why in failed.items()))
    those = listing(f"{file} ({why})" for file, why in failed.items())
    return UsageError(f"{len(failed)} of {count} files cannot be read as pictures: {those}")


def why_unreadable(error: Exception) -> str:
    """In plain words why Pillow could not read a picture."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is no picture, or of a kind that is not known here"
    if isinstance(error, Image.DecompressionBombError | MemoryError):
        return "it has too many pixels: make it smaller first"
    if isinstance(error, UsageError):
        return str(error)
    return getattr(error, "strerror", None) or f"it is damaged, or of a rare kind ({error})"


def nr_frames(picture: Image.Image) -> int:
    """Of a picture that has been read: more than 1 for an animation or several pages; a photo with a preview is one."""
    with contextlib.suppress(Exception):  # the first frame is whole, the others need not be
        return 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
    return 1


def to_tensor(picture: Image.Image, image_size: int) -> Tensor:
    """As it is shown, antialiased bilinear, rounded to bytes: uint8 (3, S, S)."""
    picture = as_shown(picture)
    if picture.size != (image_size, image_size):
        picture = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def as_shown(picture: Image.Image) -> Image.Image:
    """A picture from anywhere as a viewer shows it, in RGB: turned as its orientation tag says, on white where it is
    transparent, 16 bits scaled to 8. Raises UsageError for pixels that are neither, and whatever Pillow raises."""
    picture.load()
    turn, hole = None, picture.info.get("transparency")
    with contextlib.suppress(Exception):  # damaged tags are no reason to refuse the picture
        turn = TURNS.get(picture.getexif().get(0x0112, 1))
    if picture.mode[0] in "IF":
        values = np.asarray(picture)
        if picture.mode == "F" or values.min() < 0 or values.max() >= 2**16:
            raise UsageError("its pixels are neither of 8 nor of 16 bits: save it with one of these")
        values = np.where(values == hole, 2**16 - 1, values.astype(np.int64))
        picture = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    picture = picture.convert("RGB")
    return picture.transpose(Image.Transpose[turn]) if turn else picture
