"""Exercises of notebook 03: the gate, FiLM, what a fusion site costs, what `late` cannot do."""

import torch
from torch import Tensor

from utils.fusion import SITES
from utils.model import ConditionalPixelCNN, ModelConfig

from . import Exercise, blank, wrong_shape


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a.double(), b.double(), atol=1e-6)


class Gate(Exercise):
    """a * sigmoid(b), where a is the first half of the channels and b the second."""

    hints = ("`c.chunk(2, dim=1)` gives the two halves of the channels; the sigmoid belongs on the second.",)

    @staticmethod
    def answer(c: Tensor) -> Tensor:
        a, b = c.chunk(2, dim=1)
        return a * torch.sigmoid(b)

    def problem(self, attempt) -> str | None:
        c = torch.randn(2, 6, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        before = c.clone()
        out = attempt(c)
        problem = blank(out) or wrong_shape(out, (2, 3, 4, 5))
        if problem:
            return problem
        if not torch.equal(c, before):
            return "c itself was changed; make a new tensor, the caller still needs c."
        a, b = before[:, :3], before[:, 3:]
        if close(out, a / (1 + torch.exp(-b))):
            return None
        mistakes = {
            "the halves are swapped: the sigmoid belongs on the second half, b.": b / (1 + torch.exp(-a)),
            "the sigmoid is missing: a was multiplied by b itself, so the gate can amplify without bound.": a * b,
            "a went through a tanh: van den Oord et al. 2016 do that, PixelCNN++ leaves a as it is.": (
                torch.tanh(a) / (1 + torch.exp(-b))
            ),
            "the channels were split into even and odd ones; a is the first half, b the second.": (
                before[:, ::2] / (1 + torch.exp(-before[:, 1::2]))
            ),
        }
        found = next((sentence for sentence, wrong in mistakes.items() if close(out, wrong)), None)
        expected = float(a[0, 0, 0, 0] / (1 + torch.exp(-b[0, 0, 0, 0])))
        return found or (
            f"at [0, 0, 0, 0], with a = {a[0, 0, 0, 0]:.3f} and b = {b[0, 0, 0, 0]:.3f}, {expected:.3f} was expected, "
            f"not {float(out[0, 0, 0, 0]):.3f}."
        )


class Film(Exercise):
    """c * (1 + scale) + shift, one scale and one shift for each picture and channel."""

    hints = ("`scale[:, :, None, None]` is (B, 2F, 1, 1), which broadcasts over the pixels. Mind the 1 +.",)

    @staticmethod
    def answer(c: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return c * (1 + scale[:, :, None, None]) + shift[:, :, None, None]

    def problem(self, attempt) -> str | None:
        random = torch.Generator().manual_seed(0)
        c = torch.randn(2, 6, 4, 5, dtype=torch.float64, generator=random)
        scale, shift = torch.randn(2, 2, 6, dtype=torch.float64, generator=random)
        zero = torch.zeros_like(scale)
        untouched = attempt(c.clone(), zero, zero)
        problem = blank(untouched) or wrong_shape(untouched, tuple(c.shape))
        if problem:
            return problem
        if not close(untouched, c):
            return (
                "with scale and shift all 0 the features should pass unchanged, but they do not: "
                "the factor is 1 + scale, so that maps that start at zero do nothing."
            )
        only_scale, only_shift = attempt(c.clone(), scale, zero), attempt(c.clone(), zero, shift)
        if close(only_scale, c):
            return "the scale has no effect."
        if close(only_shift, c):
            return "the shift has no effect."
        out = attempt(c.clone(), scale, shift)
        for picture in range(2):
            for channel in range(6):
                s, t = float(scale[picture, channel]), float(shift[picture, channel])
                if close(out[picture, channel], c[picture, channel] * (1 + s) + t):
                    continue
                if close(out[picture, channel], (c[picture, channel] + t) * (1 + s)):
                    return "the shift was scaled too: scale the features first, then add the shift."
                if close(out[picture, channel], c[picture, channel] * (1 + t) + s):
                    return "scale and shift have changed places."
                return (
                    f"picture {picture}, channel {channel} differs: its scale {s:.3f} and shift {t:.3f} "
                    f"should be used at each of its pixels, and no others."
                )
        return None


class SiteParameters(Exercise):
    """How many parameters a fusion site has in a network of a given config."""

    hints = (
        "Every site is one row of numbers per class. Both streams have their own row at `upstream`, `middle` and in "
        "every block. There are 3 stages of nr_resnet pairs down, and 3 back, the two finer with one pair more.",
    )

    @staticmethod
    def answer(site: str, config: ModelConfig) -> int:
        nr_filters, nr_blocks = config.nr_filters, 2 * (6 * config.nr_resnet + 2)
        row = {
            "early": 3 * config.image_size**2,
            "upstream": 2 * nr_filters,
            "middle": 2 * nr_filters,
            "late": 10 * config.nr_logistic_mix,
            "blocks": nr_blocks * 2 * nr_filters,
            "film": 2 * nr_blocks * 2 * nr_filters,
        }
        return config.num_classes * row[site]

    def problem(self, attempt) -> str | None:
        for num_classes, nr_resnet, nr_filters, nr_mix, size in [(4, 1, 3, 2, 8), (7, 2, 5, 3, 12)]:
            for site in SITES:
                config = ModelConfig(num_classes, nr_resnet, nr_filters, nr_mix, size, 0.0, (site,))
                with torch.random.fork_rng(devices=[]):
                    network = ConditionalPixelCNN(config)
                true = sum(table.numel() for table in network.fusion.parameters())
                said = attempt(site, config)
                problem = blank(said)
                if problem:
                    return problem
                if said == true:
                    continue
                where = (
                    f"site '{site}' of a network with {num_classes} classes, {nr_filters} filters, nr_resnet "
                    f"{nr_resnet}, {nr_mix} mixtures and {size}x{size} pictures has {true} parameters, not {said}"
                )
                if said * num_classes == true:
                    return f"{where}: that is the row of one class, and every class has its own."
                if said * 2 == true and site in ("upstream", "middle", "blocks"):
                    return f"{where}: half of them are missing. Count both streams, u and ul, and 2F for each gate."
                if said * 2 == true and site == "film":
                    return f"{where}: half of them are missing. It has a scale and a shift."
                if site in ("blocks", "film"):
                    return (
                        f"{where}: there are {network.fusion.nr_blocks} gated blocks, each with 2F = {2 * nr_filters}."
                    )
                return f"{where}."
        return None


class RelabelLate(Exercise):
    """The parameters under other labels, without running a `late` network again."""

    hints = (
        "The output is f(x) + table[label]. Take the old rows away and add the new ones, at every pixel alike. "
        "What follows the other sites is not linear, so their share cannot be taken out again.",
    )

    @staticmethod
    def answer(params: Tensor, table: Tensor, old: Tensor, new: Tensor) -> Tensor:
        return params + (table[new] - table[old])[:, :, None, None]

    def problem(self, attempt) -> str | None:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            network = ConditionalPixelCNN(ModelConfig(4, 1, 4, 1, 8, 0.0, ("late",))).double()
            table = network.get_parameter("fusion.maps.params.weight")
            table.normal_()
            x = torch.rand(3, 3, 8, 8, dtype=torch.float64) * 2 - 1
            old, new = torch.tensor([0, 1, 3]), torch.tensor([2, 2, 0])
            before, true = network(x, old), network(x, new)
            out = attempt(before.clone(), table.clone(), old, new)
            problem = blank(out) or wrong_shape(out, tuple(true.shape))
            if problem:
                return problem
            if close(out, true):
                return None
            if close(out, before):
                return "the parameters are still those of the old labels."
            if close(out, before + table[new][:, :, None, None]):
                return "the rows of the old labels are still in there; take them away as well."
            if close(out, before + (table[old] - table[new])[:, :, None, None]):
                return "the sign is wrong: take the old rows away and add the new ones."
            worst = (out - true).abs().flatten(1).amax(dim=1)
            picture = int(worst.argmax())
            return (
                f"picture {picture}, from label {int(old[picture])} to {int(new[picture])}, differs from what the "
                f"network says by up to {float(worst[picture]):.3f}."
            )


gate = Gate()
film = Film()
site_parameters = SiteParameters()
relabel_late = RelabelLate()
