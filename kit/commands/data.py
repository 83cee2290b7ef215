from typing import Literal

from ..download import download_cifar10, download_cpen455


def run(dataset: Literal["cpen455", "cifar10"], /, root: str | None = None, url: str | None = None) -> None:
    """download a data set

    Args:
        dataset: the course's pictures, or CIFAR-10.
        root: the data set's folder; data/cpen455 or data/cifar10 if not given.
        url: where the archive is; where its makers publish it if not given.
    """
    download = download_cpen455 if dataset == "cpen455" else download_cifar10
    download(root, url)
