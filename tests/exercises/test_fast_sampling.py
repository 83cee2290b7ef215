"""The exercises of notebook 07."""

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from common import check_exercise, in_a_cell, named, pasted, said

from kit.exercises import fast_sampling as exercises
from kit.exercises.pieces import take
from kit.exercises.solutions import fast_sampling as solutions
from utils.layers import concat_elu


def test_naive_cost():
    check_exercise(
        exercises.naive_cost,
        lambda size, flops: ...,
        {
            "does not cost what one over 32x32 does": lambda size, flops: size**2 * flops,
            "each a pass, not size": lambda size, flops: size * flops,
            "for naive_cost(32, 1000) 1000 came out, but it is 1024000.": lambda size, flops: flops,
            "for naive_cost(32, 7) 1.024e+06 came out": lambda size, flops: size**2 * 1000 * (size / 32) ** 2,
            "for naive_cost(48, 1000)": lambda size, flops: {48: 0}.get(size, size**4 // 1024 * flops),
            "for naive_cost(16, 1000) 0 came out": lambda size, flops: size**2 * flops * (size // 32) ** 2,
            " came out, but it is": lambda size, flops: {
                32: 1024 * flops,
                64: 16_384_000,
                16: 64_000,
                48: 5_184_000,
            }.get(size, 0),
            "a number was expected, not list": lambda size, flops: [size**4 * flops / 1024],
        },
    )
    for kind in (np.float64, torch.tensor, np.array, round):
        verdict = said(exercises.naive_cost.check, lambda size, flops, kind=kind: kind(size**4 * flops / 1024))
        assert verdict == "Right."


class ConvBlank:
    def __init__(self, conv, batch): ...

    def __call__(self, x): ...


def conv_that(window_of):
    """A `CachedConv1d` that makes of the last k + 1 positions the window under the kernel."""

    class Attempt:
        def __init__(self, conv, batch):
            self.conv, self.k = conv, conv.kernel_size[0]
            self.past = conv.weight.new_zeros(batch, conv.in_channels, self.k + 1)

        def __call__(self, x):
            self.past = torch.cat([self.past[:, :, 1:], x[:, :, None]], dim=2)
            return self.conv(window_of(self.past, self.k))[:, :, 0]

    return Attempt


class SharedMemory:
    memory: dict = {}

    def __init__(self, conv, batch):
        self.conv = conv
        self.memory[conv] = conv.weight.new_zeros(batch, conv.in_channels, conv.kernel_size[0])

    def __call__(self, x):
        self.memory[self.conv] = torch.cat([self.memory[self.conv][:, :, 1:], x[:, :, None]], dim=2)
        return self.conv(self.memory[self.conv])[:, :, 0]


def without_bias(conv, batch):
    cached = solutions.CachedConv1d(conv, batch)
    return lambda x: cached(x) - conv.bias


class EverythingKept:
    def __init__(self, conv, batch):
        self.conv, self.so_far = conv, []

    def __call__(self, x):
        self.so_far.append(x)
        return self.conv(F.pad(torch.stack(self.so_far, dim=2), (self.conv.kernel_size[0] - 1, 0)))[:, :, -1]


class HiddenAway(EverythingKept):
    """Keeps everything where a look into the object does not find it, but it computes all again."""

    places: dict = {}

    def __init__(self, conv, batch):
        self.conv = conv
        self.places[id(self)] = []

    so_far = property(lambda self: self.places[id(self)])


class LastOnes:
    """Right, by NumPy."""

    def __init__(self, conv, batch):
        self.conv, k = conv, conv.kernel_size[0]
        self.last = [np.zeros((batch, conv.in_channels)) for _ in range(k)]

    def __call__(self, x):
        self.last = [*self.last[1:], x.numpy()]
        return self.conv(torch.from_numpy(np.stack(self.last, axis=2)).to(x.dtype))[:, :, 0]


def zero_before(window, nr_kept):
    return F.pad(window[:, :, -nr_kept:], (window.shape[2] - nr_kept, 0)) if nr_kept < window.shape[2] else window


def in_single(conv, batch):
    cached = solutions.CachedConv1d(conv, batch)
    return lambda x: cached(x).float()


def in_place(conv, batch):
    cached = solutions.CachedConv1d(conv, batch)
    return lambda x: cached(x.mul_(1.001))


def test_cached_conv1d():
    check_exercise(
        exercises.cached_conv1d,
        ConvBlank,
        {
            "the kernel is the wrong way round": conv_that(lambda past, k: past[:, :, -k:].flip(2)),
            "forgotten between two calls": conv_that(lambda past, k: zero_before(past[:, :, -k:], 1)),
            "it is one call late": conv_that(lambda past, k: past[:, :, -k - 1 : -1]),
            "two calls old is forgotten": conv_that(lambda past, k: zero_before(past[:, :, -k:], min(k, 2))),
            "Not yet 3 of 5: B = ": conv_that(lambda past, k: zero_before(past[:, :, -k:], min(k, 3))),
            "two objects disturb each other": SharedMemory,
            "the bias is missing": without_bias,
            "what the kernel has left must go": EverythingKept,
            "a call works on more and more numbers": HiddenAway,
            "(1, 1)": lambda conv, batch: lambda x: conv(x[:, :, None].expand(-1, -1, conv.kernel_size[0])),
            "that is float32's rounding; keep all in torch.float64": in_single,
            "it writes into the positions": in_place,
            "call 0: nothing was returned": lambda conv, batch: lambda x: None,
        },
    )
    assert exercises.cached_conv1d.examine(named(LastOnes, "CachedConv1d")) == (5, None)


class Conv2dBlank:
    def __init__(self, layer, batch, width): ...

    def start_row(self): ...

    def __call__(self, j, pixel): ...


class Picture:
    """Computes pixel (i, j) from the whole picture so far, by a function of the layer, of it, and of i and j."""

    def __init__(self, layer, batch, width):
        self.layer, self.width, self.i = layer, width, -1
        self.x = layer.conv.weight.new_zeros(batch, layer.conv.in_channels, 0, width)

    def start_row(self):
        self.i, self.x = self.i + 1, F.pad(self.x, (0, 0, 0, 1))

    def __call__(self, j, pixel):
        self.x[:, :, self.i, j] = pixel
        return self.out(j)[:, :, self.i, j]

    def out(self, j):
        return self.layer(self.x)


def conv2d_that(change):
    """A `CachedConv2d` whose cache has a flaw: change(row above, current row) -> the two rows under the kernel."""

    class Attempt:
        def __init__(self, layer, batch, width):
            self.layer = layer
            self.above = layer.conv.weight.new_zeros(batch, layer.conv.in_channels, width)
            self.here = torch.zeros_like(self.above)

        def start_row(self):
            self.above, self.here = self.here, torch.zeros_like(self.above)

        def __call__(self, j, pixel):
            self.here[:, :, j] = pixel
            rows = torch.stack(change(self.above, self.here, j), dim=2)  # (B, C, 2, W)
            return self.layer.conv(F.pad(rows, (1, 0)))[:, :, 0, j]

    return Attempt


class OverwrittenFirst:
    """The upper taps are read at the pixel, when a part of the row has been overwritten."""

    def __init__(self, layer, batch, width, early=True):
        self.weight, self.bias, self.early = layer.conv.weight, layer.conv.bias, early
        self.row = self.weight.new_zeros(batch, layer.conv.in_channels, width + 1)

    def start_row(self):
        pass

    def __call__(self, j, pixel):
        upper = self.row[:, :, j : j + 2].clone()
        self.row[:, :, j + 1] = pixel
        upper = self.row[:, :, j : j + 2] if self.early else upper
        return F.conv2d(torch.stack([upper, self.row[:, :, j : j + 2]], dim=2), self.weight, self.bias)[:, :, 0, 0]


class WithoutPadding:
    """What lies left of column 0 is the pixel before it in reading order."""

    def __init__(self, layer, batch, width):
        self.weight, self.bias = layer.conv.weight, layer.conv.bias
        self.past = [self.weight.new_zeros(batch, layer.conv.in_channels) for _ in range(width + 2)]

    def start_row(self):
        pass

    def __call__(self, j, pixel):
        self.past = [*self.past[1:], pixel]
        four = torch.stack([self.past[n] for n in (0, 1, -2, -1)], dim=2).unflatten(2, (2, 2))
        return F.conv2d(four, self.weight, self.bias)[:, :, 0, 0]


class RightAndLazy:
    """All four taps are read at the pixel, from two rows that are kept."""

    def __init__(self, layer, batch, width):
        self.weight, self.bias = layer.conv.weight, layer.conv.bias
        self.above, self.here = self.weight.new_zeros(2, batch, layer.conv.in_channels, width + 1)

    def start_row(self):
        self.above, self.here = self.here, self.above
        self.here[:, :, 0] = 0

    def __call__(self, j, pixel):
        self.here[:, :, j + 1] = pixel
        rows = torch.stack([row[:, :, j : j + 2] for row in (self.above, self.here)], dim=2)
        return F.conv2d(rows, self.weight, self.bias)[:, :, 0, 0]


class OneMemory(RightAndLazy):
    rows: dict = {}

    def __init__(self, layer, batch, width):
        super().__init__(layer, batch, width)
        self.rows.setdefault(layer, (self.above, self.here))

    def start_row(self):
        self.above, self.here = self.rows[next(reversed(self.rows))]
        super().start_row()
        self.rows[next(reversed(self.rows))] = self.above, self.here


class RowAtAPixel(RightAndLazy):
    def __call__(self, j, pixel):
        self.here[:, :, j + 1] = pixel
        return F.conv2d(torch.stack([self.above, self.here], dim=2), self.weight, self.bias)[:, :, 0, j]


class Elsewhere(Picture):
    """Keeps the picture where a look into the object does not find it."""

    pictures: dict = {}
    x = property(lambda self: self.pictures[id(self)], lambda self, x: self.pictures.__setitem__(id(self), x))


def changed(change):
    """A right `CachedConv2d`, whose outputs, or whose given pixels, are changed."""

    class Attempt:
        def __init__(self, layer, batch, width):
            self.layer, self.cached = layer, solutions.CachedConv2d(layer, batch, width)

        def start_row(self):
            self.cached.start_row()

        def __call__(self, j, pixel):
            return change(self.layer, self.cached(j, pixel), pixel)

    return Attempt


def with_weights(change):
    def attempt(layer, batch, width):
        conv = SimpleNamespace(
            weight=change(layer.conv.weight), bias=layer.conv.bias, in_channels=layer.conv.in_channels
        )
        return solutions.CachedConv2d(SimpleNamespace(conv=conv), batch, width)

    return attempt


def overwritten_late(layer, batch, width):
    return OverwrittenFirst(layer, batch, width, early=False)


class SingleMemory:
    """What it keeps is in float32, what it is given in float64."""

    def __init__(self, layer, batch, width):
        self.cached = RightAndLazy(layer, batch, width)

    def start_row(self):
        self.cached.start_row()

    def __call__(self, j, pixel):
        return self.cached(j, pixel.float().double())


def left_forgotten(above, here, j):
    return above, torch.cat([torch.zeros_like(here[:, :, :j]), here[:, :, j:]], dim=2)


def test_cached_conv2d():
    check_exercise(
        exercises.cached_conv2d,
        Conv2dBlank,
        {
            "pixel (0, 0): nothing was returned": changed(lambda layer, out, pixel: None),
            "the shape is (1, 1, 1)": changed(lambda layer, out, pixel: out[:, :, None]),
            "the row above is forgotten when a row begins": conv2d_that(lambda above, here, j: (0 * above, here)),
            "the pixel at the left is forgotten": conv2d_that(left_forgotten),
            "at the left edge it reads the last pixel of another row": WithoutPadding,
            "the upper taps read row i": OverwrittenFirst,
            "the upper left tap reads (i, j - 1)": overwritten_late,
            "left and right taps are swapped": with_weights(lambda weight: weight.flip(3)),
            "upper and lower taps are swapped": with_weights(lambda weight: weight.flip(2)),
            "the bias is missing": changed(lambda layer, out, pixel: out - layer.conv.bias),
            "the bias is added twice": changed(lambda layer, out, pixel: out + layer.conv.bias),
            "that is float32's rounding": changed(lambda layer, out, pixel: out.float()),
            "float32's rounding; keep all": SingleMemory,
            "two objects disturb each other": OneMemory,
            "a convolution needs one row of its input": Picture,
            "row after row": Elsewhere,
            "what concerns the whole row belongs in start_row": RowAtAPixel,
            "it writes into the pixels": changed(lambda layer, out, pixel: (out, pixel.mul_(2))[0]),
        },
    )
    assert exercises.cached_conv2d.examine(named(RightAndLazy, "CachedConv2d")) == (5, None)


def test_the_kits_convolution_is_not_an_answer():
    source = """
from utils.sampling import PixelConv

class CachedConv2d:
    def __init__(self, layer, batch, width):
        self.conv = PixelConv(layer, batch, width)

    def start_row(self):
        self.conv.start_row()

    def __call__(self, j, pixel):
        self.conv.put(j, pixel)
        return self.conv.at(j)
"""
    verdict = said(exercises.cached_conv2d.check, in_a_cell(source)["CachedConv2d"])
    assert "utils.sampling.PixelConv is the kit's own" in verdict


class StackBlank:
    def __init__(self, blocks, batch, width): ...

    def start_row(self, us): ...

    def __call__(self, j, h): ...


def stack_that(out):
    """A `CachedStack`, right but for what it gives."""

    class Attempt:
        def __init__(self, blocks, batch, width):
            self.cached = solutions.CachedStack(blocks, batch, width)

        def start_row(self, rows):
            self.cached.start_row(rows)

        def __call__(self, j, pixel):
            return out(self.cached(j, pixel), pixel)

    return Attempt


def plain_with(flaw):
    """A stack with a flaw, from caches that are right."""

    def elu(x, name):
        return torch.cat([x, -x], dim=1) if flaw == name else concat_elu(x)

    class Attempt(solutions.CachedStack):
        def start_row(self, us):
            us = us[:1] * len(us) if flaw == "first u" else us
            self.from_u = [
                b.skip(elu(u, "elu u"))[:, :, 0] * (flaw != "no u") for b, u in zip(self.blocks, us, strict=True)
            ]
            for conv in [*self.convs_in, *self.convs_out]:
                conv.start_row()

        def __call__(self, j, h):
            first = h
            for conv_in, conv_out, from_u in zip(self.convs_in, self.convs_out, self.from_u, strict=True):
                c = conv_in(j, elu(first if flaw == "first h" else h, "elu h")) + from_u[:, :, j]
                a, b = conv_out(j, elu(c, "elu c")).chunk(2, dim=1)
                a, b = (b, a) if flaw == "halves" else (a, b)
                gated = a * (b.tanh() if flaw == "tanh" else b.sigmoid())
                h = gated if flaw == "residual" else h + gated
            return h

    return lambda blocks, batch, width: Attempt(blocks, batch, width)


def one_cache_for_both(blocks, batch, width):
    """The blocks share their caches."""
    cached = solutions.CachedStack(blocks, batch, width)
    cached.convs_in, cached.convs_out = cached.convs_in[:1] * len(blocks), cached.convs_out[:1] * len(blocks)
    return cached


def last_one_left_out(blocks, batch, width):
    """Knows stacks of two."""
    cached = solutions.CachedStack(blocks, batch, width)
    cached.convs_in = cached.convs_in[:2]
    cached.convs_out, cached.blocks = cached.convs_out[:2], cached.blocks[:2]
    start = cached.start_row
    cached.start_row = lambda us: start(us[:2])
    return cached


class StackAgain:
    """Keeps the picture and computes all of it at each pixel."""

    def __init__(self, blocks, batch, width):
        self.blocks, self.h, self.us = blocks, [], []

    def start_row(self, us):
        self.us.append(us)
        self.h.append([torch.zeros_like(us[0][:, :, 0, 0])] * us[0].shape[3])

    def __call__(self, j, h):
        self.h[-1] = [*self.h[-1][:j], h, *self.h[-1][j + 1 :]]
        picture = torch.stack([torch.stack(row, dim=2) for row in self.h], dim=2)
        for block, *u in zip(self.blocks, *self.us, strict=True):
            picture = block(picture, torch.cat(u, dim=2))
        return picture[:, :, -1, j]


class UAtAPixel:
    """What u gives is worked out for the whole row, at each pixel anew."""

    def __init__(self, blocks, batch, width):
        self.cached = solutions.CachedStack(blocks, batch, width)

    def start_row(self, us):
        self.us = us
        self.cached.start_row(us)

    def __call__(self, j, h):
        self.cached.from_u = [b.skip(concat_elu(u))[:, :, 0] for b, u in zip(self.cached.blocks, self.us, strict=True)]
        return self.cached(j, h)


def test_cached_stack():
    sentences = exercises.cached_stack.FLAWS
    wrong = {sentences[flaw]: plain_with(flaw) for flaw in sentences}
    wrong |= {
        "pixel (0, 0): nothing was returned": stack_that(lambda out, h: None),
        "so h + 6 is due": stack_that(lambda out, h: h),
        "the shape is": stack_that(lambda out, h: out.sum(dim=1)),
        "but it should be 6 (": stack_that(lambda out, h: out + 1e-6),
        "len(blocks) = 2": one_cache_for_both,
        "len(blocks) = 3": last_one_left_out,
        "a convolution needs one row of its input": StackAgain,
        "what concerns the whole row belongs in start_row": UAtAPixel,
        "it writes into h or u": stack_that(lambda out, h: (out, h.zero_())[0]),
    }
    check_exercise(
        exercises.cached_stack, StackBlank, wrong, {"CachedConv2d": solutions.CachedConv2d, "concat_elu": concat_elu}
    )


def test_a_stack_kept_in_a_file_works_with_the_convolution_it_uses(mine):
    said(exercises.cached_conv2d.check, pasted(exercises.cached_conv2d))
    given = {"CachedConv2d": take("CachedConv2d"), "concat_elu": concat_elu}
    said(exercises.cached_stack.check, pasted(exercises.cached_stack, given))
    assert "class CachedConv2d" in (mine / "CachedStack.py").read_text()
    assert take("CachedStack").__module__ == "mine.CachedStack"


def passes(until, first=1, last=True):
    """A `jacobi` that stops when until(newest, one before, number) says so."""

    def attempt(f, start):
        history, number = [start], 0
        while True:
            number += 1
            history.append(f(history[-1]))
            if until(history[-1], history[-2], number):
                break
        return history[1 - first : len(history) if last else -1]

    return attempt


def twice(f, start):
    """Asks f whether it is done, and again for the next."""
    history = [start]
    while not torch.equal(f(history[-1]), history[-1]):
        history.append(f(history[-1]))
    return [*history, history[-1]]


def in_the_same_memory(f, start):
    x, history = start.clone(), [start]
    while True:
        new = f(x)
        done = torch.equal(new, x)
        x.copy_(new)
        history.append(x)
        if done:
            return history


def into_the_start(f, start):
    history = solutions.jacobi(f, start)
    start.copy_(history[-1])
    return history


def test_jacobi():
    check_exercise(
        exercises.jacobi,
        lambda f, start: ...,
        {
            "still goes on": passes(lambda new, old, number: new is old),
            "it begins with `start` itself": passes(lambda new, old, _: torch.equal(new, old), first=0),
            "the pass that changes nothing counts too": passes(lambda new, old, _: torch.equal(new, old), last=False),
            "by 1e-9 a pass: the list has": passes(lambda new, old, _: torch.allclose(new, old)),
            "it stopped while something still changed": passes(lambda new, old, _: torch.equal(new[0], old[0])),
            "f changes nothing, so one pass is enough: the list has 3": passes(
                lambda new, old, number: torch.equal(new, old) and number > 1
            ),
            "it stopped while": passes(lambda new, old, number: number == 4),
            "start is 0, 2x3 pixels: the list has 25": passes(lambda new, old, number: number == 24),
            "keep what each pass returned": twice,
            "no sum changes, but places do: the list has 2": passes(lambda new, old, _: (new - old).sum() == 0),
            "is not f of the one before": in_the_same_memory,
            "it writes into `start`": into_the_start,
            "a list of pictures was expected, not Tensor": lambda f, start: solutions.jacobi(f, start)[-1],
            "not a list of other things": lambda f, start: [solutions.jacobi(f, start)],
            "f takes whole pictures": lambda f, start: f(start[:, 0]),
        },
    )


def right_scales(i, nr_scales):
    return [scale for scale in range(nr_scales) if i % 2**scale == 0]


def test_rows_that_change():
    check_exercise(
        exercises.rows_that_change,
        lambda i, nr_scales: ...,
        {
            "row 0 is the first of every scale": lambda i, n: [s for s in range(n) if i % 2**s == 0 and (i or not s)],
            "that 2**s divides": lambda i, n: [s for s in range(n) if s == 0 or i % (2 * s) == 0],
            "the finest scale, 0": lambda i, n: [s for s in range(1, n) if i % 2**s == 0],
            "the coarsest scale is 2": lambda i, n: [s for s in range(n + 1) if i % 2**s == 0],
            "when row 8 begins, with 4 scales": lambda i, n: [s for s in range(3) if i % 2**s == 0],
            "with 6 scales, your answer is [0, 1, 2, 3]": lambda i, n: (
                [s for s in range(n) if i % 2**s == 0][:4] if not i else right_scales(i, n)
            ),
            "not of True": lambda i, n: [i % 2**s == 0 for s in range(n)],
            "a list of the scales' numbers was expected": lambda i, n: np.array([i % 2**s == 0 for s in range(n)]),
            "the scales' numbers": lambda i, n: i % 2 ** torch.arange(n) == 0,
            "not int": lambda i, n: 1,
            "a list of whole numbers was expected, not ['0']": lambda i, n: ["0"] if i == 1 else right_scales(i, n),
        },
    )
    for kind in (np.array, torch.tensor, set, tuple):
        assert said(exercises.rows_that_change.check, lambda i, n, kind=kind: kind(right_scales(i, n))) == "Right."


def test_count_cached_updates():
    check_exercise(
        exercises.count_cached_updates,
        lambda size: ...,
        {
            "the coarser scales have fewer positions": lambda size: 3 * size**2,
            "half the height and half the width": lambda size: size**2 + size**2 // 2 + size**2 // 4,
            "that is the naive sampler": lambda size: size**2 * exercises.count_cached_updates.answer(size),
            "your answer is 0": lambda size: {4: 21, 8: 84, 12: 189}.get(size, 0),
            "for a 8x8 picture, your answer is 21": lambda size: 21,
            "a number was expected, not list": lambda size: [size**2, size**2 // 4, size**2 // 16],
            "for a 4x4 picture, your answer is 20": lambda size: size**2 + size**2 // 4,
        },
    )
    for kind in (np.int64, torch.tensor, float):
        verdict = said(exercises.count_cached_updates.check, lambda size, kind=kind: kind(21 * size**2 // 16))
        assert verdict == "Right."
    assert exercises.count_ul_positions(16) == exercises.count_cached_updates.answer(16)
