"""Exercises of notebook 07: what sampling costs, caches that make it cheap, and sampling by fixed-point iteration."""

import math
import types
from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves

from utils.layers import DownRightShiftedConv2d, GatedResidualBlock, concat_elu
from utils.mixture import sample
from utils.model import ConditionalPixelCNN, ModelConfig

from ..widgets.activations import watch_cached
from . import Exercise, blank, difference, explained, no_number, some, wrong_shape
from .pieces import Piece
from .solutions import fast_sampling as solutions
from .stand_ins import Watch


class NaiveCost(Exercise):
    """FLOPs of a picture sampled by one whole forward pass for every pixel."""

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


class Work(Watch):
    """Counts the numbers that operations read; a view reads none."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, _types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        first = function._schema.arguments[0].alias_info if function._schema.arguments else None
        if first is None or first.is_write:
            self.numbers += sum(leaf.numel() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        return out


def work(function: Callable, *args) -> int:
    with Work() as counted:
        function(*args)
    return counted.numbers


def held(thing, seen: set[int] | None = None) -> int:
    """How many numbers an object keeps, in whatever it holds."""
    seen = set() if seen is None else seen
    if isinstance(thing, int | float):
        return 1
    if id(thing) in seen or isinstance(thing, type | types.ModuleType | str):
        return 0
    seen.add(id(thing))
    if isinstance(thing, Tensor | np.ndarray):
        return thing.numel() if isinstance(thing, Tensor) else thing.size
    parts = [*getattr(thing, "__dict__", {}).values()]
    parts += [cell.cell_contents for cell in getattr(thing, "__closure__", None) or ()]
    if isinstance(thing, dict):
        parts += thing.values()
    elif isinstance(thing, Iterable) and not isinstance(thing, nn.Module) and hasattr(thing, "__len__"):
        parts += list(thing)
    return sum(held(part, seen) for part in parts)


def named_flaw(value, expected: Tensor, flaws: dict[str, Tensor]) -> str | None:
    """As `explained`; what was kept in float32 meanwhile is right but for rounding."""
    problem = difference(value, expected)
    if problem and difference(value, expected, 1e-5) is None:
        return f"{problem[:-1]}: that is float32's rounding; keep all in {expected.dtype}, as the weights are."
    return explained(value, expected, flaws)


class Cache(Piece):
    """What is fed one position at a time, and must not compute again what it has computed."""

    def examine(self, attempt) -> tuple[int, str | None]:
        with torch.no_grad():
            return super().examine(attempt)


class CachedConv1d(Cache):
    """A causal convolution of a sequence, fed one position at a time."""

    hints = (
        "Of the k positions under the kernel one is new at each call. The other k - 1 have been there before: which of "
        "them must be kept for the next call, and what stands in their place before the first?",
        "Keep a tensor (B, C, k - 1), zeros at first: they are the padding. At each call join it with the new position "
        "along the last dimension, and `conv` gives one output for this window. Then keep all but the oldest position.",
        "__init__: keep conv, and self.last, zeros (batch, conv.in_channels, conv.kernel_size[0] - 1) made by "
        "conv.weight.new_zeros. __call__: window = torch.cat of self.last and x[:, :, None], dim=2; self.last becomes "
        "window[:, :, 1:]; return conv(window)[:, :, 0].",
    )
    answer = staticmethod(solutions.CachedConv1d)

    @staticmethod
    def whole(conv: nn.Conv1d, sequence: Tensor) -> Tensor:
        return conv(F.pad(sequence, (conv.kernel_size[0] - 1, 0)))

    def shapes(self, attempt) -> str | None:
        for batch, channels, out_channels, k in [(1, 1, 1, 3), (2, 3, 4, 2), (3, 2, 5, 4), (2, 3, 1, 1)]:
            cached = attempt(nn.Conv1d(channels, out_channels, k), batch)
            for t in range(k + 1):
                value = cached(torch.randn(batch, channels))
                if sentence := blank(value) or wrong_shape(value, (batch, out_channels)):
                    return f"B = {batch}, {channels} to {out_channels} channels, k = {k}, call {t}: {sentence}"
        return None

    def digits(self, attempt) -> str | None:
        conv = nn.Conv1d(1, 1, 3).double()
        conv.weight.copy_(torch.tensor([[[1.0, 10.0, 100.0]]]))
        conv.bias.zero_()  # type: ignore[union-attr]
        cached, sequence = attempt(conv, 1), torch.arange(1.0, 7.0).double()[None, None]
        for t in range(6):
            value, so_far = cached(sequence[:, :, t]), sequence[:, :, : t + 1]
            window = F.pad(so_far, (2, 0))[:, :, -3:]
            flaws = {
                "the kernel is the wrong way round; its last tap belongs to the newest position": window.flip(2),
                "the positions fed before are forgotten between two calls": window * torch.tensor([0.0, 0.0, 1.0]),
                "it is one call late": F.pad(so_far, (3, 0))[:, :, -4:-1],
                "the position that is two calls old is forgotten": window * torch.tensor([0.0, 1.0, 1.0]),
            }
            outputs = {why: conv(of)[:, :, 0] for why, of in flaws.items()}
            if sentence := named_flaw(value, conv(window)[:, :, 0], outputs):
                fed = [int(number) for number in so_far.flatten()]
                return f"weights [1, 10, 100], bias 0, fed {fed}: call {t}: {sentence}"
        return None

    def equal(self, attempt) -> str | None:
        for k in (1, 2, 4, some(5, 9)):
            channels, out_channels, batch, length = (some(2, 4) for _ in range(4))
            conv = nn.Conv1d(channels, out_channels, k).double()
            sequence = torch.randn(batch, channels, length + 2 * k, dtype=torch.float64)
            expected, cached = self.whole(conv, sequence), attempt(conv, batch)
            given = sequence.clone()
            got = torch.stack([cached(position) for position in given.unbind(dim=2)], dim=2)
            if not torch.equal(given, sequence):
                return "it writes into the positions that it is given: make new tensors instead."
            flaws = {"the bias is missing": F.conv1d(F.pad(sequence, (k - 1, 0)), conv.weight)}
            if sentence := named_flaw(got, expected, flaws):
                return f"B = {batch}, {channels} to {out_channels} channels, k = {k}: {sentence}"
        return None

    def apart(self, attempt) -> str | None:
        conv = nn.Conv1d(2, 3, 3).double()
        one, other = attempt(conv, 2), attempt(conv, 2)
        sequence = torch.randn(2, 2, 9, dtype=torch.float64)
        got = torch.stack([(one(x), other(-x))[0] for x in sequence.unbind(dim=2)], dim=2)
        if difference(got, self.whole(conv, sequence)):
            return "one object alone is right, but two objects disturb each other: keep the memory in self."
        return None

    def cheap(self, attempt) -> str | None:
        cached = attempt(nn.Conv1d(2, 3, 4), 1)
        for _ in range(8):
            cached(torch.randn(1, 2))
        few, least = held(cached), work(cached, torch.randn(1, 2))
        for _ in range(60):
            cached(torch.randn(1, 2))
        if held(cached) > few:
            told = f"it keeps {few} numbers after 8 calls and {held(cached)} after 69"
            return f"{told}: what the kernel has left must go."
        if work(cached, torch.randn(1, 2)) > least:
            return "a call works on more and more numbers, the more calls there were before it."
        return None

    steps = {
        "the shapes are right, with any kernel and batch": shapes,
        "with weights 1, 10 and 100 it adds up the right positions": digits,
        "it equals the convolution of the whole sequence in float64": equal,
        "two objects have a memory each": apart,
        "its memory and its work do not grow": cheap,
    }


def fed(cached, picture: Tensor, *us: Tensor):
    """What a cached layer or stack gives, fed pixel by pixel; (B, C, H, W) -> (B, C', H, W), or the first thing that is
    no tensor. Each row begins with the rows of `us`, if there are any."""
    rows = []
    for i in range(picture.shape[2]):
        cached.start_row(*([[u[:, :, i : i + 1] for u in us]] if us else []))
        pixels = [cached(j, picture[:, :, i, j]) for j in range(picture.shape[3])]
        if strange := [pixel for pixel in pixels if not isinstance(pixel, Tensor) or pixel.ndim != 2]:
            return strange[0]
        rows.append(torch.stack(pixels, dim=2))
    return torch.stack(rows, dim=2)


class Two:
    """Two caches that are fed in turn, the second with other pixels; it gives what the first does."""

    def __init__(self, one, other):
        self.one, self.other = one, other

    def start_row(self) -> None:
        self.one.start_row()
        self.other.start_row()

    def __call__(self, j: int, pixel: Tensor):
        out = self.one(j, pixel)
        self.other(j, -pixel)
        return out


def growth(make: Callable, begin: Callable, channels: int) -> str | None:
    """What grows that must not. make(width) -> the attempt; begin(cached, width) starts a row."""
    at_a_pixel = {}
    for width in (8, 32):
        cached, kept = make(width), []
        for _ in range(4):
            begin(cached, width)
            counted = [work(cached, j, torch.randn(1, channels)) for j in range(width)]
            kept.append((held(cached), max(counted)))
        if kept[3][0] > kept[1][0]:
            told = f"it keeps {kept[1][0]} numbers after two rows and {kept[3][0]} after four"
            return f"{told}: a convolution needs one row of its input, no more."
        if kept[3][1] > kept[1][1]:
            return "a call works on more and more numbers, row after row: it computes again what is final."
        at_a_pixel[width] = kept[3][1]
    if at_a_pixel[32] > at_a_pixel[8]:
        told = f"at a pixel it works on {at_a_pixel[8]} numbers in a row of 8, on {at_a_pixel[32]} in one of 32"
        return f"{told}: what concerns the whole row belongs in start_row."
    return None


class CachedConv2d(Cache):
    """A down-right-shifted 2x2 convolution, fed one pixel at a time."""

    kit = "utils.sampling.PixelConv"
    hints = (
        "Look at Figure 3. When pixel (i, j) is fed, two of the four taps lie in row i - 1. Must they wait for it?",
        "Keep one row of inputs with a column of zeros at its left: (B, C, W + 1). When start_row is called it holds "
        "row i - 1, all that the upper taps will read: take their share of the whole row at once, and keep that. Only "
        "then may pixels of row i overwrite it.",
        "__init__: upper, lower = layer.conv.weight.unbind(dim=2), each (C', C, 2), the bias, and self.row, zeros "
        "(batch, C, width + 1). start_row: self.known = F.conv1d(self.row, upper, bias), (B, C', W). __call__: write "
        "the pixel to self.row[:, :, j + 1]; the lower taps read self.row[:, :, j : j + 2]; their sum of products, "
        'torch.einsum("bct,oct->bo", taps, lower), and self.known[:, :, j] together are the output.',
    )
    answer = staticmethod(solutions.CachedConv2d)

    @staticmethod
    def layer(channels: int, out_channels: int) -> DownRightShiftedConv2d:
        return DownRightShiftedConv2d(channels, out_channels).double()

    @staticmethod
    def flaws(layer: DownRightShiftedConv2d, x: Tensor) -> dict[str, Tensor]:
        """What comes out if one thing is wrong."""
        weight, bias = layer.conv.weight, layer.conv.bias
        height, width = x.shape[2:]
        left, above = F.pad(x, (1, 0))[..., :width], F.pad(x, (0, 0, 1, 0))[:, :, :height]
        corner = F.pad(x, (1, 0, 1, 0))[:, :, :height, :width]
        before = F.pad(x.flatten(2), (1, 0))[..., :-1].view_as(x)  # in reading order
        far_before = F.pad(before, (0, 0, 1, 0))[:, :, :height]
        none = torch.zeros_like(x)

        def taps(*four: Tensor) -> Tensor:  # those of the upper row, then those of the lower
            terms = zip(weight.flatten(2).unbind(dim=2), four, strict=True)
            return sum(torch.einsum("oc,bchw->bohw", tap, of) for tap, of in terms) + bias[:, None, None]

        right = taps(corner, above, left, x)
        return {
            "the row above is forgotten when a row begins": taps(none, none, left, x),
            "the pixel at the left is forgotten": taps(corner, above, none, x),
            "left and right taps are swapped; the right ones belong to column j": taps(above, corner, x, left),
            "upper and lower taps are swapped; the lower ones belong to row i": taps(left, x, corner, above),
            "at the left edge it reads the last pixel of another row; there the padding, 0, belongs": taps(
                far_before, above, before, x
            ),
            "the upper taps read row i, because its pixels have overwritten row i - 1 by then": taps(left, x, left, x),
            "the upper left tap reads (i, j - 1), because that pixel has overwritten (i - 1, j - 1) by then": taps(
                left, above, left, x
            ),
            "the bias is missing": right - bias[:, None, None],
            "the bias is added twice, with the upper and with the lower taps": right + bias[:, None, None],
        }

    def shapes(self, attempt) -> str | None:
        for batch, channels, out_channels, width in [(1, 1, 1, 3), (2, 3, 4, 5), (3, 2, 1, 4)]:
            cached = attempt(self.layer(channels, out_channels), batch, width)
            for i in range(2):
                cached.start_row()
                for j in range(width):
                    value = cached(j, torch.randn(batch, channels, dtype=torch.float64))
                    if sentence := blank(value) or wrong_shape(value, (batch, out_channels)):
                        return f"B = {batch}, {channels} to {out_channels} channels, pixel ({i}, {j}): {sentence}"
        return None

    def digits(self, attempt) -> str | None:
        layer = self.layer(1, 1)
        layer.conv.weight = torch.ones(1, 1, 2, 2, dtype=torch.float64)
        nn.init.zeros_(layer.conv.bias)
        picture = (10.0 ** torch.arange(6, dtype=torch.float64)).view(1, 1, 2, 3)
        got = fed(attempt(layer, 1, 3), picture.clone())
        if sentence := named_flaw(got, layer(picture), self.flaws(layer, picture)):
            told = "weights 1, bias 0, and the picture [[1, 10, 100], [1000, 10000, 100000]]"
            return f"{told}, so that digits say which pixels an output adds up: {sentence}"
        return None

    def equal(self, attempt) -> str | None:
        for _ in range(4):
            channels, out_channels, height, width = (some(2, 5) for _ in range(4))
            batch, layer = some(1, 3), self.layer(channels, out_channels)
            for parameter in layer.parameters():
                nn.init.normal_(parameter)
            x = torch.randn(batch, channels, height, width, dtype=torch.float64)
            given = x.clone()
            got = fed(attempt(layer, batch, width), given)
            if not torch.equal(given, x):
                return "it writes into the pixels that it is given: make new tensors instead."
            if sentence := named_flaw(got, layer(x), self.flaws(layer, x)):
                return f"B = {batch}, {height}x{width} pixels, random weights: {sentence}"
        return None

    def apart(self, attempt) -> str | None:
        layer, x = self.layer(2, 3), torch.randn(1, 2, 3, 4, dtype=torch.float64)
        pair = Two(attempt(layer, 1, 4), attempt(layer, 1, 4))
        if difference(fed(pair, x), layer(x)):
            return "one object alone is right, but two objects disturb each other: keep the memory in self."
        return None

    def cheap(self, attempt) -> str | None:
        layer = DownRightShiftedConv2d(2, 2)
        return growth(lambda width: attempt(layer, 1, width), lambda cached, _: cached.start_row(), 2)

    steps = {
        "the shapes are right, in the first row and in the next": shapes,
        "with weights of 1 it adds up the right pixels": digits,
        "it equals the layer on whole pictures of any size in float64": equal,
        "two objects have a memory each": apart,
        "a pixel's work grows neither with the rows before it nor with the row's width": cheap,
    }


class CachedStack(Cache):
    """Gated blocks of the ul stream, one after another, fed one pixel at a time."""

    kit = "utils.sampling.PixelBlock"
    hints = (
        "Follow one pixel through Figure 4. Every convolution reads other activations than the next, so each needs a "
        "cache of its own. All else in a block looks at pixel (i, j) alone.",
        "Write down what block(h, u) does: c = conv_in(concat_elu(h)) + skip(concat_elu(u)); c = "
        "conv_out(concat_elu(c)); h + F.glu(c, dim=1). What u contributes is known for the whole row when it begins.",
        "__init__: a CachedConv2d for conv_in and one for conv_out of each block. start_row: keep "
        "block.skip(concat_elu(u)) of each block, (B, F, 1, W), and call start_row of all the caches. __call__: for "
        "each block in turn c = cache of conv_in(j, concat_elu(h)) + what u gives at column j; c = cache of "
        "conv_out(j, concat_elu(c)); h = h + F.glu(c, dim=1).",
    )
    answer = staticmethod(solutions.CachedStack)

    @staticmethod
    def blocks(number: int, nr_filters: int) -> list[GatedResidualBlock]:
        found = [GatedResidualBlock(DownRightShiftedConv2d, nr_filters, 1, 0.0).double() for _ in range(number)]
        for block in found:
            for parameter in block.parameters():
                nn.init.normal_(parameter)
        return found

    @staticmethod
    def plain(blocks, h: Tensor, us: list[Tensor], flaw: str = "") -> Tensor:
        """The blocks on the whole picture."""
        first = h
        for block, u in zip(blocks, us, strict=True):
            u = us[0] if flaw == "first u" else u
            parts = {"h": first if flaw == "first h" else h, "u": u}
            elu = {name: torch.cat([x, -x], dim=1) if flaw == f"elu {name}" else concat_elu(x)
                   for name, x in parts.items()}  # fmt: skip
            c = block.conv_in(elu["h"]) + (0 if flaw == "no u" else block.skip(elu["u"]))
            c = block.conv_out(torch.cat([c, -c], dim=1) if flaw == "elu c" else concat_elu(c))
            a, b = reversed(c.chunk(2, dim=1)) if flaw == "halves" else c.chunk(2, dim=1)
            gated = a * (b.tanh() if flaw == "tanh" else b.sigmoid())
            h = gated if flaw == "residual" else h + gated
        return h

    FLAWS = {
        "no u": "what u gives is missing",
        "first u": "every block has a row of its own in `us`, but here all of them read the first",
        "elu h": "h goes through concat_elu before conv_in",
        "elu u": "u goes through concat_elu before skip",
        "elu c": "c goes through concat_elu before conv_out",
        "halves": "the halves are swapped: the second one is the gate",
        "tanh": "the gate is the sigmoid",
        "residual": "a block adds to h",
        "first h": "a block reads what the block before it returned, not the stack's input",
    }

    def shapes(self, attempt) -> str | None:
        for batch, nr_filters, width, number in [(1, 1, 3, 2), (2, 3, 4, 2), (2, 2, 5, 1)]:
            cached = attempt(self.blocks(number, nr_filters), batch, width)
            for i in range(2):
                cached.start_row([torch.randn(batch, nr_filters, 1, width).double() for _ in range(number)])
                for j in range(width):
                    value = cached(j, torch.randn(batch, nr_filters).double())
                    if sentence := blank(value) or wrong_shape(value, (batch, nr_filters)):
                        return f"len(blocks) = {number}, B = {batch}, F = {nr_filters}, pixel ({i}, {j}): {sentence}"
        return None

    def by_hand(self, attempt) -> str | None:
        blocks = self.blocks(2, 1)
        for block in blocks:
            for name, parameter in block.named_parameters():
                if not name.endswith("original1"):  # the direction, which has to have a length
                    nn.init.zeros_(parameter)
            block.conv_out.conv.bias.copy_(torch.tensor([4.0, math.log(3)], dtype=torch.float64))
        x = torch.arange(6.0).double().view(1, 1, 2, 3)
        flaws = {sentence: self.plain(blocks, x, [x, x], flaw) for flaw, sentence in self.FLAWS.items()}
        if sentence := named_flaw(fed(attempt(blocks, 1, 3), x.clone(), x, x), x + 6, flaws):
            told = "two blocks, all weights and biases 0 but conv_out's biases, 4 and ln 3"
            return f"{told}: a block adds 4 * sigmoid(ln 3) = 3, so h + 6 is due: {sentence}"
        return None

    def of(self, attempt, numbers: tuple[int, ...]) -> str | None:
        for number in numbers:
            nr_filters, height, width, batch = some(2, 4), some(2, 5), some(2, 5), some(1, 3)
            blocks = self.blocks(number, nr_filters)
            h, *us = torch.randn(number + 1, batch, nr_filters, height, width, dtype=torch.float64)
            given = [each.clone() for each in (h, *us)]
            got = fed(attempt(blocks, batch, width), *given)
            if not all(map(torch.equal, given, (h, *us))):
                return "it writes into h or u, which the caller still needs: make new tensors instead."
            flaws = {sentence: self.plain(blocks, h, us, flaw) for flaw, sentence in self.FLAWS.items()}
            if sentence := named_flaw(got, self.plain(blocks, h, us), flaws):
                told = f"len(blocks) = {number}, B = {batch}, {height}x{width} pixels, F = {nr_filters}"
                return f"{told}: {sentence}"
        return None

    def one(self, attempt) -> str | None:
        return self.of(attempt, (1, 1))

    def several(self, attempt) -> str | None:
        return self.of(attempt, (2, 2, 3))

    def cheap(self, attempt) -> str | None:
        blocks = [GatedResidualBlock(DownRightShiftedConv2d, 2, 1, 0.0) for _ in range(2)]
        return growth(
            lambda width: attempt(blocks, 1, width),
            lambda cached, width: cached.start_row([torch.randn(1, 2, 1, width) for _ in blocks]),
            2,
        )

    steps = {
        "the shapes are right, in the first row and in the next": shapes,
        "with weights 0 each block adds what its biases say": by_hand,
        "one block equals the plain one on whole pictures in float64": one,
        "two and three blocks, each with a u of its own, equal the plain stack": several,
        "a pixel's work grows neither with the rows before it nor with the row's width": cheap,
    }


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
        by_hand = [(1, 3, [0]), (2, 3, [0, 1]), (6, 3, [0, 1]), (8, 3, [0, 1, 2]), (8, 4, [0, 1, 2, 3])]
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
                told = f"for a {size}x{size} picture, your answer is {count:g}"
                said = f"the sampler computes {expected} positions {told}"
                if count == 3 * size**2:
                    return f"{said}: the coarser scales have fewer positions."
                if count == size**2 + (size // 2) ** 2 * 2 or count == size**2 + size**2 // 2 + size**2 // 4:
                    return f"{said}: a scale has half the height and half the width of the finer one, a quarter of it."
                if count == size**2 * expected:
                    return f"{said}: that is the naive sampler; the cached one computes each position once."
                return f"{said}."
        return None


class TooManyPasses(Exception):
    pass


class Jacobi(Piece):
    """Iterates until nothing changes."""

    hints = (
        "Nothing but f is needed. When is x = f(x)? When f changes nothing any more.",
        "Append f of the newest picture to the list, as long as the last two are not the same in every number: "
        "torch.equal. Begin with the start alone in it.",
        "history = [start]; while True: append f(history[-1]); if torch.equal(history[-1], history[-2]), return "
        "history.",
    )
    answer = staticmethod(solutions.jacobi)

    @staticmethod
    def watched(attempt, f: Callable, start: Tensor) -> tuple[object, int, str | None]:
        """What it returns, how often it called f, and what is wrong with that."""
        calls = 0
        most = 3 * len(solutions.jacobi(f, start)) + 5

        def counted(x):
            nonlocal calls
            calls += 1
            if calls > most:
                raise TooManyPasses
            if not isinstance(x, Tensor) or x.shape != start.shape:
                raise TypeError(f"f takes whole pictures, {tuple(start.shape)}")
            return f(x)

        given = start.clone()
        try:
            got = attempt(counted, given)
        except TooManyPasses:
            return None, calls, f"after {most} passes it still goes on, though nothing changes any more."
        if not torch.equal(given, start):
            return got, calls, "it writes into `start`: leave it as it is."
        return got, calls, None

    def wrong(self, attempt, f: Callable, start: Tensor) -> str | None:
        got, calls, problem = self.watched(attempt, f, start)
        if problem := problem or blank(got):
            return problem
        if not isinstance(got, list | tuple) or not all(isinstance(each, Tensor) for each in got):
            kind = "a list of other things" if isinstance(got, list | tuple) else type(got).__name__
            return f"a list of pictures was expected, not {kind}."
        expected = solutions.jacobi(f, start)
        said = f"the list has {len(got)} pictures, but it should have {len(expected)}"
        if not got or not torch.equal(got[0], start):
            return f"{said}: it begins with `start` itself." if len(got) < len(expected) else "it begins with `start`."
        if len(got) == len(expected) - 1:
            return f"{said}: the pass that changes nothing counts too; none of the numbers may change in it."
        if len(got) < len(expected):
            return f"{said}: it stopped while something still changed. Compare all numbers, exactly."
        if len(got) > len(expected):
            return f"{said}: stop at the first pass that changes nothing."
        for n, (mine, true) in enumerate(zip(got, expected, strict=True)):
            if sentence := difference(mine, true, 0.0):
                return f"picture {n} of the list is not f of the one before: {sentence}"
        if calls != len(expected) - 1:
            return f"f was called {calls} times for {len(expected) - 1} passes: keep what each pass returned."
        return None

    def by_hand(self, attempt) -> str | None:
        def f(x):  # each pixel is one more than the one before it in reading order
            return F.pad(x.flatten(2), (1, 0))[..., :-1].view_as(x) + 1

        sentence = self.wrong(attempt, f, torch.zeros(1, 3, 2, 3))
        return sentence and f"f makes each pixel one more than the one before, start is 0, 2x3 pixels: {sentence}"

    def at_once(self, attempt) -> str | None:
        start = torch.randn(2, 3, 4, 4)
        sentence = self.wrong(attempt, lambda x: x.clone(), start)
        return sentence and f"f changes nothing, so one pass is enough: {sentence}"

    def exact(self, attempt) -> str | None:
        def slowly(x):  # one number of the last picture changes, a little at a time
            x = x.clone()
            x[-1, 2, -1, -1] = min(float(x[-1, 2, -1, -1]) + 1e-9, 5e-9)
            return x

        sentence = self.wrong(attempt, slowly, torch.zeros(3, 3, 8, 8, dtype=torch.float64))
        return sentence and f"three pictures; one number of the last one changes, by 1e-9 a pass: {sentence}"

    def places(self, attempt) -> str | None:
        sentence = self.wrong(
            attempt, lambda x: x.flatten().sort().values.view_as(x), torch.arange(12.0, 0, -1).view(1, 3, 2, 2)
        )
        return sentence and f"f sorts all numbers, so that no sum changes, but places do: {sentence}"

    def network(self, attempt) -> str | None:
        config = ModelConfig(2, nr_resnet=1, nr_filters=4, nr_logistic_mix=2, image_size=8)
        model, labels = ConditionalPixelCNN(config).eval().double(), torch.tensor([0, 1])
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
        noise, start = torch.rand(2, 5, 8, 8), torch.randn(2, 3, 8, 8, dtype=torch.float64)
        with torch.no_grad():
            return self.wrong(attempt, lambda x: sample(model(x, labels), noise=noise), start)

    steps = {
        "a chain of six pixels takes the passes that can be counted on paper": by_hand,
        "a start that is the solution already takes one pass": at_once,
        "it goes on while a single number changes, in any picture": exact,
        "it goes on while numbers change places": places,
        "with a small network and fixed noise it makes the passes of the solution": network,
    }


@torch.inference_mode()
def count_ul_positions(size: int) -> int:
    """How many positions of the ul stream the real sampler computes, one block a scale."""
    config = ModelConfig(1, nr_resnet=1, nr_filters=2, nr_logistic_mix=1, image_size=size)
    with torch.random.fork_rng(devices=[]), parametrize.cached():
        steps = watch_cached(ConditionalPixelCNN(config))
    return sum(int((step.counts["ul", scale] > 0).sum()) for step in steps for scale in range(3))


naive_cost, rows_that_change, count_cached_updates = NaiveCost(), RowsThatChange(), CountCachedUpdates()
cached_conv1d, cached_conv2d, cached_stack, jacobi = CachedConv1d(), CachedConv2d(), CachedStack(), Jacobi()
