"""A row of pixels by one loop, compiled by Numba: for a few pictures on a CPU.

For a pixel `utils.sampling` starts some 80 of PyTorch's operations, and for one picture starting them takes longer than
they do. This is the same walk, `CachedNetwork.params`, `mixture.sample` and `put` for pixel after pixel, with nothing
to start. `compiled.py` makes its arrays and begins its rows.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy import ndarray

from utils.mixture import MAX_LOG_SCALE, MIN_LOG_SCALE

ONE = np.float32(1)  # an integer would make it float64
REORDERED = {"contract", "reassoc", "nsz", "arcp", "afn"}  # sums may be taken in another order; NaN stays NaN


class Loop(NamedTuple):
    """What a loop reads and writes: float32, channels last. N blocks in the order of the walk, S scales, B pictures."""

    in_rows: ndarray  # (N, B, W + 1, 2F): what the blocks' first convolutions read, a column of padding first
    in_known: ndarray  # (N, B, W, F): what of their output is known when the row begins
    in_lower: ndarray  # (N, 4F, F): weights of the lower two taps
    out_rows: ndarray  # the same of their second convolutions
    out_known: ndarray  # (N, B, W, 2F)
    out_lower: ndarray  # (N, 4F, 2F)
    gains: ndarray  # (N, B, 2F)
    from_ul: ndarray  # (M, 2F, F): weights of the skip, of the M blocks on the way up
    down_rows: ndarray  # (S - 1, B, W + 1, F)
    down_known: ndarray  # (S - 1, B, W, F)
    down_lower: ndarray  # (S - 1, 2F, F)
    ul_up: ndarray  # (S - 1, B, 2, W, F): what the coarser scale last sent up
    up_weights: ndarray  # (S - 1, F, 4F)
    up_biases: ndarray  # (S - 1, F)
    ul0: ndarray  # (B, W, F)
    here: ndarray  # (4, F)
    middle: ndarray  # (B, F)
    head: ndarray  # (F, 10K)
    head_bias: ndarray  # (B, 10K)
    row: ndarray  # (B, W, 4): the colours put so far, and ones
    early: ndarray  # (B, W, 3): what the class adds to them
    noise: ndarray  # (W, B, K + 3), as of `mixture.uniform_noise`
    pixels: ndarray  # (B, W, 3): the picture's row


@njit(fastmath=REORDERED)
def add_product(out, x, weight):
    """out (n,) += x (m,) @ weight (m, n), four inputs at a time: out is read and written less often."""
    fours = len(x) // 4 * 4
    for c in range(0, fours, 4):
        x0, x1, x2, x3 = x[c], x[c + 1], x[c + 2], x[c + 3]
        for o in range(len(out)):
            out[o] += x0 * weight[c, o] + x1 * weight[c + 1, o] + x2 * weight[c + 2, o] + x3 * weight[c + 3, o]
    for c in range(fours, len(x)):
        for o in range(len(out)):
            out[o] += x[c] * weight[c, o]


@njit(fastmath=REORDERED)
def put_concat_elu(x, place):
    for c, value in enumerate(x):
        below = np.exp(-abs(value)) - ONE  # the ELU of the one of x and -x that is negative
        place[c], place[len(x) + c] = (value, below) if value > 0 else (below, -value)


@njit(fastmath=REORDERED)
def put(x, place):
    for o in range(len(x)):
        place[o] = x[o]


@njit(fastmath=REORDERED)
def pass_block(loop, k, b, j, h, skip, c, gates):
    """`PixelBlock.__call__` of block k: h (F,) becomes the output. skip: (2F,), empty on the way down; c: (F,) and
    gates: (2F,), to be used."""
    nr_filters = len(h)
    put_concat_elu(h, loop.in_rows[k, b, j + 1])
    put(loop.in_known[k, b, j], c)
    add_product(c, loop.in_rows[k, b, j : j + 2].reshape(4 * nr_filters), loop.in_lower[k])
    if len(skip):
        add_product(c, skip, loop.from_ul[k + len(loop.from_ul) - len(loop.in_rows)])
    put_concat_elu(c, loop.out_rows[k, b, j + 1])
    for o in range(2 * nr_filters):
        gates[o] = 0
    add_product(gates, loop.out_rows[k, b, j : j + 2].reshape(4 * nr_filters), loop.out_lower[k])
    for o in range(2 * nr_filters):
        gates[o] = loop.out_known[k, b, j, o] + loop.gains[k, b, o] * gates[o]
    for o in range(nr_filters):
        h[o] += gates[o] / (ONE + np.exp(-gates[nr_filters + o]))


@njit(fastmath=False)  # else it takes its caller's: a drawn value is a level to the last bit
def draw(params, noise, temperature, pixel):
    """`mixture.sample` of a pixel: params (10K,), noise (K + 3,) -> pixel (3,)."""
    k = len(params) // 10
    component, largest = 0, -np.float32(np.inf)
    for nr in range(k):
        uniform = min(max(noise[nr], np.float32(1e-5)), np.float32(1 - 1e-5))
        logit = params[nr] - temperature * np.log(-np.log(uniform))
        if logit > largest:
            component, largest = nr, logit
    red = green = np.float32(0)  # counted in bins, from the middle
    for colour in range(3):
        uniform = min(max(noise[k + colour], np.float32(1e-5)), np.float32(1 - 1e-5))
        logistic = np.log(uniform / (ONE - uniform))
        mean = k + 3 * k * colour + component
        scale = np.exp(min(max(params[mean + k], np.float32(MIN_LOG_SCALE)), np.float32(MAX_LOG_SCALE)))
        bins = np.float32(127.5) * (params[mean] + temperature * scale * logistic)
        if colour == 1:
            bins += np.tanh(params[mean - k]) * red
        elif colour == 2:
            bins += np.tanh(params[mean - k]) * red + np.tanh(params[mean + 2 * k]) * green
        bins = min(max(np.floor(bins) + np.float32(0.5), np.float32(-127.5)), np.float32(127.5))
        if colour == 0:
            red = bins
        else:
            green = bins
        pixel[colour] = (bins + np.float32(127.5)) / np.float32(127.5) - ONE


@njit(nogil=True, fastmath=REORDERED)
def draw_row(loop, i, nr_resnet, temperature, is_known):
    """Draws row i into `loop.pixels`, or only reads it there if it is known."""
    nr_pictures, width, nr_filters = loop.ul0.shape
    coarsest = len(loop.ul_up)
    h, c = np.empty(nr_filters, np.float32), np.empty(nr_filters, np.float32)
    gates, four = np.empty(2 * nr_filters, np.float32), np.empty(4 * nr_filters, np.float32)
    params = np.empty(loop.head.shape[1], np.float32)
    ends = np.empty((coarsest, 2 * nr_filters), np.float32)  # of the scales on the way down, concat_elu'd
    for j in range(width):
        for b in range(nr_pictures):
            put(loop.ul0[b, j], h)
            if j > 0:
                add_product(h, loop.row[b, j - 1], loop.here)
            reached = 0
            for s in range(coarsest + 1):
                x = j >> s
                if s > 0:
                    put(h, loop.down_rows[s - 1, b, (j >> (s - 1)) + 1])
                    if (i >> (s - 1)) % 2 or (j >> (s - 1)) % 2:
                        break
                    put(loop.down_known[s - 1, b, x], h)
                    taps = loop.down_rows[s - 1, b, 2 * x : 2 * x + 2].reshape(2 * nr_filters)
                    add_product(h, taps, loop.down_lower[s - 1])
                reached = s
                for k in range(s * nr_resnet, (s + 1) * nr_resnet):
                    pass_block(loop, k, b, x, h, gates[:0], c, gates)
                if s < coarsest:
                    put_concat_elu(h, ends[s])

            for s in range(reached, -1, -1):
                x = j >> s
                # on the way up the coarsest scale has nr_resnet blocks, the others one more each
                k = (coarsest + 1) * nr_resnet + (coarsest - s) * (nr_resnet + 1) - (s < coarsest)
                if s == coarsest:
                    for o in range(nr_filters):
                        h[o] += loop.middle[b, o]
                else:
                    put(loop.ul_up[s, b, (i >> s) % 2, x], h)
                    pass_block(loop, k, b, x, h, ends[s], c, gates)
                    k += 1
                for nr in range(nr_resnet):
                    read = loop.in_rows[(s + 1) * nr_resnet - 1 - nr, b, x + 1]
                    pass_block(loop, k + nr, b, x, h, read, c, gates)
                if s > 0:
                    for tap in range(4):
                        put(loop.up_biases[s - 1], four[tap * nr_filters : (tap + 1) * nr_filters])
                    add_product(four, h, loop.up_weights[s - 1])
                    for y in range(2):
                        up = loop.ul_up[s - 1, b, y, 2 * x : 2 * x + 2].reshape(2 * nr_filters)
                        put(four[2 * y * nr_filters : 2 * (y + 1) * nr_filters], up)

            if not is_known:
                for o in range(nr_filters):
                    h[o] = h[o] if h[o] > 0 else np.exp(h[o]) - ONE
                put(loop.head_bias[b], params)
                add_product(params, h, loop.head)
                draw(params, loop.noise[j, b], temperature, loop.pixels[b, j])
            for colour in range(3):
                loop.row[b, j, colour] = loop.pixels[b, j, colour] + loop.early[b, j, colour]
