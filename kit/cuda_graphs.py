"""Drawing on an NVIDIA GPU by CUDA graphs, which launch a row of pixels in one go."""

from collections.abc import Callable

import torch
from torch import Tensor

from utils import mixture
from utils.sampling import NR_SCALES, CachedNetwork, blank_pictures


@torch.inference_mode()
def generate_by_graphs(
    model, labels: Tensor, *, generator=None, temperature=1.0, prefix: Tensor | None = None, on_row=None
) -> Tensor:
    """As `generate`, on an NVIDIA GPU, by CUDA graphs. No GPU has run it yet: `make gpu` tells whether it is equal."""
    images, nr_known = blank_pictures(model, labels, temperature, prefix)
    rows = RowGraphs(CachedNetwork(model.eval(), labels.to(images.device)), temperature)
    for i in range(images.shape[2]):
        rows.draw(i, images, generator, is_known=i < nr_known)
        if on_row:
            on_row(i, images)
    return images


def captured(work: Callable[[], object]) -> Callable[[], object]:
    """Records what `work` launches on the GPU, without running it; -> runs it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


class RowGraphs:
    """A row of pixels at once. On a GPU a pixel is some 300 kernels so small that launching them takes longer than they
    do. Rows come in four kinds, by the scales that they reach. The first of each kind is drawn as ever, the second is
    captured as a CUDA graph, and every later one replays it: the same kernels on the same memory, launched in one go.
    For that, all that lives on from row to row stays where it is: nothing above replaces a tensor, it writes into it.
    """

    NR_KINDS = 2 ** (NR_SCALES - 1)

    def __init__(self, network: CachedNetwork, temperature: float):
        self.network, self.temperature = network, temperature
        self.replays: dict[int, Callable] = {}
        self.pixels = network.early_row.transpose(1, 2).clone()  # (B, 3, W)
        self.is_known = torch.zeros((), dtype=torch.bool, device=self.pixels.device)
        batch, nr_params = network.head_bias.shape
        self.noise = self.pixels.new_zeros(network.width, batch, nr_params // 10 + 3)  # as of `uniform_noise`

    def draw(self, i: int, images: Tensor, generator: torch.Generator | None, is_known: bool) -> None:
        """Row i of (B, 3, H, W), which is there already if it is known."""
        self.network.place(i)
        self.pixels.copy_(images[:, :, i])
        self.is_known.fill_(is_known)
        if not is_known:
            like = self.network.head_bias  # (B, 10K), as the params of a pixel
            self.noise.copy_(torch.stack([mixture.uniform_noise(like, generator) for _ in self.noise]))
        kind = i % self.NR_KINDS
        if i < self.NR_KINDS:
            self._pixels_of_row()
        else:
            if kind not in self.replays:
                self.replays[kind] = captured(self._pixels_of_row)
            self.replays[kind]()
        images[:, :, i] = self.pixels

    def _pixels_of_row(self) -> None:
        self.network.advance()
        for j, noise in enumerate(self.noise):
            params, pixel = self.network.params(j), self.pixels[:, :, j]
            drawn = mixture.sample(params, temperature=self.temperature, noise=noise)
            pixel.copy_(torch.where(self.is_known, pixel, drawn))
            self.network.put(j, pixel)
