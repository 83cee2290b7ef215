import glob
import os
from pathlib import Path

from utils import UsageError, listing
from utils.classify import log_posterior
from utils.data import to_float
from utils.figures import all_shortened
from utils.pictures import find_pictures, is_visible, read_images, say_left_out, unreadable

from ..classifier import Classifier
from ..distributed import say

SHOWN = 4  # probabilities in a line


def run(*files: str, options: Classifier) -> None:
    """the class of picture files

    Args:
        files: pictures of any size, folders of them, or patterns such as '*.png'.
    """
    models = options.load()
    size, names = models[0].config.image_size, models[0].class_names
    short, broken = all_shortened(names, 24), dict[Path, str]()
    chosen = pictures_of(files)
    images = read_images(chosen, size, expected_size=size, broken=broken)
    whole = [file for file in chosen if file not in broken]
    if whole:
        nats = options.log_likelihoods(models, to_float(images)).mean(dim=0)
        for file, row in zip(whole, log_posterior(nats, options.prior_of(names)).exp(), strict=True):
            shown = row.argsort(descending=True)[:SHOWN].tolist() if len(row) > SHOWN else range(len(row))
            chances = "  ".join(f"{short[label]} {row[label]:.4f}" for label in shown)
            say(f"{file}: {names[int(row.argmax())]}   ({chances})")
    if broken:
        raise unreadable(broken, len(chosen))


def pictures_of(typed: tuple[str, ...]) -> list[Path]:
    """The files that are meant by names of files and folders, and by patterns that no shell has expanded."""
    named: list[Path] = []
    for name in typed:
        if not name:
            raise UsageError("a picture's name is empty: give a file, a folder or a pattern such as '*.png'")
        if os.path.exists(name) or not glob.has_magic(name):
            named.append(Path(name))
        elif found := sorted(map(Path, glob.glob(name, recursive=True))):
            typed_out = next(n for n, part in enumerate(Path(name).parts) if glob.has_magic(part))
            named += [path for path in found if all(map(is_visible, path.parts[typed_out:]))]
        else:
            raise UsageError(f"no file matches {name}")
    chosen: list[Path] = []
    for path in named:
        if not is_visible(os.path.basename(os.path.abspath(path))):  # a shell's * has such names too
            continue
        if path.is_dir():
            pictures, others = find_pictures(path)
            say_left_out(others, pictures, path)
            chosen += pictures
        else:
            chosen.append(path)
    if not chosen:
        raise UsageError(f"there is no picture in {listing(typed)}; hidden files and what systems leave do not count")
    return list(dict.fromkeys(chosen))
