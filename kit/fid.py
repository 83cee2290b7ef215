"""The Fréchet Inception distance through pytorch-fid, with what a number needs to be trusted said beside it.

Two sets of pictures are each described by a Gaussian over an Inception network's features; the distance is

    |m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2))

It falls with the number of pictures, even between two halves of one set, and depends on which features are taken:
numbers compare only at the same dims, counts and reference. Source: Heusel et al. 2017, "GANs Trained by a Two
Time-Scale Update Rule Converge to a Local Nash Equilibrium"; weights and features are pytorch-fid's.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from utils import UsageError
from utils.data import read_images

from .platforms import KAGGLE_INPUT
from .samples import list_samples

WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"
DIGEST = "6726825d"  # what the SHA-256 of the published file begins with
COURSE_DIMS, COURSE_SAMPLES = 192, 100  # the course scores 4 x 25 samples on 192 features
BATCH_SIZE = 50  # pytorch-fid's: another one would round differently
NR_SPLITS = 5


@dataclass(frozen=True)
class Score:
    """A distance and what it was computed from. `error` and `floor` are NaN when no error bar was asked for.

    `error` is one standard deviation over `bootstrap` resamplings of both sets. `floor` is the mean distance of
    `floor_counts` pictures of the reference from others of it: what perfect samples would get.
    """

    value: float
    dims: int
    generated: Path
    generated_count: int
    reference: str  # its folder, and whether it was resized
    reference_count: int
    weights: Path
    bootstrap: int
    error: float
    floor: float
    floor_counts: tuple[int, int]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        bar = f" ± {self.error:.3f}" if self.bootstrap else ""
        lines = [
            f"FID {self.value:.3f}{bar}   {self.dims} dims, {self.generated_count} generated, "
            f"{self.reference_count} reference",
            f"generated  {self.generated}",
            f"reference  {self.reference}",
            f"weights    {self.weights}",
        ]
        if self.bootstrap:
            some, others = self.floor_counts
            lines.append(
                f"floor      {self.floor:.3f}: {some} of the reference against {others} others of it, "
                f"mean of {NR_SPLITS} splits"
            )
            lines.append(f"±          one standard deviation over {self.bootstrap} bootstrap resamplings of both sets")
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def fid(
    generated: str | Path,
    reference: str | Path,
    dims: int = 2048,
    *,
    course: bool = False,
    resize_reference: bool = False,
    download: bool = False,
    bootstrap: int = 20,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Callable[[int], object] | None = None,
) -> Score:
    """The distance of a folder of samples from a folder of real pictures; the value is pytorch-fid's own.

    Args:
        generated: a folder that `python -m kit generate` wrote; its gallery is not counted.
        reference: a folder with pictures, all of one square size.
        dims: 64, 192, 768 or 2048 features; 2048 is what papers report.
        course: allow the course's 100 samples at 192 dims, which are too few.
        resize_reference: bring the reference to the samples' size, as the training data was.
        download: fetch the Inception weights if they are not there (95 MB).
        bootstrap: resamplings for the error bar; 0 leaves it and the floor out.
        progress: called with the number of pictures just done.

    Raises:
        UsageError: too few pictures, files that do not belong there, mixed sizes, no or other weights.
    """
    if bootstrap < 0 or bootstrap == 1:
        raise UsageError(f"bootstrap must be at least 2 resamplings, or 0 for no error bar, not {bootstrap}")
    generated, reference = Path(generated), Path(reference)
    sample_files, real_files = list_samples(generated), list_pictures(reference)
    notes = check_counts(len(sample_files), len(real_files), dims, course)
    size = common_size(sample_files, generated)
    real_size = size if resize_reference else common_size(real_files, reference, "; add --resize-reference")
    if real_size != size:
        notes.append(
            f"the samples are {size}x{size}, the reference {real_size}x{real_size}, and both are enlarged to 299x299: "
            f"a part of the distance is that of blurred from sharp, whatever the model does; "
            f"--resize-reference removes it"
        )
    weights = find_weights(download)
    network = load_network(weights, dims).to(device)
    x = inception_features(network, read_images(sample_files, size, size), device, progress)  # (N, dims)
    y = inception_features(network, read_images(real_files, real_size, real_size), device, progress)  # (M, dims)

    from pytorch_fid.fid_score import calculate_frechet_distance

    try:
        value = float(
            calculate_frechet_distance(x.mean(axis=0), np.cov(x, rowvar=False), y.mean(axis=0), np.cov(y, rowvar=False))
        )
    except ValueError as error:
        raise UsageError(f"pytorch-fid finds no root of these covariances ({error}): use more pictures") from None
    spread = error_and_floor(x, y, bootstrap, seed) if bootstrap else (float("nan"), float("nan"), (0, 0))
    resized = f"{reference}, resized to {size}x{size}" if resize_reference else str(reference)
    return Score(value, dims, generated, len(x), resized, len(y), weights, bootstrap, *spread, tuple(notes))


def fid_of_images(samples: Tensor, reference: Tensor, dims: int, device: str | torch.device = "cpu") -> float:
    """The distance between pictures in memory, uint8 (N, 3, S, S) and (M, 3, S, S), for a look during training.
    Raises UsageError when the Inception weights are not there."""
    network = load_network(find_weights(), dims).to(device)
    return frechet_distance(
        inception_features(network, samples, device), inception_features(network, reference, device)
    )


def list_pictures(folder: Path) -> list[Path]:
    """The files that pytorch-fid would take from a folder, by name."""
    from pytorch_fid.fid_score import IMAGE_EXTENSIONS

    files = [path for path in folder.glob("*.*") if path.suffix[1:] in IMAGE_EXTENSIONS]
    if not files:
        raise UsageError(f"no pictures in {folder}: --reference takes a folder that holds them directly")
    return sorted(files)


def check_counts(generated: int, reference: int, dims: int, course: bool) -> list[str]:
    """Refuses fewer pictures than dims, but for the course's own setting, which is -> explained."""
    from pytorch_fid.inception import InceptionV3

    if dims not in InceptionV3.BLOCK_INDEX_BY_DIM:
        raise UsageError(f"dims must be one of {', '.join(map(str, InceptionV3.BLOCK_INDEX_BY_DIM))}, not {dims}")
    if course:
        if (dims, generated) != (COURSE_DIMS, COURSE_SAMPLES):
            raise UsageError(
                f"--course is the course's own setting, {COURSE_SAMPLES} samples at {COURSE_DIMS} dims, "
                f"not {generated} at {dims}"
            )
        generated = dims
    for count, what in ((generated, "samples"), (reference, "reference pictures")):
        if count < dims:
            other = " or take --dims 192" if dims > COURSE_DIMS else ""
            raise UsageError(
                f"{count} {what} are too few for {dims} dims: their covariance has rank {count - 1} at most, and the "
                f"distance would be far too large; use {dims} or more{other} (--course allows the course's own setting)"
            )
    if not course:
        return []
    return [
        f"--course takes {COURSE_SAMPLES} samples at {COURSE_DIMS} dims, as the course's script does: their covariance "
        f"has rank {COURSE_SAMPLES - 1}, the distance is too large, and compares only with others made this way"
    ]


def common_size(files: list[Path], folder: Path, otherwise: str = "") -> int:
    """The one square size of all pictures; UsageError when there is none."""
    sizes = set()
    for file in files:
        try:
            with Image.open(file) as picture:
                sizes.add(picture.size)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UsageError(f"{file} cannot be read as a picture: {error}") from None
    (width, height), *others = sorted(sizes)
    if others or width != height:
        found = ", ".join(f"{w}x{h}" for w, h in sorted(sizes))
        raise UsageError(f"the pictures in {folder} are not of one square size ({found}){otherwise}")
    return width


def find_weights(download: bool = False) -> Path:
    """The Inception weights in $FID_INCEPTION, torch's cache or Kaggle's input, checked by their digest.

    Raises:
        UsageError: they are not there, or a file is not the published one; the text says how to get it.
    """
    from pytorch_fid.inception import FID_WEIGHTS_URL

    given = os.environ.get("FID_INCEPTION")
    cache = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS
    places = [Path(given)] if given else [cache, *sorted(KAGGLE_INPUT.glob(f"**/{WEIGHTS}"))]
    found = next((place for place in places if place.is_file()), None)
    if found is None and given:
        raise UsageError(f"$FID_INCEPTION names {given}, where there is no file")
    if found is None and not download:
        raise UsageError(
            f"no Inception weights: add --download (95 MB, from {FID_WEIGHTS_URL}), or put that file at {cache}, "
            f"in Kaggle's input, or where $FID_INCEPTION says"
        )
    if found is None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(FID_WEIGHTS_URL, str(cache), hash_prefix=DIGEST)
        except (OSError, RuntimeError) as error:
            raise UsageError(f"cannot download {FID_WEIGHTS_URL} ({error}): put that file at {cache}") from None
        return cache
    with open(found, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    if not digest.startswith(DIGEST):
        raise UsageError(
            f"{found} is not the published Inception network: its SHA-256 begins with {digest[:8]}, not {DIGEST}; "
            f"remove it and add --download, or fetch {FID_WEIGHTS_URL}"
        )
    return found


def load_network(weights: Path, dims: int) -> nn.Module:
    """pytorch-fid's network up to the layer of `dims` features. The file is read as data, never as a pickle."""
    from pytorch_fid import inception

    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        # pytorch-fid would look for the file by itself, download it, and unpickle it
        with mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: state):
            return inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[dims]]).eval()
    except Exception as error:  # torch.load has no common class for damaged files
        reason = str(error).splitlines()[0]
        raise UsageError(f"{weights} does not hold the Inception network's weights: {reason}") from None


@torch.inference_mode()
def inception_features(
    network: nn.Module,
    images: Tensor,
    device: str | torch.device = "cpu",
    progress: Callable[[int], object] | None = None,
) -> np.ndarray:
    """uint8 (N, 3, S, S) -> float64 (N, dims), averaged over each picture's positions."""
    rows = []
    for batch in images.split(BATCH_SIZE):
        (maps,) = network(batch.to(device).float() / 255)  # (B, dims, h, w)
        rows.append(nn.functional.adaptive_avg_pool2d(maps, 1).flatten(1).cpu())
        if progress:
            progress(len(batch))
    return torch.cat(rows).double().numpy()


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """The same distance without a root of the covariances, which need not exist numerically when pictures are few or,
    as in a bootstrap, repeat: Tr (C1 C2)^(1/2) is the sum of the singular values of X Y^T, up to the counts.
    x: (N, dims), y: (M, dims)."""
    between_means = x.mean(axis=0) - y.mean(axis=0)
    root_x, root_y = (np.linalg.qr((z - z.mean(axis=0)) / np.sqrt(len(z) - 1))[1] for z in (x, y))  # C = root^T root
    shared = np.linalg.norm(root_x @ root_y.T, "nuc")
    return float((between_means**2).sum() + (root_x**2).sum() + (root_y**2).sum() - 2 * shared)


def error_and_floor(
    x: np.ndarray, y: np.ndarray, bootstrap: int, seed: int = 0
) -> tuple[float, float, tuple[int, int]]:
    """The standard deviation of the distance over bootstrap samples of both sets; the mean distance of as many
    pictures of y as x has (half of y if it has fewer than twice as many) from the rest of y, and these two counts."""
    rng = np.random.default_rng(seed)
    draws = [(rng.integers(len(x), size=len(x)), rng.integers(len(y), size=len(y))) for _ in range(bootstrap)]
    resampled = [frechet_distance(x[i], y[j]) for i, j in draws]
    some = min(len(x), len(y) // 2)
    splits = [rng.permutation(y) for _ in range(NR_SPLITS)]
    floor = np.mean([frechet_distance(split[:some], split[some:]) for split in splits])
    return float(np.std(resampled, ddof=1)), float(floor), (some, len(y) - some)
