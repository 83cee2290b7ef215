"""A mixture of logistics under the reader's hands."""

import torch
from torch import Tensor

from utils import figures, mixture

from .base import Panel, seed_control


class MixtureExplorer(Panel):
    """Up to three logistics: density and masses, which are the truth; samples of it, and a softmax fitted to them."""

    def __init__(self):
        from ipywidgets import FloatSlider, HBox, SelectionSlider, VBox

        figures.style()
        ranges = {"weight": (0, 1, 0.05), "mean": (-1.5, 1.5, 0.02), "log_scale": (-7, 0, 0.1)}
        starts = {1: (0.6, -0.3, -2.2), 2: (0.3, 0.98, -3.5), 3: (0.0, 0.4, -4.0)}
        controls = {
            f"{name}_{n}": FloatSlider(value, min=low, max=high, step=step, layout={"width": "300px"})
            for n, values in starts.items()
            for value, (name, (low, high, step)) in zip(values, ranges.items(), strict=True)
        }
        sliders = list(controls.values())
        samples, seed = SelectionSlider(options=[20, 60, 200, 1000, 10_000], value=60), seed_control()
        rows = [HBox([VBox(sliders[i : i + 3]) for i in (0, 3, 6)]), HBox([samples, seed])]
        super().__init__(self._draw, controls | {"samples": samples, "seed": seed}, rows)

    def params(self, values: dict) -> Tensor:
        """The network's output that means this mixture in red; green and blue are surely 0. -> (1, 10K, 1, 1)"""
        names = ("weight", "mean", "log_scale")
        weights, means, log_scales = torch.tensor([[values[f"{name}_{n}"] for n in (1, 2, 3)] for name in names])
        colours = torch.zeros(3, 3, 3)
        colours[0, 0], colours[0, 1] = means, log_scales
        colours[1:, 0] = -100.0  # so far below that bin 0 has all the mass
        return torch.cat([weights.clamp(min=1e-9).log(), colours.flatten()])[None, :, None, None]

    def masses(self, values: dict) -> Tensor:
        """-> (256,), which sum to 1."""
        x = torch.full((1, 3, 1, 256), -1.0)
        x[0, 0, 0] = torch.arange(256) / 127.5 - 1
        return mixture.log_prob(self.params(values).expand(-1, -1, 1, 256), x, reduce=False).exp()[0, 0]

    def draws(self, values: dict) -> Tensor:
        """How many samples fell on each byte, (256,)."""
        params, generator = self.params(values), torch.Generator().manual_seed(values["seed"])
        x = mixture.sample(params.expand(-1, -1, 1, values["samples"]), generator)
        return torch.bincount(((x[0, 0, 0] + 1) * 127.5).round().long(), minlength=256)

    @staticmethod
    def fitted_softmax(counts: Tensor, steps: int = 300, lr: float = 2.0) -> Tensor:
        """Gradient ascent on 256 logits, from 0: the gradient of the mean log-likelihood is share - softmax."""
        share, logits = counts / counts.sum(), torch.zeros(256)
        for _ in range(steps):
            logits += lr * (share - logits.softmax(dim=0))
        return logits.softmax(dim=0)

    def _draw(self, **values):
        import matplotlib.pyplot as plt

        black, blue, orange, sky = (figures.PALETTE[n] for n in (7, 0, 1, 4))
        masses, counts = self.masses(values), self.draws(values)
        softmax, edges = self.fitted_softmax(counts), torch.arange(257) - 0.5
        logits, means, log_scales, _ = mixture.unpack(self.params(values))
        means, scales = means[0, 0], log_scales[0, 0].exp()  # (K, 1, 1)
        x = torch.linspace(-1.3, 1.3, 2000)
        cdf = torch.sigmoid((x - means) / scales)  # (K, 1, 2000)
        density = (logits[0].softmax(dim=0) * cdf * (1 - cdf) / scales).sum(dim=(0, 1))
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.8, 3.9))
        left.stairs(masses, edges, fill=True, color=sky, label="masses of the 256 bins")
        left.bar([0, 255], masses[[0, 255]], width=4, color=orange, label="edge bins, open outwards")
        left.plot((x + 1) * 127.5, density * 2 / 255, color=black, lw=1, label="density x 2/255")
        left.set(xlabel="byte", ylabel="probability", xlim=(-38, 293), ylim=(0, None))
        left.set_title(f"bin 0: {masses[0]:.4f}   bin 255: {masses[255]:.4f}   all 256: {masses.sum():.6f}")
        right.stairs(
            counts / counts.sum(),
            edges,
            fill=True,
            color="0.75",
            label=f"share of {values['samples']} samples of the truth",
        )
        right.plot(masses, color=blue, lw=1.5, label="truth: the mixture of the sliders")
        right.plot(softmax, color=orange, lw=1, ls="--", label="256-way softmax fitted to the samples")
        right.set(xlabel="byte", xlim=(-4, 259), ylim=(0, None))
        bits = [-(masses * q.clamp(min=1e-30).log2()).sum() for q in (masses, softmax)]
        right.set_title(f"bits per new value: truth {bits[0]:.2f}, fitted softmax {bits[1]:.2f}")
        left.legend(frameon=False, fontsize=9, loc="upper left")
        right.legend(frameon=False, fontsize=9, loc="upper left")
        return figure
