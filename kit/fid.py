"""The Fréchet Inception distance through pytorch-fid, with what a number needs to be trusted said beside it.

Two sets of pictures are each described by a Gaussian over an Inception network's features; the distance is

    |m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2))

It falls with the number of pictures, even between two halves of one set, and depends on which features are taken:
numbers compare only at the same dims, counts and reference. How fast it falls depends on the model, so equal counts do
not cure that; `extrapolated` does. Sources: Heusel et al. 2017 (arXiv 1706.08500), Chong and Forsyth 2020 (1911.07023).
"""

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from utils import UsageError, at_home, listing
from utils.data import to_bytes
from utils.model import ConditionalPixelCNN
from utils.pictures import find_pictures, read_images, say_left_out

from . import distributed
from .console import typed
from .platforms import KAGGLE_INPUT
from .samples import list_samples

WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"
DIGEST = "6726825d"  # what the SHA-256 of the published file begins with
DIMS = (64, 192, 768, 2048)  # pytorch-fid's
COURSE_DIMS, COURSE_SAMPLES = 192, 100  # the course scores 4 x 25 samples on 192 features
BATCH_SIZE = 50  # pytorch-fid's: another one would round differently
NR_SPLITS = 5


@dataclass(frozen=True)
class Score:
    """A distance; `notes` say what limits its meaning, `text` says all this and what it was computed from."""

    value: float
    notes: list[str]
    text: str


def fid(
    generated: str | Path, reference: str | Path, dims: int = 2048, *, course: bool = False,
    resize_reference: bool = False, download: bool = False, bootstrap: int = 20,
    device: str | torch.device = "cpu", progress: Callable | None = None,
) -> Score:  # fmt: skip
    """The distance of a folder of samples from a folder of real pictures; the value is pytorch-fid's own. The arguments
    are those of `python -m kit fid`; `progress` is called with the number of pictures just done.
    Raises UsageError: too few pictures, files that do not belong there, mixed sizes, no or other weights."""
    from pytorch_fid.fid_score import calculate_frechet_distance

    if bootstrap < 0 or bootstrap == 1:
        raise UsageError(f"bootstrap must be at least 2 resamplings, or 0 for no error bar, not {bootstrap}")
    samples = list_samples(Path(generated))
    if not Path(reference).is_dir():
        raise UsageError(f"there is no folder {reference}: --reference takes one of real pictures")
    real, left_out = find_pictures(Path(reference))
    if not real:
        raise UsageError(f"no pictures in {reference}: --reference takes a folder that holds some, in folders or not")
    say_left_out(left_out, real, reference)
    notes = check_counts(len(samples), len(real), dims, course)
    size = common_size(generated, samples)
    real_size = size if resize_reference else common_size(reference, real, "; add --resize-reference")
    if real_size != size:
        notes.append(
            f"the samples are {size}x{size}, the reference {real_size}x{real_size}, both enlarged to 299x299: a part "
            f"of the distance is that of blurred from sharp, whatever the model does; --resize-reference removes it"
        )
    weights = find_weights(download)
    network = load_network(weights, dims)
    x = inception_features(network, read_images(samples, size, size), device, progress)
    y = inception_features(network, read_images(real, real_size, real_size), device, progress)
    (m1, c1), (m2, c2) = ((z.mean(axis=0), np.cov(z, rowvar=False)) for z in (x, y))
    try:
        value = float(calculate_frechet_distance(m1, c1, m2, c2))
    except ValueError as error:
        raise UsageError(f"pytorch-fid finds no root of these covariances ({error}): use more pictures") from None

    bar, spread = "", [limit(x, y, [file.name.partition("_")[0] for file in samples])]
    if bootstrap:
        deviation, floor, (some, others) = error_and_floor(x, y, bootstrap)
        bar = f" ± {deviation:.3f}"
        spread += [
            f"floor      {floor:.3f}: {some} of the reference against {others} others, mean of {NR_SPLITS} splits",
            f"±          one standard deviation over {bootstrap} bootstrap resamplings of both sets",
        ]
    lines = [
        f"FID {value:.3f}{bar}   {dims} dims, {len(x)} generated, {len(y)} reference",
        f"generated  {generated}",
        f"reference  {reference}" + (f", resized to {size}x{size}" if resize_reference else ""),
        f"weights    {weights}",
    ]
    return Score(value, notes, "\n".join(lines + spread + [f"note: {note}" for note in notes]))


def rough_fid(model: ConditionalPixelCNN, reference: Tensor, seed: int, per_class: int = 25) -> dict:
    """Entries for a line of metrics, against uint8 pictures (N, 3, S, S); none, and a warning, when the FID cannot be
    had. All processes must call it."""
    labels = torch.arange(model.config.num_classes).repeat_interleave(per_class)
    images = distributed.generate(model, labels, seed)
    if distributed.rank():
        return {}
    try:
        network = load_network(find_weights(), COURSE_DIMS)
        both = (to_bytes(images.cpu()), reference)
        value = frechet_distance(*(inception_features(network, each, images.device) for each in both))
    except Exception as error:  # a missing package or file, too little memory: the training matters more
        reason = (str(error) or type(error).__name__).splitlines()[0]
        print(f"warning: no FID in this epoch: {reason}", file=sys.stderr)
        return {}
    return {"fid": round(value, 3), "fid_dims": COURSE_DIMS, "fid_counts": [len(labels), len(reference)]}


def check_counts(generated: int, reference: int, dims: int, course: bool) -> list[str]:
    """Raises UsageError for fewer pictures than dims, but for the course's own setting; -> a note on that one."""
    if dims not in DIMS:
        raise UsageError(f"dims must be one of {', '.join(map(str, DIMS))}, not {dims}")
    setting = f"{COURSE_SAMPLES} samples at {COURSE_DIMS} dims"
    if course and (generated, dims) != (COURSE_SAMPLES, COURSE_DIMS):
        raise UsageError(f"--course is the course's own setting, {setting}, not {generated} at {dims}")
    for count, what in ((dims if course else generated, "samples"), (reference, "reference pictures")):
        if count < dims:
            raise UsageError(
                f"{count} {what} are too few for {dims} dims: their covariance has rank {count - 1} at most, and the "
                f"distance would be far too large; use {dims} or more, or fewer --dims (--course allows {setting})"
            )
    note = f"their covariance has rank {COURSE_SAMPLES - 1}, the distance is too large, and compares only with its like"
    return [f"--course takes {setting}, as the course's script does: {note}"] if course else []


def common_size(folder: str | Path, files: list[Path], otherwise: str = "") -> int:
    """The height and width of square pictures; UsageError, which ends in `otherwise`, unless all have the same."""
    sizes = set()
    for file in files:
        with contextlib.suppress(Exception), Image.open(file) as picture:  # read_images names the damaged
            sizes.add(picture.size)
    if len({side for size in sizes for side in size}) > 1:
        found = listing(f"{width}x{height}" for width, height in sorted(sizes))
        raise UsageError(f"the pictures in {folder} are not of one square size ({found}){otherwise}")
    return sizes.pop()[0] if sizes else 0


def find_weights(download: bool = False) -> Path:
    """The Inception weights in $FID_INCEPTION, torch's cache or Kaggle's input, checked by their digest.
    Raises UsageError, which says how to get them, when they are not there or not the published ones."""
    from pytorch_fid.inception import FID_WEIGHTS_URL

    given = os.environ.get("FID_INCEPTION")
    cache = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS
    places = [Path(at_home(given))] if given else [cache, *sorted(KAGGLE_INPUT.glob(f"**/{WEIGHTS}"))]
    found = next(filter(Path.is_file, places), places[0])
    if not found.is_file():
        if given:
            raise UsageError(f"$FID_INCEPTION names {given}, where there is no file")
        if not download:
            raise UsageError(
                f"no Inception weights: {typed('fid', '--download')} fetches them (95 MB); or put {FID_WEIGHTS_URL} at "
                f"{cache}, in Kaggle's input, or where $FID_INCEPTION says"
            )
        cache.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(FID_WEIGHTS_URL, str(cache), hash_prefix=DIGEST)
        except (OSError, RuntimeError) as error:
            raise UsageError(f"cannot download {FID_WEIGHTS_URL} ({error}): put that file at {cache}") from None
    digest = hashlib.sha256(found.read_bytes()).hexdigest()
    if not digest.startswith(DIGEST):
        raise UsageError(
            f"{found} is not the published Inception network: its SHA-256 begins with {digest[:8]}, not {DIGEST}; "
            f"remove it, then {typed('fid', '--download')}, or fetch {FID_WEIGHTS_URL}"
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
    network: nn.Module, images: Tensor, device: str | torch.device = "cpu", progress: Callable | None = None
) -> np.ndarray:
    """uint8 (N, 3, S, S) -> float64 (N, dims), averaged over each picture's positions."""
    network, rows = network.to(device), []
    for batch in images.split(BATCH_SIZE):
        (maps,) = network(batch.to(device).float() / 255)  # (B, dims, h, w)
        rows.append(maps.mean(dim=(2, 3)).cpu())
        if progress:
            progress(len(batch))
    return torch.cat(rows).double().numpy()


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """The same distance, of features (N, dims) and (M, dims), without a root of the covariances: few pictures, or those
    that a bootstrap repeats, may have none. Tr (C1 C2)^(1/2) is the sum of X Y^T's singular values, up to counts."""
    between_means = x.mean(axis=0) - y.mean(axis=0)
    root_x, root_y = (np.linalg.qr((z - z.mean(axis=0)) / np.sqrt(len(z) - 1))[1] for z in (x, y))  # C = root^T root
    shared = np.linalg.norm(root_x @ root_y.T, "nuc")
    return float((between_means**2).sum() + (root_x**2).sum() + (root_y**2).sum() - 2 * shared)


def error_and_floor(x: np.ndarray, y: np.ndarray, bootstrap: int) -> tuple[float, float, tuple[int, int]]:
    """The standard deviation of the distance over bootstrap samples of both sets; the mean distance of as many
    pictures of y as x has (half of y if it has fewer than twice as many) from the rest of y, and these two counts."""
    rng = np.random.default_rng(0)
    resampled = [frechet_distance(rng.choice(x, len(x)), rng.choice(y, len(y))) for _ in range(bootstrap)]
    some = min(len(x), len(y) // 2)
    splits = [rng.permutation(y) for _ in range(NR_SPLITS)]
    floor = np.mean([frechet_distance(split[:some], split[some:]) for split in splits])
    return float(np.std(resampled, ddof=1)), float(floor), (some, len(y) - some)


def set_sizes(count: int, dims: int) -> list[int]:
    """Of six subsets of `count` pictures, evenly spaced over 1/N; none for fewer than 4 x dims pictures: below 2 x dims
    the distance is no straight line over 1/N."""
    low = max(2 * dims, count // 5)
    return [] if count < 2 * low else [round(1 / inverse) for inverse in np.linspace(1 / low, 1 / count, 6)]


def extrapolated(
    x: np.ndarray, y: np.ndarray, counts: Sequence[int] = (), draws: int = 10, labels: Sequence | None = None
) -> tuple[float, list[tuple[int, float]]]:
    """The distance of features x (N, D) from y for infinitely many x. That of n of them is about c/n too large, with a
    c that depends on the model: a line over 1/n, fitted to sets of several sizes, ends at the distance without it.
    -> its end, and for each size, of `counts` or of `set_sizes`, the mean over `draws` random subsets. With labels (N,)
    each has the whole set's shares of the classes: chance in the shares would be another bias. Raises UsageError for
    too few pictures."""
    (count, dims), rng = x.shape, np.random.default_rng(0)
    if not (sizes := counts or set_sizes(count, dims)):
        raise UsageError(f"a line over 1/N needs {4 * dims} samples or more for {dims} dims, not {count}")
    classes = np.zeros(count) if labels is None else np.asarray(labels)

    def distance(n: int) -> float:  # of n, evenly spaced among all: class after class, in random order within each
        order = np.lexsort((rng.random(len(x)), classes))
        return frechet_distance(x[order[((np.arange(n) + rng.random()) * count / n).astype(int)]], y)

    means = [float(np.mean([distance(n) for _ in range(draws if n < count else 1)])) for n in sizes]
    return float(np.polyfit(1 / np.array(sizes), means, 1)[1]), list(zip(sizes, means, strict=True))


def limit(x: np.ndarray, y: np.ndarray, labels: Sequence | None = None) -> str:
    """A line on the distance of infinitely many samples x from y."""
    try:
        value, points = extrapolated(x, y, draws=max(10, 4096 // x.shape[1]), labels=labels)
    except UsageError as error:
        return f"limit      not known: {error}"
    return (
        f"limit      {value:.3f} for infinitely many samples: the end of a line over 1/N, fitted to sets of "
        f"{', '.join(str(n) for n, _ in points)}; fewer make it larger, by an amount that depends on the model"
    )
