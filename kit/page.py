"""The page on which a model draws in any browser, put together from the files in page/; and its pictures in Python."""

import base64
import copy
import html
import re
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils import UsageError, mixture
from utils.checkpoints import save_model
from utils.model import ConditionalPixelCNN
from utils.sampling import blank_pictures, walk

from .platforms import KIT

FOLDER = KIT / "page"
MOST_PARAMETERS = 3_000_000  # a picture of more takes a browser several seconds


def rounded(model: ConditionalPixelCNN) -> ConditionalPixelCNN:
    """The model as the page has it: its weights rounded to float16, to be computed with in float64, which every number
    of JavaScript is. In float32 a rounding would now and then choose another byte, and so another picture.

    Raises UsageError for a model that is too large, or has weights that are no numbers of float16.
    """
    count = sum(p.numel() for p in model.parameters())
    if count > MOST_PARAMETERS:
        raise UsageError(f"the page draws with at most {MOST_PARAMETERS:,} parameters, this model has {count:,}")
    model = copy.deepcopy(model).half().double()
    if not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise UsageError("the page keeps weights as float16, and this model has some beyond its largest number, 65504")
    return model


def page(model: ConditionalPixelCNN, name: str) -> str:
    """The whole page as one HTML file that needs no other; `name` says on it whose weights these are.

    Raises UsageError as `rounded` does.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_model(rounded(model), Path(folder) / "weights", torch.float16)
        weights = (Path(folder) / "weights").read_bytes()
    text = (FOLDER / "index.html").read_text(encoding="utf-8").replace("<!-- name -->", html.escape(name))
    # at the end: a page that was cut off has all its code, which says so
    about = f'id="weights" type="text/plain" data-bytes="{len(weights)}" data-crc32="{zlib.crc32(weights)}"'
    text = text.replace("<!-- weights -->", f"<script {about}>{base64.b64encode(weights).decode()}</script>")

    def inlined(kind: str, attributes: str, file: str) -> str:
        return f"<{kind}{attributes}>\n{(FOLDER / file).read_text(encoding='utf-8')}</{kind}>"

    text = re.sub(r'<link rel="stylesheet" href="([\w.]+)">', lambda link: inlined("style", "", link[1]), text)
    return re.sub(r'<script(.*) src="([\w.]+)"></script>', lambda link: inlined("script", link[1], link[2]), text)


PHILOX_FACTORS = np.array([0xD2511F53, 0xCD9E8D57], dtype=np.uint64)
PHILOX_KEY_STEPS = np.array([0x9E3779B9, 0xBB67AE85], dtype=np.uint64)
WORD = np.uint64(0xFFFFFFFF)


def philox(counters: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Philox4x32-10: four random words for a counter of four and a key of two. uint64 (N, 4), (2,) -> (N, 4), all below
    2^32. Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"; page/philox.js is the same."""
    for _ in range(10):
        products = counters[:, [0, 2]] * PHILOX_FACTORS  # (N, 2)
        upper, lower = products >> np.uint64(32), products & WORD
        mixed = upper[:, ::-1] ^ counters[:, [1, 3]] ^ key
        counters = np.stack([mixed[:, 0], lower[:, 1], mixed[:, 1], lower[:, 0]], axis=1)
        key = (key + PHILOX_KEY_STEPS) & WORD
    return counters


def uniforms(seed: int, picture: int, nr_pixels: int, count: int) -> Tensor:
    """`count` random numbers for each pixel of a picture, all between 0 and 1: float64 (nr_pixels, count). They depend
    on the seed, the picture's number and the pixel's place alone."""
    blocks = -(-count // 4)
    counters = np.zeros((nr_pixels, blocks, 4), dtype=np.uint64)
    counters[:, :, 0] = np.arange(blocks)
    counters[:, :, 1] = np.arange(nr_pixels)[:, None]
    counters[:, :, 2] = picture
    words = philox(counters.reshape(-1, 4), np.array([seed & 0xFFFFFFFF, seed >> 32], dtype=np.uint64))
    return torch.from_numpy((words.reshape(nr_pixels, -1)[:, :count] + 0.5) / 2**32)


@torch.inference_mode()
def draw(model: ConditionalPixelCNN, labels: Tensor, seed: int, temperature: float, on_row) -> Tensor:
    """Draws what the page draws: of each class its first picture, its second, and so on, in the labels' order.

    Args:
        labels: int64 (B,).
        seed: 0 ... 2^53 - 1, the whole numbers that JavaScript knows.
        temperature, on_row: as for `utils.sampling.generate`.

    Raises:
        UsageError: one of them is out of range; or as `rounded` does.

    Returns:
        (B, 3, H, W) on the 256 levels.
    """
    if not 0 <= seed < 2**53:
        raise UsageError(f"the page takes seeds from 0 to {2**53 - 1}, not {seed}")
    model = rounded(model)
    images, _ = blank_pictures(model, labels, temperature, prefix=None)  # (B, 3, H, W)
    size, count = model.config.image_size, model.config.nr_logistic_mix + 3
    numbers = [labels[:n].tolist().count(label) for n, label in enumerate(labels.tolist())]
    noise = torch.stack([uniforms(seed, number, size * size, count) for number in numbers])  # (B, H W, K + 3)
    for i, j, params in walk(model, images, labels):
        of_pixel = noise[:, i * size + j, :, None, None]
        images[:, :, i, j] = mixture.sample(params[:, :, None, None], None, temperature, of_pixel)[:, :, 0, 0]
        if j == size - 1:
            on_row(i, images)
    return images
