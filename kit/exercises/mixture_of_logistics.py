"""Exercises of notebook 02: bins and their masses, the log-probability of a pixel, sampling, bits."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from utils import mixture

from . import Exercise, blank, difference, explained, no_number, some, wrong_shape
from .pieces import Piece
from .solutions import mixture_of_logistics as solutions

KITS_LOG_PROB, KITS_SAMPLE = mixture.log_prob, mixture.sample  # those of utils are locked during a check
LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1
HALF = 1 / 255
WRITES = "it writes into its arguments (what unpack gives are views of params): make new tensors instead."


def cdf(z: float) -> float:
    """The logistic's, by tanh instead of the exponential."""
    return (1 + math.tanh(z / 2)) / 2


def log_density(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    z = (x - mean) / log_scale.exp()
    return F.logsigmoid(z) + F.logsigmoid(-z) - log_scale


class RangeMass(Exercise):
    """The probability that a byte lies in a range."""

    name = "range_mass"
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
        low, high = sorted(torch.randint(256, (2,)).tolist())
        cases += [(0, 255, -0.9, 0.5), (255, 255, 1.2, 0.1), (low, high, 0.2, 0.4)]
        for low, high, mean, scale in cases:
            result = attempt(low, high, mean, scale)
            if sentence := no_number(result):
                return sentence
            mass, expected = float(result), self._mass(low, high, mean, scale)
            if abs(mass - expected) < 1e-6:
                continue
            said = f"for range_mass({low}, {high}, {mean}, {scale}) {mass:.6f} came out, but it is {expected:.6f}"
            beyond = "a bin reaches half a step beyond its level on either side"
            wrong = {
                self._mass(low, high, mean, math.exp(scale)): "`scale` is the scale itself, not its logarithm",
                self._mass(low, high, mean, scale, 0, False): beyond,
                self._mass(low, high, mean, scale, 0): beyond,
                self._mass(low, high, mean, scale, 2, False): "a bin reaches half a step, 1/255, not a whole one",
                self._mass(low, high, mean, scale, 1, False): "bin 0 has no lower end, and bin 255 no upper end",
            }
            return said + next((f": {why}" for value, why in wrong.items() if abs(mass - value) < 1e-6), "") + "."
        return None

    @staticmethod
    def _mass(low, high, mean, scale, half=1.0, open_ends=True) -> float:
        """`half` half steps are added at either end, and the ends may be left closed."""
        up_to = math.inf if open_ends and high == 255 else (2 * high - 255 + half) / 255
        below = -math.inf if open_ends and low == 0 else (2 * low - 255 - half) / 255
        return cdf((up_to - mean) / scale) - cdf((below - mean) / scale)


class BinLogMass(Piece):
    """The log mass of one bin, exact in float32."""

    hints = (
        "Which of the two ways to write the mass never subtracts two nearly equal numbers? Write the logarithm of that "
        "one down on paper first.",
        "The logarithm of the product is a sum of three terms. F.logsigmoid(z) is exact however negative z is, and "
        "torch.expm1(-t) is exact however small t is. In an edge bin the open side's sigmoid and the last factor are "
        "1, so their logarithms are 0.",
        "a = (x + 1/255 - mean) * torch.exp(-log_scale), b = (mean - x + 1/255) * torch.exp(-log_scale), t = 2/255 * "
        "torch.exp(-log_scale). Then torch.where(x > 0.999, math.inf, a), likewise b at x < -0.999, and t at both. "
        "The sum is F.logsigmoid(a) + F.logsigmoid(b) + torch.log(-torch.expm1(-t)).",
    )
    answer = staticmethod(solutions.bin_log_mass)

    def shapes(self, attempt) -> str | None:
        for one, two, three in [((5,), (5,), (5,)), ((7, 1), (3,), ()), ((2, 3, 1, 4), (2, 3, 5, 4), (5, 1))]:
            x, mean, log_scale = (torch.zeros(shape) for shape in (one, two, three))
            value = attempt(x + LEVELS[99].float(), mean, log_scale - 2)
            if sentence := blank(value) or wrong_shape(value, torch.broadcast_shapes(one, two, three)):
                return f"x {one}, mean {two}, log_scale {three}: {sentence}"
        return None

    def middle(self, attempt) -> str | None:
        bytes_, means, log_scales = (60, 128, 171), (-0.5, 0.05, 0.4), (-2.0, -1.0, 0.5)
        hand = [
            math.log(cdf((x + HALF - m) / math.exp(s)) - cdf((x - HALF - m) / math.exp(s)))
            for x, m, s in zip(LEVELS[list(bytes_)].tolist(), means, log_scales, strict=True)
        ]
        x, mean, s = LEVELS[list(bytes_)], torch.tensor(means), torch.tensor(log_scales)
        value, expected = attempt(x.float(), mean, s), torch.tensor(hand)
        unlike = self._log_mass(x, mean, 1 / s)
        flaws = {
            "that is the mass, not its logarithm": expected.exp(),
            "that is the logarithm to base 2; nats are to base e": expected / math.log(2),
            "a bin reaches 1/255 to either side, half a step, not 2/255": self._log_mass(x, mean, (-s).exp(), 2),
            "a bin reaches 1/255 to either side of its level, half a step": self._log_mass(x, mean, (-s).exp(), 0.5),
            "divide by the scale exp(log_scale), do not multiply by it": self._log_mass(x, mean, s.exp()),
            "that is the log density, not the mass of a bin": log_density(x, mean, s),
            "the third factor of the product is missing": expected - torch.log(-torch.expm1(-2 * HALF * (-s).exp())),
        }
        problem = explained(value, expected, flaws, 1e-4)
        if problem and isinstance(value, Tensor) and value.shape == (3,):
            if abs(float(value[2] - unlike[2])) < 1e-4:  # the others have a negative "scale"
                return f"{problem[:-1]}: the scale is exp(log_scale), not log_scale."
            if value.max() < -20:
                return "all masses are 0 or nearly 0: a bin reaches 1/255 to either side of its level."
        return problem

    @staticmethod
    def _log_mass(x, mean, inverse, nr_halves=1.0):
        upper, lower = (torch.sigmoid((x + half * HALF - mean) * inverse) for half in (nr_halves, -nr_halves))
        return (upper - lower).log()

    def edges(self, attempt) -> str | None:
        for mean in (-0.9, 0.0, 0.9):
            for byte in (0, 255, 1, 254):
                x, s = LEVELS[byte].item(), torch.tensor(-1.0)
                below = 0.0 if byte == 0 else cdf((x - HALF - mean) * math.e)
                up_to = 1.0 if byte == 255 else cdf((x + HALF - mean) * math.e)
                value, expected = float(attempt(torch.tensor(x), torch.tensor(mean), s)), math.log(up_to - below)
                if not abs(value - expected) < 1e-3:
                    ends = {0: "it has an upper end, but no lower one", 255: "it has a lower end, but no upper one"}
                    why = ends.get(byte, "only bins 0 and 255 are open; this one ends 1/255 from its level")
                    if byte in ends and abs(value - expected - math.log(-math.expm1(-2 * HALF * math.e))) < 1e-3:
                        why = "in an open bin t is infinite too, and the factor 1 - exp(-t) is 1"
                    return f"byte {byte}, mean {mean}: {value:.4f} came out, but it is {expected:.4f}: {why}."
        return None

    def far(self, attempt) -> str | None:
        cases = [(1, -3.0, -7.0), (0.8, -1.1, -6.5), (1, -1.2, -3.9), (0.6, 0.0, -3.9), (0.3, 0.0, -3.9)]
        for (side, sign), (x, mean, s) in itertools.product((("above", 1), ("below", -1)), cases):
            level = sign * LEVELS[round((x + 1) * 127.5)]
            if problem := self._inexact(attempt, f"far {side} the mean", level, sign * mean, s):
                return problem
        return None

    def wide(self, attempt) -> str | None:
        for byte, mean, s in itertools.product((40, 128, 200), (-0.4, 0.1), (3.0, 5.0, 7.0)):
            if problem := self._inexact(attempt, "a wide logistic", LEVELS[byte], mean, s):
                return problem
        return None

    @staticmethod
    def _inexact(attempt, where: str, level: Tensor, *mean_and_log_scale: float) -> str | None:
        x, mean, log_scale = level.float(), *map(torch.tensor, mean_and_log_scale)
        value, exact = float(attempt(x, mean, log_scale)), [each.double() for each in (x, mean, log_scale)]
        expected = float(solutions.bin_log_mass(*exact))
        if abs(value - expected) <= 1e-5 * abs(expected):
            return None
        why = "where two nearly equal numbers are subtracted, digits are lost"
        if math.isnan(value):
            why = "infinity minus infinity and infinity times 0 are not numbers"
        elif math.isinf(value):
            why = "the mass, or a factor of it, has become 0: stay with logarithms (F.logsigmoid)"
        elif abs(value - float(log_density(*exact)) - math.log(2 * HALF)) <= 1e-5 * abs(expected):
            why = "that is the density times the width of the bin, which only approximates its mass"
        elif expected < -20 and value == float(attempt(x, 2 * mean - x, log_scale)):
            why = "however far the mean, this comes out: a floor is not the mass, and it has no slope"
        given = f"level {float(x):.3f}, mean {float(mean):.1f}, log_scale {float(log_scale):.1f}"
        return f"in float32, {where} ({given}), {value:.6g} came out, but it is {expected:.6g}: {why}."

    def gradients(self, attempt) -> str | None:
        x = LEVELS[[0, 0, 1, 40, 127, 128, 215, 254, 255, 255]].float()
        mean = torch.tensor([-1.2, 1.0, 0.5, 0.9, 0.0, 0.0, -0.5, -0.9, 1.1, -1.0])
        found = []
        for function, dtype in ((attempt, torch.float32), (solutions.bin_log_mass, torch.float64)):
            leaves = [each.to(dtype).requires_grad_() for each in (mean, torch.full_like(mean, -4.0))]
            value = function(x.to(dtype), *leaves)
            if not value.requires_grad:
                return "no gradient arrives: stay with operations on tensors, without .item() or .detach()."
            found.append(torch.autograd.grad(value.sum(), leaves, allow_unused=True))
        for name, slope, expected in zip(("mean", "log_scale"), *found, strict=True):
            if slope is None:
                return f"no gradient reaches {name}."
            if slope.isnan().any():
                byte = round((float(x[slope.isnan()][0]) + 1) * 127.5)
                why = "infinity times a gradient of 0 is NaN: multiply by the inverse scale first, then put infinity in"
                return f"the gradient along {name} is NaN at byte {byte}: {why} with torch.where."
            if problem := difference(slope, expected, 1e-3):
                return f"the gradient along {name}: {problem}"
        return None

    def sums(self, attempt) -> str | None:
        mean, log_scale = 3 * torch.rand(40, 1).double() - 1.5, 10 * torch.rand(40, 1).double() - 7
        total = attempt(LEVELS, mean, log_scale).exp().sum(dim=1)
        worst = (total - 1).abs().nan_to_num(nan=torch.inf).argmax()
        if not abs(float(total[worst]) - 1) < 1e-9:
            given = f"mean {float(mean[worst]):.3f}, log_scale {float(log_scale[worst]):.3f}"
            return f"{given}: the masses of the 256 bins sum to {float(total[worst]):.9f}, not to 1."
        return None

    def equal(self, attempt) -> str | None:
        x = LEVELS[torch.randint(256, (50, 1, 3))]
        mean, log_scale = 2 * torch.randn(4, 1).double(), 2 * torch.randn(50, 4, 3).double() - 3
        return difference(attempt(x, mean, log_scale), solutions.bin_log_mass(x, mean, log_scale))

    steps = {
        "x, mean and log_scale broadcast": shapes,
        "values in the middle are those worked out by hand": middle,
        "the two edge bins are open outwards, and no others": edges,
        "in float32 it is exact far from the mean, on both sides": far,
        "in float32 a wide logistic is exact too": wide,
        "the gradients are finite and right, in the edge bins too": gradients,
        "the 256 masses sum to 1 at random means and scales": sums,
        "random inputs in float64 give the kit's values": equal,
    }


def random_pixels(b: int, k: int, h: int, w: int, size: float = 1.0) -> tuple[Tensor, Tensor]:
    """A network's output and pictures, float64: every channel matters."""
    params = size * torch.randn(b, 10 * k, h, w, dtype=torch.float64)
    mixture.parts(params).log_scales.sub_(1.5)
    return params, LEVELS[torch.randint(256, (b, 3, h, w))]


class Flawed:
    """What a `log_prob` (without `reduce`) or a `sample` with one flaw gives: by this a check names the flaw."""

    def __init__(self, params: Tensor, flaw: str):
        self.flaw, (self.logits, self.means, log_scales, coeffs) = flaw, mixture.parts(params)
        self.log_scales = log_scales if flaw == "clamp" else log_scales.clamp(min=mixture.MIN_LOG_SCALE)
        coeffs = coeffs if flaw == "tanh" else coeffs.tanh()
        coeffs = coeffs.tanh() if flaw == "twice" else coeffs
        coeffs = coeffs.roll(-1, dims=1) if flaw == "shifted" else coeffs
        self.of_red, self.in_blue, self.of_green = coeffs.unbind(dim=1)
        if flaw == "order":
            self.in_blue, self.of_green = self.of_green, self.in_blue
        if flaw == "coupling":
            self.of_red = self.in_blue = self.of_green = torch.zeros_like(self.of_red)
        if flaw == "green":
            self.of_green = torch.zeros_like(self.of_green)

    def log_prob(self, x: Tensor) -> Tensor:
        x, log_pi = x[:, :, None], self.logits.log_softmax(dim=-1 if self.flaw == "dimension" else 1)
        red, green = (self.means if self.flaw == "means" else x)[:, :2].unbind(dim=1)
        of_blue = self.in_blue * red + self.of_green * green
        shift = torch.stack([torch.zeros_like(of_blue), self.of_red * red, of_blue], dim=1)
        log_mass = solutions.bin_log_mass(x, self.means + shift, self.log_scales)
        if self.flaw == "colours":
            return (log_mass + log_pi[:, None]).logsumexp(dim=2).sum(dim=1)
        terms = log_mass.sum(dim=1) + (self.logits if self.flaw == "softmax" else log_pi)
        if self.flaw == "one weight":
            terms = log_mass.sum(dim=1) - math.log(log_pi.shape[1])
        if self.flaw == "logs":
            return (log_pi.exp() * log_mass.sum(dim=1)).sum(dim=1)
        return terms.amax(dim=1) if self.flaw == "largest" else terms.logsumexp(dim=1)

    def sample(self, noise: Tensor, temperature: float) -> Tensor:
        k = self.logits.shape[1]
        noise = noise.roll(-3, dims=1) if self.flaw == "noise" else noise.clamp(1e-5, 1 - 1e-5)
        u = noise[:, k : k + 1].expand(-1, 3, -1, -1) if self.flaw == "one u" else noise[:, k:]
        gumbel, spread = -torch.log(-torch.log(noise[:, :k])), temperature * torch.logit(u)
        gumbel = {"gumbel": -gumbel, "likeliest": 0 * gumbel, "uniform": noise[:, :k]}.get(self.flaw, gumbel)
        gumbel = gumbel if self.flaw == "temperature" else temperature * gumbel
        pi = torch.zeros_like(gumbel).scatter(1, (self.logits + gumbel).argmax(dim=1, keepdim=True), 1.0)
        pi = self.logits.softmax(dim=1) if self.flaw == "average" else pi
        each = (self.means, self.log_scales, self.of_red, self.in_blue, self.of_green)
        mean, log_scale, *coeffs = ((part * (pi[:, None] if part.ndim == 5 else pi)).sum(dim=-3) for part in each)
        scale = log_scale if self.flaw == "scale" else log_scale.exp()
        own, rounded = mean + scale * spread * (-1 if self.flaw == "sign" else 1), mixture.to_levels
        red = own[:, 0] if self.flaw == "unrounded" else rounded(own[:, 0])
        green = own[:, 1] + coeffs[0] * red
        green = green if self.flaw == "unrounded" else rounded(green)
        return rounded(torch.stack([red, green, own[:, 2] + coeffs[1] * red + coeffs[2] * green], dim=1))


class LogProb(Piece):
    """The log-probability of a pixel under K components with three coupled colours."""

    kit = "utils.mixture.log_prob"
    hints = (
        "Go from the inside to the outside: the means given the true red and green, the log mass of each colour under "
        "each component, the sum over the colours, the sum over the components. Write the shape behind every line.",
        "Give x an axis for the components: x[:, :, None] is (B, 3, 1, H, W) and broadcasts against (B, 3, K, H, W). "
        "coeffs[:, 0] is red in green's mean, coeffs[:, 1] red in blue's, coeffs[:, 2] green in blue's. Log masses of "
        "the colours are added *before* the logsumexp: a component makes all three colours of a pixel.",
        "logits, means, log_scales, coeffs = unpack(params); x = x[:, :, None]; torch.stack the three colours' means "
        "along dim 1; bin_log_mass(x, means, log_scales).sum(dim=1) is (B, K, H, W); add logits.log_softmax(dim=1); "
        "torch.logsumexp over dim 1 gives (B, H, W); with reduce, sum over dims 1 and 2.",
    )
    answer = staticmethod(solutions.log_prob)

    def shapes(self, attempt) -> str | None:
        for b, k, h, w in [(2, 3, 4, 5), (1, 1, 1, 1), (3, 2, 5, 2)]:
            params, x = random_pixels(b, k, h, w)
            before = params.clone()
            for reduce, shape in ((True, (b,)), (False, (b, h, w))):
                value = attempt(params, x, reduce=reduce)
                if not torch.equal(params, before):
                    return WRITES
                if sentence := blank(value) or wrong_shape(value, shape):
                    return f"params {(b, 10 * k, h, w)}, x {(b, 3, h, w)}, reduce={reduce}: {sentence}"
        return None

    def one_logistic(self, attempt) -> str | None:
        pixel, means, log_scales = (140, 90, 200), (0.1, -0.2, 0.3), (-2.0, -1.5, -1.0)
        params = torch.tensor([0.7, *([0] * 9)], dtype=torch.float64).view(1, 10, 1, 1)
        for part, values in zip(mixture.parts(params)[1:3], (means, log_scales), strict=True):
            part[0, :, 0, 0, 0] = torch.tensor(values, dtype=torch.float64)
        hand = [
            math.log(cdf((x + HALF - m) / math.exp(s)) - cdf((x - HALF - m) / math.exp(s)))
            for x, m, s in zip(LEVELS[list(pixel)].tolist(), means, log_scales, strict=True)
        ]
        expected = torch.tensor([sum(hand)], dtype=torch.float64)
        flaws = {
            "that is the loss; log_prob is its negative": -expected,
            "these are bits; nats are asked for": expected / math.log(2),
            "a pixel's probability is the product of the three colours'; you took the mean": expected / 3,
            "a single component has weight 1 whatever its logit: the softmax is missing": expected + 0.7,
            "the weight's logarithm is added: log_softmax, not softmax": expected + 1,
            "the three masses are multiplied, so their logarithms are added": torch.tensor(hand).logsumexp(0, True),
        }
        return explained(attempt(params, LEVELS[list(pixel)].view(1, 3, 1, 1)), expected, flaws)

    def components(self, attempt) -> str | None:
        params, x = random_pixels(2, some(2, 4), 2, 3)
        mixture.parts(params).coeffs.zero_()
        return self._compared(attempt, params, x, ("colours", "softmax", "dimension", "one weight", "logs", "largest"))

    def coupling(self, attempt) -> str | None:
        params, x = random_pixels(2, 2, 3, 3)
        flaws = ("tanh", "twice", "order", "shifted", "means", "green", "coupling")
        if problem := self._compared(attempt, params, x, flaws):
            return problem
        mixture.parts(params).log_scales.sub_(6)  # some now lie below the clamp
        return self._compared(attempt, params, x, ("clamp",))

    @staticmethod
    def _compared(attempt, params, x, flaws) -> str | None:
        expected = KITS_LOG_PROB(params, x, reduce=False)
        flawed = {LOG_PROB_FLAWS[flaw]: Flawed(params, flaw).log_prob(x) for flaw in flaws}
        value = attempt(params, x, reduce=False)
        if problem := explained(value, expected, flawed):
            gone = "a probability has become 0 on the way: stay with logarithms, and sum with torch.logsumexp"
            return f"{problem[:-1]}: {gone}." if isinstance(value, Tensor) and value.isneginf().any() else problem
        if problem := difference(attempt(params, x), expected.sum(dim=(1, 2))):
            return f"reduce=True: {problem[:-1]}: a picture's number is the sum over its pixels."
        return None

    def gradients(self, attempt) -> str | None:
        params, x = random_pixels(2, 3, 2, 2)
        slopes = []
        for function in (attempt, KITS_LOG_PROB):
            leaf = params.clone().requires_grad_()
            value = function(leaf, x)
            if not value.requires_grad:
                return "no gradient reaches params: stay with operations on tensors, without .detach() or .item()."
            slopes.append(torch.autograd.grad(value.sum(), leaf)[0])
        for name, slope, expected in zip(mixture.Mixture._fields, *map(mixture.parts, slopes), strict=True):
            if problem := difference(slope, expected, 1e-7):
                return f"the gradient of the {name}: {problem}"
        return None

    def no_loop(self, attempt) -> str | None:
        counts = {}
        small = (1, 2, 2, 2)
        for what, large in (("pictures", (6, 2, 2, 2)), ("pixels", (1, 2, 5, 5)), ("components", (1, 7, 2, 2))):
            for size in (small, large):
                inputs = random_pixels(*size)
                with Calls() as counts[size]:
                    attempt(*inputs)
            few, many = counts[small].count, counts[large].count
            if many > few:
                of = f"for (B, K, H, W) = {small} and {many} for {large}"
                return f"PyTorch is called {few} times {of}: that is a loop over {what}."
        return None

    def equal(self, attempt) -> str | None:
        for size in (0.3, 1.0, 3.0):
            b, k, h, w = torch.randint(1, 6, (4,)).tolist()
            params, x = random_pixels(b, k, h, w, size)
            for reduce in (True, False):
                if problem := difference(attempt(params, x, reduce=reduce), KITS_LOG_PROB(params, x, reduce=reduce)):
                    return f"{k} components, reduce={reduce}: {problem}"
        return None

    steps = {
        "one number for each picture, or for each pixel": shapes,
        "one component without coupling gives the value worked out by hand": one_logistic,
        "several components are summed for each pixel, with the right weights": components,
        "green depends on red, and blue on red and green": coupling,
        "every parameter gets the right gradient": gradients,
        "no loop runs over pictures, pixels or components": no_loop,
        "random inputs of several sizes give the kit's values": equal,
    }


LOG_PROB_FLAWS = {
    "colours": "you sum over the components for each colour by itself; add the three log masses first, then logsumexp",
    "softmax": "the weights do not sum to 1: take log_softmax of the logits",
    "one weight": "the weights are the softmax of the logits, not all the same",
    "dimension": "the softmax runs over the K components, dim 1, not over pixels",
    "logs": "that is the mean of the logarithms; the masses are averaged, not their logarithms (logsumexp)",
    "largest": "that is the largest component alone; sum them all with logsumexp",
    "tanh": "the coefficients are used before tanh; unpack has applied it",
    "twice": "unpack has applied tanh already; yours applies it twice",
    "order": "in blue's mean coeffs[:, 1] belongs to red and coeffs[:, 2] to green; yours are exchanged",
    "shifted": "coeffs[:, 0] is red in green's mean; coeffs[:, 1] and coeffs[:, 2] are blue's",
    "means": "the means of green and blue depend on the true red and green in x, not on the means",
    "green": "blue's mean depends on green too",
    "coupling": "the coefficients are not used: green's mean depends on red, and blue's on red and green",
    "clamp": "log-scales below -7 are not clamped; unpack does it",
}


class Calls(TorchFunctionMode):
    """Counts calls of PyTorch."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


class Sample(Piece):
    """Sampling: Gumbel-max, then the inverse CDF, colour after colour."""

    kit = "utils.mixture.sample"
    hints = (
        "Three decisions, each with its own random numbers: which component, how far each colour lies from its mean, "
        "and to which level that is rounded. Make red first; green needs it.",
        "-log(-log(u)) of the first K channels of the noise is added to the logits, times the temperature; argmax over "
        "dim 1. `part.gather(2, index)` takes the chosen component of means, log_scales and coeffs, with an index of "
        "shape (B, 3, 1, H, W). torch.logit is the inverse of the sigmoid.",
        "Clamp the noise. component = (logits + temperature * gumbel).argmax(dim=1), (B, H, W); index = component[:, "
        "None, None].expand(b, 3, 1, h, w); gather and .squeeze(2) three times. own = mean + log_scale.exp() * "
        "temperature * torch.logit(noise[:, k:]). red = to_levels(own[:, 0]), green = to_levels(own[:, 1] + coeff[:, "
        "0] * red), blue likewise from red and green; torch.stack along dim 1.",
    )
    answer = staticmethod(solutions.sample)

    def shapes(self, attempt) -> str | None:
        for b, k, h, w in [(2, 3, 4, 5), (1, 1, 1, 1), (3, 2, 5, 2)]:
            params, noise = random_pixels(b, k, h, w)[0], torch.rand(b, k + 3, h, w).double()
            before = params.clone(), noise.clone()
            x = attempt(params, noise)
            if not (torch.equal(params, before[0]) and torch.equal(noise, before[1])):
                return WRITES
            if sentence := blank(x) or wrong_shape(x, (b, 3, h, w)):
                return f"params {(b, 10 * k, h, w)}, noise {(b, k + 3, h, w)}: {sentence}"
            if not torch.equal(x, attempt(params, noise)):
                return "twice the same noise gave two pictures: all randomness comes from `noise`."
            if problem := difference(x, mixture.to_levels(x.clamp(-1, 1))):
                return f"a value is not one of the 256 levels: {problem}"
        return None

    def without_noise(self, attempt) -> str | None:
        params, noise = random_sample(2, 3, 8, 8)
        flaws = ("average", "temperature", "tanh", "twice", "order", "shifted", "coupling", "unrounded")
        problem = self._compared(attempt, params, noise, 0.0, flaws)
        if problem and not torch.equal(attempt(params, noise, 0.0), attempt(params, 1 - noise, 0.0)):
            return f"{problem[:-1]}, and other noise gives another picture."
        return problem

    def one_logistic(self, attempt) -> str | None:
        params, noise = random_sample(2, 1, 8, 8)
        mixture.parts(params).coeffs.zero_()
        return self._compared(attempt, params, noise, 1.0, ("sign", "scale", "noise", "one u"))

    def frequencies(self, attempt) -> str | None:
        """Of 40,000 draws no share of the bytes up to any v is off by more than 0.015: by chance in 1 of 3e7 calls
        (Dvoretzky, Kiefer and Wolfowitz's inequality)."""
        n, means = 40_000, torch.tensor([-0.6, 0.1, 0.7]).double()
        params = torch.zeros(1, 30, 1, 1).double()
        params[0, :3, 0, 0] = torch.tensor([0.6, 0.3, 0.1]).double()[torch.randperm(3)].log() + torch.randn(())
        mixture.parts(params).means[0, 0, :, 0, 0] = means
        mixture.parts(params).log_scales.fill_(-3.0)
        params, noise = params.expand(-1, -1, 1, n).contiguous(), torch.rand(1, 6, 1, n).double()
        drawn = ((attempt(params, noise)[0, 0, 0].double() + 1) * 127.5).round().long().clamp(0, 255)
        x = LEVELS.view(1, 1, 1, 256).repeat(1, 3, 1, 1)
        x[:, 1:] = 0  # green and blue do not depend on red here
        log_mass = solutions.bin_log_mass(LEVELS[:, None], means, torch.full((3,), -3.0).double())
        mass = (log_mass.exp() * params[0, :3, 0, 0].softmax(dim=0)).sum(dim=1)
        off = torch.bincount(drawn, minlength=256) / n - mass
        worst = float(off.cumsum(dim=0).abs().max())
        if worst <= 0.015:
            return None
        flaws = ("likeliest", "gumbel", "uniform", "average", "noise")
        problem = self._compared(attempt, params, noise, 1.0, flaws)
        if problem and any(SAMPLE_FLAWS[flaw] in problem for flaw in flaws):
            return problem
        where = (drawn[:, None] - (means + 1) * 127.5).abs().argmin(dim=1)  # the nearest component
        pairs = zip(torch.bincount(where, minlength=3) / n, params[0, :3, 0, 0].softmax(dim=0), strict=True)
        said = ", ".join(f"{share:.3f} (weight {weight:.3f})" for share, weight in pairs)
        return f"the shares of the three components' draws are {said}."

    def rounded(self, attempt) -> str | None:
        params, noise = random_sample(2, 2, 12, 12)
        flaws = ("unrounded", "tanh", "order", "shifted", "coupling", "green", "noise", "gumbel", "likeliest")
        return self._compared(attempt, params, noise, 1.0, flaws)

    @staticmethod
    def _compared(attempt, params, noise, temperature, flaws) -> str | None:
        expected = KITS_SAMPLE(params, noise=noise, temperature=temperature)
        flawed = {SAMPLE_FLAWS[flaw]: Flawed(params, flaw).sample(noise, temperature) for flaw in flaws}
        problem = explained(attempt(params, noise, temperature), expected, flawed)
        return problem and f"temperature {temperature:g}: {problem}"

    def ends(self, attempt) -> str | None:
        params, noise = random_sample(2, 3, 8, 8)
        noise = noise.round()  # 0 or 1
        x, expected = attempt(params, noise), KITS_SAMPLE(params, noise=noise)
        if problem := difference(x, expected):
            return f"noise of exactly 0 or 1: {problem[:-1]}; clamp it to [1e-5, 1 - 1e-5] before the logarithms."
        return None

    def equal(self, attempt) -> str | None:
        for temperature in (1.0, 0.5, 2 * float(torch.rand(()))):
            b, k, h, w = torch.randint(1, 7, (4,)).tolist()
            if problem := self._compared(attempt, *random_sample(b, k, h, w), temperature, ("temperature",)):
                return f"{k} components, {problem}"
        return None

    steps = {
        "the noise fixes the picture, and all values are levels": shapes,
        "at temperature 0 it is the likeliest component's mean, colour after colour": without_noise,
        "one logistic is drawn by the inverse CDF": one_logistic,
        "40,000 draws fall on the bytes as often as their masses say": frequencies,
        "green is made from the rounded red, and blue from both": rounded,
        "noise of exactly 0 or 1 does no harm": ends,
        "random noise gives the kit's pictures": equal,
    }


SAMPLE_FLAWS = {flaw: LOG_PROB_FLAWS[flaw] for flaw in ("tanh", "twice", "order", "shifted", "coupling", "green")} | {
    "average": "you average the components with their weights; one component is chosen for the whole pixel",
    "temperature": "the temperature multiplies the Gumbel noise too, not the logistic's alone",
    "unrounded": "green and blue depend on the rounded red and green, as the network will see them",
    "sign": "the inverse CDF is mean + scale * logit(u), with a plus",
    "scale": "the scale is exp(log_scale)",
    "likeliest": "the likeliest component is taken each time; add Gumbel noise to the logits",
    "gumbel": "the Gumbel noise is -log(-log(u)), with a minus in front",
    "uniform": "the noise added to the logits is -log(-log(u)), not u itself",
    "one u": "each colour has random numbers of its own: the last three channels of the noise",
    "noise": "the first K channels of the noise choose the component, the last three are the colours'",
}


def random_sample(b: int, k: int, h: int, w: int) -> tuple[Tensor, Tensor]:
    params = random_pixels(b, k, h, w)[0]
    mixture.parts(params).means.mul_(0.4)
    return params, torch.rand(b, k + 3, h, w).double()


class MeanOfBlue(Exercise):
    """Blue's mean, given the pixel's red and green."""

    name = "mean_of_blue"
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
            if sentence := no_number(result):
                return sentence
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

    name = "file_size"
    hints = ("How many colour values does the picture have? Each costs that many bits, and a byte is 8 bits.",)

    @staticmethod
    def answer(bits: float, image_size: int) -> float:
        return bits * 3 * image_size**2 / 8

    def problem(self, attempt) -> str | None:
        other = some(10, 99)
        cases = [(8.0, 32, 3072), (4.0, 32, 1536), (3.0, 64, 4608), (2.0, other, 0.75 * other**2)]  # by hand
        for bits, size, expected in cases:
            result = attempt(bits, size)
            if sentence := no_number(result):
                return sentence
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


range_mass, mean_of_blue, file_size = RangeMass(), MeanOfBlue(), FileSize()
bin_log_mass, log_prob, sample = BinLogMass(), LogProb(), Sample()
