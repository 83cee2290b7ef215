import glob
from pathlib import Path

from utils import UsageError, listing
from utils.classify import log_posterior
from utils.data import to_float
from utils.figures import shortened
from utils.pictures import SYSTEM_NAMES, find_pictures, read_images, say_left_out

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
    broken: dict[Path, str] = {}
    chosen = pictures_of(files)
    images = read_images(chosen, size, expected_size=size, broken=broken)
    whole = [file for file in chosen if file not in broken]
    if whole:
        nats = options.log_likelihoods(models, to_float(images)).mean(dim=0)
        for file, row in zip(whole, log_posterior(nats, options.prior_of(len(names))).exp(), strict=True):
            shown = row.argsort(descending=True)[:SHOWN].tolist() if len(row) > SHOWN else range(len(row))
            chances = "  ".join(f"{shortened(names[label], 24)} {row[label]:.4f}" for label in shown)
            say(f"{file}: {names[int(row.argmax())]}   ({chances})")
    if broken:
        those = listing(f"{file} ({why})" for file, why in broken.items())
        raise UsageError(f"{len(broken)} of {len(chosen)} files cannot be read as pictures: {those}")


def pictures_of(typed: tuple[str, ...]) -> list[Path]:
    """The files that are meant by names of files and folders, and by patterns that no shell has expanded."""
    chosen: list[Path] = []
    for name in typed:
        if not name:
            raise UsageError("a picture's name is empty: give a file, a folder or a pattern such as '*.png'")
        path = Path(name)
        if path.is_dir():
            pictures, others = find_pictures(path)
            say_left_out(others, pictures, path)
            chosen += pictures
        elif path.exists() or not glob.has_magic(name):
            chosen.append(path)
        elif found := sorted(file for file in map(Path, glob.glob(name, recursive=True)) if file.is_file()):
            chosen += [file for file in found if SYSTEM_NAMES.isdisjoint(part.lower() for part in file.parts)]
        else:
            raise UsageError(f"no file is called like {name}")
    chosen = [file for file in dict.fromkeys(chosen) if file.name.lower() not in SYSTEM_NAMES]  # a shell's * has these
    if not chosen:
        raise UsageError(f"there is no picture among {listing(typed)}")
    return chosen
