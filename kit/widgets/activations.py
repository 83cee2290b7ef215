"""Which activations a sampler computes, and when: watched while it draws, counted, and shown as an animation."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image, ImageDraw

from utils.figures import PALETTE, lettering
from utils.layers import DownShiftedConv2d, GatedResidualBlock
from utils.model import NR_SCALES, ConditionalPixelCNN
from utils.sampling import CachedNetwork, generate_naive

Counts = dict[tuple[str, int], np.ndarray]  # (stream, scale) -> (n, n), its positions
SIDE, GAP, TOP = 168, 20, 58  # of the animation's panels, in pixels
ORANGE, BLUE, GREY = PALETTE[1], PALETTE[4], "#BBBBBB"


@dataclass
class Step:
    """What is computed between two moments: for each position the share of its scale's blocks that compute it."""

    title: str
    row: int
    counts: Counts = field(default_factory=dict)


class Watched:
    """A cached block that notes the positions it computes."""

    def __init__(self, block, stream: str, scale: int, share: float, steps: list[Step]):
        self.block, self.key, self.share, self.steps = block, (stream, scale), share, steps

    def __getattr__(self, name: str):
        return getattr(self.block, name)

    def __call__(self, *args):
        step, (stream, scale) = self.steps[-1], self.key
        step.counts[self.key][step.row >> scale, slice(None) if stream == "u" else args[0]] += self.share
        return self.block(*args)


def nothing(size: int) -> Counts:
    """A count of zero everywhere."""
    scales = range(NR_SCALES)
    return {(stream, s): np.zeros((size >> s, size >> s)) for stream in ("u", "ul") for s in scales}


@torch.inference_mode()
def watch_cached(model: ConditionalPixelCNN) -> list[Step]:
    """Drives the cached sampler over one empty picture; -> a step for each row that begins, and one for each pixel."""
    size, steps = model.config.image_size, list[Step]()
    network = CachedNetwork(model.eval(), torch.zeros(1, dtype=torch.int64))
    for s in range(NR_SCALES):
        share = 1 / (len(network.down_blocks[s]) + len(network.up_blocks[s]))
        for blocks in (network.down_blocks, network.up_blocks):
            blocks[s] = [(Watched(u, "u", s, share, steps), Watched(ul, "ul", s, share, steps)) for u, ul in blocks[s]]
    for i in range(size):
        steps.append(Step(f"row {i} begins: u, whole rows", i, nothing(size)))
        network.start_row(i)
        for j in range(size):
            steps.append(Step(f"pixel ({i}, {j}): ul", i, nothing(size)))
            network.params(j)
            network.put(j, torch.zeros(1, 3))
    return steps


def watch_naive(model: ConditionalPixelCNN) -> list[Step]:
    """Draws one picture naively; -> a step for each pixel, which is a pass over the whole picture."""
    size, steps = model.config.image_size, list[Step]()
    nr_blocks = [len(model.down_blocks[s]) + len(model.up_blocks[s]) for s in range(NR_SCALES)]  # type: ignore[arg-type]

    def begin(*_) -> None:
        i, j = divmod(len(steps), size)
        steps.append(Step(f"pixel ({i}, {j}): a whole pass", i, nothing(size)))

    def note(block, _inputs, out) -> None:
        scale = (size // out.shape[-1]).bit_length() - 1
        stream = "u" if isinstance(block.conv_in, DownShiftedConv2d) else "ul"
        steps[-1].counts[stream, scale] += 1 / nr_blocks[scale]  # every position

    hooks = [model.register_forward_pre_hook(begin)]
    hooks += [each.register_forward_hook(note) for each in model.modules() if isinstance(each, GatedResidualBlock)]
    try:
        generate_naive(model.eval(), torch.zeros(1, dtype=torch.int64))
    finally:
        for hook in hooks:
            hook.remove()
    return steps


def times_computed(steps: list[Step]) -> Counts:
    """How many times each activation is computed in all these steps, by (stream, scale): the mean over the blocks."""
    return {key: np.round(sum(step.counts[key] for step in steps), 6) for key in steps[0].counts}


def show_activations(steps: list[Step], slow_rows: int = 4) -> None:
    """Displays the steps of the cached sampler as an animation: `slow_rows` rows step by step, then two pixels a frame.

    Browsers play a GIF under either label; viewers that are built on nbconvert know only the second.
    """
    from IPython.display import display

    gif = base64.b64encode(animation(steps, slow_rows)).decode()
    display({"image/gif": gif, "image/png": gif, "text/plain": "which activations each step computes"}, raw=True)


def animation(steps: list[Step], slow_rows: int = 4) -> bytes:
    """A GIF."""
    known = {key: np.zeros(count.shape, bool) for key, count in steps[0].counts.items()}
    frames = []
    for group in schedule(steps, slow_rows):
        fresh = {key: sum(step.counts[key] for step in group) > 0 for key in known}
        title = group[0].title if len(group) == 1 else f"row {group[0].row}, two pixels a frame: ul"
        frames.append(frame(title, fresh, known))
        known = {key: known[key] | fresh[key] for key in known}
    buffer = io.BytesIO()
    durations = [400] * (len(frames) - 1) + [2500]  # milliseconds
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return buffer.getvalue()


def schedule(steps: list[Step], slow_rows: int) -> Iterator[list[Step]]:
    """The steps that share a frame."""
    width = len(steps[0].counts["u", 0])
    for n, step in enumerate(steps):
        i, column = divmod(n, width + 1)  # column 0 is the beginning of the row
        if i < slow_rows or column == 0:
            yield [step]
        elif column % 2:
            yield steps[n : n + 2]


def frame(title: str, fresh: dict, known: dict) -> Image.Image:
    """A panel for each stream (down) and scale (across)."""
    height = TOP + 2 * (SIDE + GAP + 24)
    sheet = Image.new("RGB", (GAP + NR_SCALES * (SIDE + GAP), height), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, 8), title, fill="black", font=lettering(17))
    left = GAP
    for colour, text in ((ORANGE, "computed now"), (BLUE, "computed before, kept"), ("white", "not yet")):
        pen.rectangle((left, 35, left + 14, 49), fill=colour, outline=GREY)
        pen.text((left + 20, 42), text, fill="black", font=lettering(14), anchor="lm")
        left += 44 + int(lettering(14).getlength(text))
    for (stream, scale), now in fresh.items():
        n, x = len(now), GAP + scale * (SIDE + GAP)
        y = TOP + (stream == "ul") * (SIDE + GAP + 24)
        pen.text((x, y + 12), f"{stream}, scale {scale}: {n}x{n}", fill="black", font=lettering(14), anchor="lm")
        side = SIDE // n
        for i, j in np.ndindex(n, n):
            colour = ORANGE if now[i, j] else BLUE if known[stream, scale][i, j] else "white"
            corner = x + j * side, y + 24 + i * side
            pen.rectangle((*corner, corner[0] + side, corner[1] + side), fill=colour, outline=GREY)
    return sheet.quantize(32)
