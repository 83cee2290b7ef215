"""The exercises of notebook 02."""

import math

import torch
import torch.nn.functional as F
from common import check_exercise

from kit.exercises import mixture_of_logistics as exercises


def difference(lower_edge, upper_edge):
    """`range_mass` with other edges."""

    def attempt(low, high, mean, scale):
        x = torch.tensor([upper_edge(high), lower_edge(low)], dtype=torch.float64)
        cdf = torch.sigmoid((x - mean) / scale)
        return cdf[0] - cdf[1]

    return attempt


def level(v):
    return v / 127.5 - 1


def closed_at(end):
    """Only one end is left closed."""
    return difference(
        lambda v: -math.inf if v == 0 and end != 0 else level(v - 0.5),
        lambda v: math.inf if v == 255 and end != 255 else level(v + 0.5),
    )


def test_range_mass():
    check_exercise(
        exercises.range_mass,
        lambda low, high, mean, scale: ...,
        {
            "half a step beyond its level on either side": difference(level, level),
            "1/255, not a whole one": difference(lambda v: level(v - 1), lambda v: level(v + 1)),
            "bin 0 has no lower end": closed_at(0),
            "bin 255 has no upper end": closed_at(255),
            "not its logarithm": lambda low, high, mean, scale: exercises.range_mass.answer(
                low, high, mean, math.exp(scale)
            ),
        },
    )


def white_by_difference(mean, log_scale):
    return torch.log(1 - torch.sigmoid((254 / 255 - mean) / log_scale.exp()))


def white_as_closed_bin(mean, log_scale):
    upper, lower = ((edge - mean) / log_scale.exp() for edge in (256 / 255, 254 / 255))
    return torch.log(torch.sigmoid(upper) - torch.sigmoid(lower))


def test_log_mass_of_white():
    answer = exercises.log_mass_of_white.answer
    check_exercise(
        exercises.log_mass_of_white,
        lambda mean, log_scale: ...,
        {
            "the digits are lost": white_by_difference,
            "take F.logsigmoid": lambda mean, log_scale: white_by_difference(mean, log_scale).clamp(min=-27.6),
            "that is the mass, not its logarithm": lambda mean, log_scale: answer(mean, log_scale).exp(),
            "its level 1 minus half a step": lambda mean, log_scale: F.logsigmoid((mean - 1) / log_scale.exp()),
            "bin 255 has no upper end": white_as_closed_bin,
            "all that lies below the bin": lambda mean, log_scale: F.logsigmoid((254 / 255 - mean) / log_scale.exp()),
            "the scale is exp(log_scale)": lambda mean, log_scale: F.logsigmoid((mean - 254 / 255) / log_scale),
            "no gradient reaches the mean": lambda mean, log_scale: answer(mean, log_scale).detach(),
            "the shape is ()": lambda mean, log_scale: answer(mean, log_scale).sum(),
        },
    )


def test_mean_of_blue():
    answer, tanh = exercises.mean_of_blue.answer, math.tanh
    check_exercise(
        exercises.mean_of_blue,
        lambda mean, raw, red, green: ...,
        {
            "go through tanh first": lambda m, c, r, g: m + c[1] * level(r) + c[2] * level(g),
            "to the scale from -1 to 1 first": lambda m, c, r, g: m + tanh(c[1]) * r + tanh(c[2]) * g,
            "blue has the other two": lambda m, c, r, g: answer(m, (0, c[0], c[1]), r, g),
            "the second coefficient belongs to red": lambda m, c, r, g: answer(m, (0, c[2], c[1]), r, g),
            "that is how green's mean is made": lambda m, c, r, g: answer(m, (0, c[0], 0), r, g),
            "green counts too": lambda m, c, r, g: answer(m, (0, c[1], 0), r, g),
        },
    )


def test_file_size():
    check_exercise(
        exercises.file_size,
        lambda bits, size: ...,
        {
            "a pixel has three colour values.": lambda bits, size: bits * size**2 / 8,
            "that is the number of bits": lambda bits, size: bits * 3 * size**2,
            "and a byte 8 bits": lambda bits, size: bits * size**2,
            "image_size * image_size pixels": lambda bits, size: bits * 3 * size / 8,
            "not nats": lambda bits, size: bits * 3 * size**2 * math.log(2) / 8,
        },
    )
