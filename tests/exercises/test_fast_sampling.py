"""The exercises of notebook 07."""

from collections.abc import Callable

import numpy as np
import torch
from common import check_exercise, said

from kit.exercises import fast_sampling as exercises


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


def kernel_reversed(weight):
    return exercises.cached_conv1d.answer(weight.flip(0))


def forgetful(weight):
    return lambda value: weight[-1] * value


shared = []


def one_memory_for_all(weight):
    shared[:] = [torch.zeros(())] * len(weight)

    def feed(value):
        shared.append(value)
        return sum(w * v for w, v in zip(weight, shared[-len(weight) :], strict=True))

    return feed


def one_call_late(weight):
    feed, before = exercises.cached_conv1d.answer(weight), [torch.zeros(())]

    def late(value):
        before.append(feed(value))
        return before[-2]

    return late


def of_three_values(weight):
    """Keeps three values, however long the kernel is."""
    last = torch.zeros(3)

    def feed(value):
        nonlocal last
        last = torch.cat([last[1:], value.view(1)])
        return (last[-len(weight) :] * weight[-3:]).sum() if len(weight) <= 3 else (last * weight[-3:]).sum()

    return feed


def of_six_calls(weight):
    """Knows six values by heart."""
    feed, calls = exercises.cached_conv1d.answer(weight), []

    def feed_six(value):
        calls.append(value)
        return feed(value) if len(calls) <= 6 else torch.zeros(())

    return feed_six


def test_cached_conv1d():
    check_exercise(
        exercises.cached_conv1d,
        lambda weight: ...,
        {
            "the kernel is the wrong way round": kernel_reversed,
            "forgotten between two calls": forgetful,
            "disturb each other's memory": one_memory_for_all,
            "call 0 gave 0, not 100": one_call_late,
            "a function was expected": lambda weight: weight.sum(),
            "nothing was returned": lambda weight: lambda value: None,
            "call 0: a number was expected, not Tensor": lambda weight: lambda value: value * weight,
            "weight [0.5, -1.0, 0.0, 3.0], fed [1.0, 2.0, 3.0, 4.0]": of_three_values,
            "call 6 gave 0": of_six_calls,
        },
        given={"Callable": Callable},
    )

    def with_numpy(weight):
        last = np.zeros(len(weight))

        def feed(value):
            last[:] = [*last[1:], float(value)]
            return last @ weight.numpy()

        return feed

    assert said(exercises.cached_conv1d.check, with_numpy) == "Right."


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
