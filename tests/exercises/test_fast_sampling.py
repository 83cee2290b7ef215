"""The exercises of notebook 07."""

import torch
from common import check_exercise

from kit.exercises import fast_sampling as exercises


def test_naive_cost():
    check_exercise(
        exercises.naive_cost,
        lambda size, flops: ...,
        {
            "does not cost what one over 32x32 does": lambda size, flops: size**2 * flops,
            "each a pass, not size": lambda size, flops: size * flops,
            "for naive_cost(32, 1000) 1000 came out, but it is 1024000.": lambda size, flops: flops,
        },
    )


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
        },
    )


def test_rows_that_change():
    check_exercise(
        exercises.rows_that_change,
        lambda i, nr_scales: ...,
        {
            "row 0 is the first of every scale": lambda i, n: [s for s in range(n) if i % 2**s == 0 and (i or not s)],
            "that 2**s divides": lambda i, n: [s for s in range(n) if s == 0 or i % (2 * s) == 0],
            "the finest scale, 0": lambda i, n: [s for s in range(1, n) if i % 2**s == 0],
            "the coarsest scale is 2": lambda i, n: [s for s in range(n + 1) if i % 2**s == 0],
        },
    )


def test_count_cached_updates():
    check_exercise(
        exercises.count_cached_updates,
        lambda size: ...,
        {
            "the coarser scales have fewer positions": lambda size: 3 * size**2,
            "half the height and half the width": lambda size: size**2 + size**2 // 2 + size**2 // 4,
            "that is the naive sampler": lambda size: size**2 * exercises.count_cached_updates.answer(size),
        },
    )
