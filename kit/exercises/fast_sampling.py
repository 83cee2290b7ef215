"""Exercises of notebook 07: what sampling costs, and how a cache makes it cheap."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import parametrize

from utils.model import ConditionalPixelCNN, ModelConfig
from utils.sampling import CachedNetwork

from . import Exercise, blank, no_number, some


class NaiveCost(Exercise):
    """FLOPs of a picture drawn by one whole forward pass for every pixel."""

    name = "naive_cost"
    hints = (
        "Two factors grow: how many passes there are, one for every pixel, and what one pass costs. A convolution does "
        "the same work at every position, so (size / 32)**2 times the pixels cost as many times the FLOPs.",
    )

    @staticmethod
    def answer(size: int, flops: float) -> float:
        one_pass = flops * (size / 32) ** 2
        return size**2 * one_pass

    def problem(self, attempt) -> str | None:
        by_hand = [(32, 1000, 1_024_000), (64, 1000, 16_384_000), (16, 1000, 64_000), (48, 1000, 5_184_000)]
        size, flops = 8 * some(9, 30), 1000 * some(2, 900)
        cases = [*by_hand, (32, 7, 7168), (size, flops, size**4 // 1024 * flops)]
        for size, flops, expected in cases:
            cost = attempt(size, flops)
            if missing := no_number(cost):
                return missing
            cost = float(cost)
            if not abs(cost - expected) <= 1e-6 * expected:
                asked = f"for naive_cost({size}, {flops}) {cost:g} came out, but it is {expected}"
                if size != 32 and cost == size**2 * flops:
                    return f"{asked}: a pass over {size}x{size} pixels does not cost what one over 32x32 does."
                if size == 32 and cost == 32 * flops:
                    return f"{asked}: a picture has size * size pixels, each a pass, not size."
                return f"{asked}."
        return None


class CachedConv1d(Exercise):
    """A causal convolution of a sequence, fed one value at a time."""

    name = "cached_conv1d"
    hints = (
        "Keep a tensor of the last k values, zeros at first: they are the padding. At each call drop the oldest, "
        "append the new one, return the sum of the products. `nonlocal` lets an inner function assign to a "
        "variable of the outer one.",
    )

    @staticmethod
    def answer(weight: Tensor) -> Callable[[Tensor], Tensor]:
        last = torch.zeros_like(weight)  # (k,), the newest at the end

        def feed(value: Tensor) -> Tensor:
            nonlocal last
            last = torch.cat([last[1:], value.view(1)])
            return (last * weight).sum()

        return feed

    def problem(self, attempt) -> str | None:
        sequence = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        by_hand = [[1.0, 10.0, 100.0], [2.0], [0.5, -1.0, 0.0, 3.0]]
        cases = [(torch.tensor(weight), sequence) for weight in by_hand]
        cases += [(torch.randn(some(low, low + 3)), torch.randn(some(9, 14))) for low in (2, 5)]
        for weight, sequence in cases:
            for disturbed in (False, True):
                if sentence := self._wrong_call(attempt, weight, sequence, disturbed):
                    return sentence
        return None

    @classmethod
    def _wrong_call(cls, attempt, weight: Tensor, sequence: Tensor, disturbed: bool) -> str | None:
        """`disturbed`: another function, made by another call, is fed another sequence meanwhile."""
        expected = F.conv1d(F.pad(sequence, (len(weight) - 1, 0))[None, None], weight[None, None])[0, 0]
        feed = attempt(weight.clone())
        if missing := blank(feed):
            return missing
        if not callable(feed):
            return f"a function was expected that takes the next value, not {type(feed).__name__}."
        other = attempt(weight.clone()) if disturbed else None
        for t, value in enumerate(sequence):
            result = feed(value.clone())
            if missing := no_number(result):
                return f"call {t}: {missing}"
            if not abs(float(result) - float(expected[t])) <= 1e-4:
                if disturbed:
                    return "one function alone is right, but two made by two calls disturb each other's memory."
                numbers = [[round(float(number), 2) for number in of] for of in (weight, sequence[: t + 1])]
                said = f"weight {numbers[0]}, fed {numbers[1]}: call {t} gave {float(result):g}, not {expected[t]:g}"
                return f"{said}{cls._why(weight, sequence[: t + 1], float(result))}."
            if other:
                other(-value)
        return None

    @staticmethod
    def _why(w: Tensor, so_far: Tensor, result: float) -> str:
        window = F.pad(so_far, (len(w) - 1, 0))[-len(w) :]
        alone = torch.zeros_like(w)
        alone[-1] = so_far[-1]
        if len(w) > 1 and abs(result - float((window.flip(0) * w).sum())) < 1e-6:
            return ": the kernel is the wrong way round; the last weight belongs to the newest value"
        if len(w) > 1 and len(so_far) > 1 and abs(result - float((alone * w).sum())) < 1e-6:
            return ": the values fed before are forgotten between two calls"
        return ""


class RowsThatChange(Exercise):
    """The scales that get a new row when a row of the picture begins."""

    name = "rows_that_change"
    hints = (
        "Scale s has a row for every 2**s rows of the picture, and computes it when the first of them begins: when "
        "2**s divides i. Every number divides 0.",
    )

    @staticmethod
    def answer(i: int, nr_scales: int) -> list[int]:
        return [scale for scale in range(nr_scales) if i % 2**scale == 0]

    def problem(self, attempt) -> str | None:
        by_hand = [
            (1, 3, [0]),
            (2, 3, [0, 1]),
            (3, 3, [0]),
            (4, 3, [0, 1, 2]),
            (6, 3, [0, 1]),
            (8, 3, [0, 1, 2]),
            (8, 4, [0, 1, 2, 3]),
            (12, 4, [0, 1, 2]),
            (0, 3, [0, 1, 2]),
        ]
        for _ in range(6):
            odd, halvings, nr_scales = 2 * some(0, 9) + 1, some(0, 5), some(1, 7)
            by_hand.append((odd << halvings, nr_scales, list(range(min(halvings + 1, nr_scales)))))
        for i, nr_scales, expected in (*by_hand, (0, 6, [0, 1, 2, 3, 4, 5])):
            answer = attempt(i, nr_scales)
            if missing := blank(answer):
                return missing
            if not isinstance(answer, Iterable) or isinstance(answer, str) or getattr(answer, "ndim", 1) != 1:
                return f"a list of scales was expected, not {type(answer).__name__}."
            answer = list(answer)
            if any(getattr(scale, "dtype", type(scale)) in (bool, torch.bool) for scale in answer):
                return f"a list of the scales' numbers was expected, not of {answer[0]}: which of them are true?"
            if any(isinstance(scale, str) or no_number(scale) or float(scale) % 1 for scale in answer):
                return f"a list of whole numbers was expected, not {answer}."
            scales = sorted(int(scale) for scale in answer)
            if scales == expected:
                continue
            said = f"when row {i} begins, with {nr_scales} scales, your answer is {scales}, but it is {expected}"
            if i == 0:
                return f"{said}: row 0 is the first of every scale."
            if 0 not in scales:
                return f"{said}: the finest scale, 0, has a new row every time."
            if max(scales) >= nr_scales:
                return f"{said}: the coarsest scale is {nr_scales - 1}."
            return f"{said}: scale s changes at rows that 2**s divides."
        return None


class CountCachedUpdates(Exercise):
    """How many positions of the ul stream are computed while a picture is drawn, all three scales together."""

    name = "count_cached_updates"
    hints = (
        "Each position is computed once. How many are there at 32x32, how many at the scale of half the height and "
        "half the width, how many at the coarsest?",
    )

    @staticmethod
    def answer(size: int) -> int:
        return sum((size >> scale) ** 2 for scale in range(3))

    def problem(self, attempt) -> str | None:
        for size, measured in ((4, True), (8, True), (12, True), (4 * some(4, 40), False), (4 * some(4, 40), False)):
            count = attempt(size)
            if missing := no_number(count):
                return missing
            count = float(count)
            expected = count_ul_positions(size) if measured else self.answer(size)  # larger ones take seconds to draw
            if count != expected:
                said = (
                    f"the sampler computes {expected} positions for a {size}x{size} picture, your answer is {count:g}"
                )
                if count == 3 * size**2:
                    return f"{said}: the coarser scales have fewer positions."
                if count == size**2 + (size // 2) ** 2 * 2 or count == size**2 + size**2 // 2 + size**2 // 4:
                    return f"{said}: a scale has half the height and half the width of the finer one, a quarter of it."
                if count == size**2 * expected:
                    return f"{said}: that is the naive sampler; the cached one computes each position once."
                return f"{said}."
        return None


class Counted:
    """A `PixelBlock` that counts its calls."""

    def __init__(self, block):
        self.block, self.calls = block, 0
        self.start_row = block.start_row

    def __call__(self, *args):
        self.calls += 1
        return self.block(*args)


@torch.inference_mode()
def count_ul_positions(size: int) -> int:
    """How many positions the real sampler computes in the first ul block of each scale."""
    config = ModelConfig(1, nr_resnet=1, nr_filters=2, nr_logistic_mix=1, image_size=size)
    with torch.random.fork_rng(devices=[]), parametrize.cached():
        network = CachedNetwork(ConditionalPixelCNN(config).eval(), torch.tensor([0]))
        network.down_blocks = [[(u, Counted(ul)) for u, ul in blocks] for blocks in network.down_blocks]
        for i in range(size):
            network.start_row(i)
            for j in range(size):
                network.params(j)
                network.put(j, torch.zeros(1, 3))
    return sum(blocks[0][1].calls for blocks in network.down_blocks)


naive_cost = NaiveCost()
cached_conv1d = CachedConv1d()
rows_that_change = RowsThatChange()
count_cached_updates = CountCachedUpdates()
