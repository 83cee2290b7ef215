"""Exercises of notebook 02: bins and their masses, a log mass that stays exact, coupled colours, bits."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Exercise, blank, wrong_shape


class RangeMass(Exercise):
    """The probability that a byte lies in a range."""

    hints = (
        "The masses of neighbouring bins add up to one difference: the CDF at the upper edge of `high` minus the CDF "
        "at the lower edge of `low`. The edges of byte v lie at (v - 0.5) / 127.5 - 1 and (v + 0.5) / 127.5 - 1; only "
        "bin 0 has no lower end, and bin 255 no upper one.",
    )

    @staticmethod
    def answer(low: int, high: int, mean: float, scale: float) -> float:
        def cdf(x):
            return 1 / (1 + math.exp(-(x - mean) / scale))

        below = 0.0 if low == 0 else cdf((low - 0.5) / 127.5 - 1)
        up_to = 1.0 if high == 255 else cdf((high + 0.5) / 127.5 - 1)
        return up_to - below

    def problem(self, attempt) -> str | None:
        cases = [(128, 128, 0.0, 0.1), (100, 139, 0.1, 0.2), (0, 127, 0.0, 0.3), (128, 255, 0.0, 0.3)]
        for low, high, mean, scale in [*cases, (0, 255, -0.9, 0.5), (255, 255, 1.2, 0.1)]:
            result = attempt(low, high, mean, scale)
            if missing := blank(result):
                return missing
            mass, expected = float(result), self._mass(low, high, mean, scale)
            if abs(mass - expected) < 1e-6:
                continue
            said = f"for range_mass({low}, {high}, {mean}, {scale}) {mass:.6f} came out, but it is {expected:.6f}"
            return f"{said}{self._why(low, high, mean, scale, mass)}."
        return None

    @staticmethod
    def _mass(low, high, mean, scale, half=1.0, open_ends=True) -> float:
        """By tanh instead of the exponential; `half` bins are added at either end, and the ends may be left closed."""
        up_to = (2 * high - 255 + half) / 255
        below = (2 * low - 255 - half) / 255
        up_to = math.inf if open_ends and high == 255 else up_to
        below = -math.inf if open_ends and low == 0 else below
        return (math.tanh((up_to - mean) / (2 * scale)) - math.tanh((below - mean) / (2 * scale))) / 2

    def _why(self, low, high, mean, scale, mass) -> str:
        def near(value):
            return abs(mass - value) < 1e-6

        if near(self._mass(low, high, mean, math.exp(scale))):
            return ": `scale` is the scale itself, not its logarithm"
        if near(self._mass(low, high, mean, scale, half=0)) or near(self._mass(low, high, mean, scale, 0, False)):
            return ": a bin reaches half a step beyond its level on either side"
        if near(self._mass(low, high, mean, scale, half=2, open_ends=False)):
            return ": a bin reaches half a step beyond its level, 1/255, not a whole one"
        if near(self._mass(low, high, mean, scale, open_ends=False)):
            return ": " + ("bin 0 has no lower end" if low == 0 else "bin 255 has no upper end")
        return ""


class LogMassOfWhite(Exercise):
    """The log mass of byte 255, exact in float32."""

    hints = (
        "In the product form the open side's sigmoid and the last factor are 1, so one sigmoid is left: sigmoid(b), "
        "where b = (mean - lower edge) / scale. The bin's lower edge is 1 - 1/255. F.logsigmoid is exact where "
        "log(sigmoid(...)) is not.",
    )

    @staticmethod
    def answer(mean: Tensor, log_scale: Tensor) -> Tensor:
        return F.logsigmoid((mean - 254 / 255) * torch.exp(-log_scale))

    def problem(self, attempt) -> str | None:
        mean = torch.tensor([254 / 255, 1.3, 0.5, 0.0, -1.0, -1.0])
        log_scale = torch.tensor([-2.0, -1.0, -3.0, -3.5, -4.0, -6.5])
        leaf = mean.clone().requires_grad_()
        result = attempt(leaf, log_scale.clone())
        if sentence := blank(result) or wrong_shape(result, (6,)):
            return sentence
        for n, value in enumerate(result.tolist()):
            b = (mean[n].double().item() - 254 / 255) / math.exp(log_scale[n].item())
            expected = min(b, 0.0) - math.log1p(math.exp(-abs(b)))  # log sigmoid in float64
            if not math.isfinite(value) or abs(value - expected) > 1e-4 * max(1.0, abs(expected)):
                given = f"mean {mean[n]:.3f} and log-scale {log_scale[n]:g}"
                said = f"for {given} {value:g} came out, but it is {expected:g}"
                return f"{said}{self._why(n, value, b, mean[n].item(), log_scale[n].item())}."
        if not result.requires_grad:
            return "the values are right, but no gradient reaches the mean: stay with operations on tensors."
        (slope,) = torch.autograd.grad(result.sum(), leaf)
        if not bool((slope[2:] > 1).all()):
            n = int((~(slope > 1))[2:].nonzero()[0]) + 2
            return f"the value is right at mean {mean[n]:.3f}, but the gradient along the mean is {slope[n]:g}."
        return None

    @staticmethod
    def _why(n: int, value: float, b: float, mean: float, log_scale: float) -> str:
        def log_sigmoid(z):
            return min(z, 0.0) - math.log1p(math.exp(-abs(z)))

        if n >= 2:  # the easy ones were right
            return ": it is right near the mean, but far from it the digits are lost; take F.logsigmoid"
        if abs(value - math.exp(log_sigmoid(b))) < 1e-4:
            return ": that is the mass, not its logarithm"
        if abs(value - log_sigmoid(-b)) < 1e-4 and abs(b) > 1e-3:
            return ": that is the probability of all that lies below the bin"
        if any(abs(value - log_sigmoid((mean - e) / math.exp(log_scale))) < 1e-4 for e in (1.0, 253 / 255, 256 / 255)):
            return ": the lower edge of bin 255 is its level 1 minus half a step, 1 - 1/255"
        if abs(value - log_sigmoid((mean - 254 / 255) / log_scale)) < 1e-4:
            return ": the scale is exp(log_scale)"
        upper = log_sigmoid((256 / 255 - mean) / math.exp(log_scale))
        between = math.log(-math.expm1(-2 / (255 * math.exp(log_scale))))
        if abs(value - log_sigmoid(b) - upper - between) < 1e-3:
            return ": that is a bin that ends at 1 + 1/255, but bin 255 has no upper end"
        return ""


class MeanOfBlue(Exercise):
    """Blue's mean, given the pixel's red and green."""

    hints = (
        "Bytes become levels (v / 127.5 - 1) and coefficients go through tanh. Which two of the three belong to blue? "
        "See the layout: the first is red in green's mean.",
    )

    @staticmethod
    def answer(mean: float, raw_coeffs: tuple[float, float, float], red: int, green: int) -> float:
        _, of_red, of_green = (math.tanh(c) for c in raw_coeffs)
        return mean + of_red * (red / 127.5 - 1) + of_green * (green / 127.5 - 1)

    def problem(self, attempt) -> str | None:
        # by hand: these have tanh 0.5, 0.2 and 0.8; bytes 255, 204, 51 are the levels 1, 0.6, -0.6
        half, fifth, most = 0.5 * math.log(3), 0.5 * math.log(1.5), 0.5 * math.log(9)
        for mean, raw, red, green, expected in [
            (0.1, (most, half, fifth), 204, 255, 0.6),
            (0.0, (fifth, -half, most), 51, 255, 1.1),
            (-0.3, (half, most, -fifth), 204, 51, 0.3),
        ]:
            result = attempt(mean, raw, red, green)
            if missing := blank(result):
                return missing
            value = float(result)
            if abs(value - expected) < 1e-4:
                continue
            shown = tuple(round(c, 4) for c in raw)
            said = f"for mean {mean}, raw_coeffs {shown}, red {red}, green {green} {value:.4f} came out, not {expected}"
            return f"{said}{self._why(mean, raw, red, green, value)}."
        return None

    @staticmethod
    def _why(mean, raw, red, green, value) -> str:
        c = [math.tanh(r) for r in raw]
        r, g = red / 127.5 - 1, green / 127.5 - 1
        sentences = {
            mean + raw[1] * r + raw[2] * g: "the coefficients go through tanh first",
            mean + c[1] * red + c[2] * green: "bring the bytes to the scale from -1 to 1 first",
            mean + raw[1] * red + raw[2] * green: "bytes first become levels, and coefficients go through tanh",
            mean + c[0] * r + c[1] * g: "the first coefficient is red in green's mean; blue has the other two",
            mean + c[2] * r + c[1] * g: "the second coefficient belongs to red, the third to green",
            mean + c[0] * r: "that is how green's mean is made",
            mean + c[1] * r: "green counts too",
        }
        return next((f": {why}" for wrong, why in sentences.items() if abs(value - wrong) < 1e-4), "")


class FileSize(Exercise):
    """Bytes that an ideal compressor needs for a picture."""

    hints = ("How many colour values has the picture? Each costs that many bits, and a byte is 8 bits.",)

    @staticmethod
    def answer(bits: float, image_size: int) -> float:
        return bits * 3 * image_size**2 / 8

    def problem(self, attempt) -> str | None:
        for bits, size, expected in [(8.0, 32, 3072), (4.0, 32, 1536), (3.0, 64, 4608)]:  # by hand
            result = attempt(bits, size)
            if missing := blank(result):
                return missing
            value = float(result)
            if abs(value - expected) < 1e-6 * expected:
                continue
            wrong = {
                expected / 3: "a pixel has three colour values",
                expected * 8: "that is the number of bits; a byte has 8",
                expected * 8 / 3: "a pixel has three colour values, and a byte 8 bits",
                expected / size: "the picture has image_size * image_size pixels",
                expected * math.log(2): "these are bits already, not nats",
                expected / math.log(2): "these are bits already, not nats",
                expected * 8 * math.log(2): "that is the number of nats",
            }
            why = next((f": {text}" for w, text in wrong.items() if abs(value - w) < 1e-4 * w), "")
            return f"for file_size({bits}, {size}) {value:g} came out, but it is {expected}{why}."
        return None


range_mass = RangeMass()
log_mass_of_white = LogMassOfWhite()
mean_of_blue = MeanOfBlue()
file_size = FileSize()
