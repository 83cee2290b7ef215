from typing import Literal

from utils import UsageError

from ..download import download_cifar10, download_cpen455
from ..new_dataset import make


def run(
    dataset: Literal["cpen455", "cifar10", "new"], folder: str = "", /, root: str | None = None, url: str | None = None,
    out: str | None = None, image_size: int | None = None, seed: int | None = None,
) -> None:  # fmt: skip
    """download a data set, or make one of your own photographs

    Args:
        dataset: the course's pictures or CIFAR-10 to download; `new` to make one for a class.
        folder: for `new`, your photographs, a folder for each class; it stays as it is.
        root: the data set's folder, for a download; data/cpen455 or data/cifar10 if not given.
        url: where the archive is, for a download; where its makers publish it if not given.
        out: for `new`, a folder that is new or empty, for students/ to give out and teacher/ to keep.
        image_size: for `new`, height and width of the pictures, divisible by 4; 32 if not given.
        seed: for `new`, fixes the random choices; 0 if not given.
    """
    downloading = {"--root": root, "--url": url}
    making = {"FOLDER": folder or None, "--out": out, "--image-size": image_size, "--seed": seed}
    wrong = [flag for flag, value in (downloading if dataset == "new" else making).items() if value is not None]
    if wrong:
        raise UsageError(f"`data {dataset}` does not take {' or '.join(wrong)}")
    if dataset != "new":
        download = download_cpen455 if dataset == "cpen455" else download_cifar10
        return download(root, url)
    if not folder or not out:
        raise UsageError("`data new` needs your photographs and a new folder: data new FOLDER --out DIR")
    make(folder, out, 32 if image_size is None else image_size, seed or 0)
