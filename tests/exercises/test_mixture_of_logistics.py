"""The exercises of notebook 02."""

import math

import pytest
import torch
import torch.nn.functional as F
from common import check_exercise, in_a_cell, pasted, said

from kit.exercises import mixture_of_logistics as exercises
from kit.exercises.solutions import mixture_of_logistics as solutions
from utils import mixture
from utils.mixture import to_levels, unpack

GIVEN = {"unpack": unpack, "to_levels": to_levels, "bin_log_mass": solutions.bin_log_mass, "math": math}


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
    answer = exercises.range_mass.answer
    wrong = {
        "half a step beyond its level on either side": difference(level, level),
        "1/255, not a whole one": difference(lambda v: level(v - 1), lambda v: level(v + 1)),
        "range_mass(0, 127, 0.0, 0.3)": closed_at(0),
        "bin 0 has no lower end, and bin 255 no upper end": closed_at(255),
        "not its logarithm": lambda low, high, mean, scale: answer(low, high, mean, math.exp(scale)),
        "a number was expected, not list": lambda *args: [answer(*args)],
    }
    check_exercise(exercises.range_mass, lambda low, high, mean, scale: ..., wrong)
    assert exercises.range_mass.verdict(lambda *args: torch.tensor(answer(*args))) == "Right."


def naive(half=1 / 255, floor=0.0, scale=torch.exp, open_ends=True):
    """The log mass as a difference of two sigmoids."""

    def attempt(x, mean, log_scale):
        upper = torch.where((x > 0.999) & torch.tensor(open_ends), 1e9, x + half)
        lower = torch.where((x < -0.999) & torch.tensor(open_ends), -1e9, x - half)
        cdf = [torch.sigmoid((edge - mean) / scale(log_scale)) for edge in (upper, lower)]
        return (cdf[0] - cdf[1]).clamp(min=floor).log()

    return attempt


def product_where_infinity_meets_zero(x, mean, log_scale):
    a = (torch.where(x > 0.999, math.inf, x + 1 / 255) - mean) * torch.exp(-log_scale)
    b = (mean - torch.where(x < -0.999, -math.inf, x - 1 / 255)) * torch.exp(-log_scale)
    return F.logsigmoid(a) + F.logsigmoid(b) + torch.log(-torch.expm1(-a - b))


def logsigmoid_only(x, mean, log_scale):
    a, b = ((sign * (x - mean) + 1 / 255) / log_scale.exp() for sign in (1, -1))
    return F.logsigmoid(a) + F.logsigmoid(b)


def with_branch(x, mean, log_scale):
    """The original code's: the density where the mass is small; no edge is lost, but it is only nearly right."""
    z, mass = (x - mean) / log_scale.exp(), naive(floor=1e-30)(x, mean, log_scale)
    return torch.where(mass > math.log(1e-5), mass, math.log(2 / 255) + z - log_scale - 2 * F.softplus(z))


def without_expm1(x, mean, log_scale):
    a, b = ((sign * (x - mean) + 1 / 255) / log_scale.exp() for sign in (1, -1))
    inner = F.logsigmoid(a) + F.logsigmoid(b) + torch.log(1 - torch.exp(-2 / 255 / log_scale.exp()))
    return torch.where(x == 1, F.logsigmoid(b), torch.where(x == -1, F.logsigmoid(a), inner))


def closed_in_the_third_factor(x, mean, log_scale):
    value, t = solutions.bin_log_mass(x, mean, log_scale), 2 / 255 / log_scale.exp()
    return value + torch.where(x.abs() == 1, torch.log(-torch.expm1(-t)), 0.0)


def a_wide_logistic_is_off(x, mean, log_scale):
    value = solutions.bin_log_mass(x, mean, log_scale)
    return value + 1e-6 * (log_scale > 1)


def test_bin_log_mass():
    answer = exercises.bin_log_mass.answer
    wrong = {
        "far above the mean": naive(),
        "however far the mean, this comes out": naive(floor=1e-12),
        "a bin reaches 1/255 to either side of its level": naive(half=0.0, floor=1e-12),
        "half a step, not 2/255": naive(half=2 / 255),
        "the scale is exp(log_scale), not log_scale": naive(scale=lambda log_scale: log_scale),
        "do not multiply by it": lambda x, mean, s: answer(x, mean, -s),
        "byte 0, mean -0.9": naive(open_ends=False),
        "the third factor of the product is missing": logsigmoid_only,
        "that is the mass, not its logarithm": lambda *args: answer(*args).exp(),
        "nats are to base e": lambda *args: answer(*args) / math.log(2),
        "infinity times a gradient of 0 is NaN": product_where_infinity_meets_zero,
        "no gradient arrives": lambda *args: answer(*args).detach(),
        "far above the mean (level 1.000, mean -3.0, log_scale -7.0), -inf": lambda *args: answer(*args).exp().log(),
        "in float32, a wide logistic": without_expm1,
        "the density times the width": with_branch,
        "the factor 1 - exp(-t) is 1": closed_in_the_third_factor,
        "not to 1": a_wide_logistic_is_off,
        "x (5,), mean (5,), log_scale (5,): the shape is ()": lambda *args: answer(*args).sum(),
        "only bins 0 and 255 are open": lambda x, *rest: answer(torch.where(x.abs() > 0.99, x.sign(), x), *rest),
    }
    check_exercise(exercises.bin_log_mass, lambda x, mean, log_scale: ..., wrong, GIVEN)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_log_mass_that_is_exact_on_one_side_only_is_found_out(sign):
    def one_sided(x, mean, log_scale):
        exact = (x - mean) * sign <= 0.05
        return torch.where(exact, solutions.bin_log_mass(x, mean, log_scale), naive(floor=1e-12)(x, mean, log_scale))

    one_sided.__name__ = "bin_log_mass"
    assert f"far {'above' if sign > 0 else 'below'} the mean" in said(exercises.bin_log_mass.check, one_sided)


def test_another_way_to_an_exact_log_mass_is_right_too():
    source = """
def bin_log_mass(x, mean, log_scale):
    upper, lower = ((x - mean + edge) * torch.exp(-log_scale) for edge in (1 / 255, -1 / 255))
    t = 2 / 255 * torch.exp(-log_scale)
    inner = torch.log(torch.tanh(t / 2)) - F.logsigmoid(t) - F.softplus(-upper) - F.softplus(lower)
    return torch.where(x == 1, -F.softplus(lower), torch.where(x == -1, -F.softplus(-upper), inner))
"""
    attempt = in_a_cell(source, {"torch": torch, "F": F})["bin_log_mass"]
    assert "Right. Kept as" in said(exercises.bin_log_mass.check, attempt)


def terms(params, x):
    """A list of K (B, H, W), by a loop over components."""
    logits, *rest = unpack(params)
    k, rest = logits.shape[1], torch.stack(rest, dim=2).unbind(dim=3)  # K of (B, 3, 3, H, W)
    ones = [torch.cat([logits[:, n : n + 1], rest[n].flatten(1, 2)], dim=1) for n in range(k)]
    values = [exercises.Flawed(one, "tanh").log_prob(x) for one in ones]  # tanh is applied already
    return [value + logits.log_softmax(dim=1)[:, n] for n, value in enumerate(values)]


def loop_over_components(params, x, reduce=True):
    value = torch.stack(terms(params, x)).logsumexp(dim=0)
    return value.sum(dim=(1, 2)) if reduce else value


def loop_over_pixels(params, x, reduce=True):
    rows, columns = range(x.shape[2]), range(x.shape[3])
    pixels = [[(slice(None), slice(None), slice(i, i + 1), slice(j, j + 1)) for j in columns] for i in rows]
    value = torch.stack([torch.stack([solutions.log_prob(params[p], x[p]) for p in row], dim=1) for row in pixels], 1)
    return value.sum(dim=(1, 2)) if reduce else value


def components_of_the_whole_picture(params, x, reduce=True):
    if reduce:
        return torch.stack([term.sum(dim=(1, 2)) for term in terms(params, x)]).logsumexp(dim=0)
    return solutions.log_prob(params, x, reduce=False)


def flawed_log_prob(flaw):
    def attempt(params, x, reduce=True):
        value = exercises.Flawed(params, flaw).log_prob(x)
        return value.sum(dim=(1, 2)) if reduce else value

    return attempt


def changed(change):
    return lambda params, x, reduce=True: change(solutions.log_prob(params, x, reduce))


def written_in_place(params, x, reduce=True):
    with torch.no_grad():
        _, means, _, coeffs = unpack(params)
        means[:, 1] += coeffs[:, 0] * x[:, None, 0]
    return solutions.log_prob(params, x, reduce)


def masses_added(params, x, reduce=True):
    logits, means, log_scales, _ = unpack(params)
    value = solutions.bin_log_mass(x[:, :, None], means, log_scales).logsumexp(dim=1) + logits.log_softmax(dim=1)
    value = value.logsumexp(dim=1)
    return value.sum(dim=(1, 2)) if reduce else value


def loop_over_pictures(params, x, reduce=True):
    return torch.cat([solutions.log_prob(*each, reduce) for each in zip(params.split(1), x.split(1), strict=True)])


def underflowing(params, x, reduce=True):
    value = torch.stack(terms(params, x)).exp().sum(dim=0).log()
    return value.sum(dim=(1, 2)) if reduce else value


def test_log_prob():
    kits = mixture.log_prob

    def only_means_learn(params, x, reduce=True):
        k = params.shape[1] // 10
        return solutions.log_prob(torch.cat([params[:, :k].detach(), params[:, k:]], dim=1), x, reduce)

    wrong = {sentence: flawed_log_prob(flaw) for flaw, sentence in exercises.LOG_PROB_FLAWS.items()}
    del wrong[exercises.LOG_PROB_FLAWS["softmax"]]  # is seen with one component already
    wrong |= {
        "a single component has weight 1": flawed_log_prob("softmax"),
        "log_prob is its negative": changed(lambda value: -value),
        "nats are asked for": changed(lambda value: value / math.log(2)),
        "the mean": changed(lambda value: value / 3),
        "the shape is ()": changed(lambda value: value.mean()),
        "it writes into its arguments": written_in_place,
        "reduce=False: the shape is (2,), but it should be (2, 4, 5)": lambda p, x, reduce=True: kits(p, x),
        "no gradient reaches params": changed(lambda value: value.detach()),
        "the gradient of the logits": only_means_learn,
        "so their logarithms are added": masses_added,
        "a probability has become 0 on the way": underflowing,
        "that is a loop over pictures": loop_over_pictures,
        "that is a loop over components": loop_over_components,
        "that is a loop over pixels": loop_over_pixels,
        "a picture's number is the sum over its pixels": components_of_the_whole_picture,
    }
    check_exercise(exercises.log_prob, lambda params, x, reduce=True: ..., wrong, GIVEN)


def test_the_kits_log_prob_is_not_an_answer():
    source = """
from utils.mixture import log_prob as theirs

def log_prob(params, x, reduce=True):
    return theirs(params, x, reduce)
"""
    verdict = said(exercises.log_prob.check, in_a_cell(source)["log_prob"])
    assert "utils.mixture.log_prob is the kit's own" in verdict


def test_log_prob_kept_in_a_file_works_with_the_pieces_it_uses(mine):
    from kit.exercises.pieces import take

    said(exercises.bin_log_mass.check, pasted(exercises.bin_log_mass, GIVEN))
    bin_log_mass = take("bin_log_mass")
    said(exercises.log_prob.check, pasted(exercises.log_prob, GIVEN | {"bin_log_mass": bin_log_mass}))
    assert "def bin_log_mass" in (mine / "log_prob.py").read_text()
    assert take("log_prob").__module__ == "mine.log_prob"


def flawed_sample(flaw):
    return lambda params, noise, temperature=1.0: exercises.Flawed(params, flaw).sample(noise, temperature)


def test_sample():
    def noise_of_its_own(params, noise, temperature=1.0):
        return solutions.sample(params, torch.rand_like(noise), temperature)

    def unclamped(params, noise, temperature=1.0):
        k = params.shape[1] // 10
        return torch.where(((noise == 0) | (noise == 1))[:, k:], 0.0, solutions.sample(params, noise, temperature))

    def not_on_levels(params, noise, temperature=1.0):
        return solutions.sample(params, noise, temperature) + 1e-3

    def noise_written_in_place(params, noise, temperature=1.0):
        return solutions.sample(params, noise.mul_(0.999), temperature)

    wrong = {"it writes into its arguments": noise_written_in_place}
    wrong |= {exercises.SAMPLE_FLAWS[f]: flawed_sample(f) for f in ("average", "temperature", "unrounded", "sign")}
    wrong |= {exercises.SAMPLE_FLAWS[f]: flawed_sample(f) for f in ("scale", "likeliest", "gumbel", "uniform")}
    wrong |= {
        exercises.SAMPLE_FLAWS[f]: flawed_sample(f)
        for f in ("noise", "one u", "tanh", "twice", "order", "shifted", "coupling")
    }
    wrong |= {
        "all randomness comes from `noise`": noise_of_its_own,
        "clamp it to [1e-5, 1 - 1e-5]": unclamped,
        "not one of the 256 levels": not_on_levels,
        "the shape is": lambda params, noise, temperature=1.0: solutions.sample(params, noise, temperature)[:, :1],
        "other noise gives another picture": lambda params, noise, temperature=1.0: solutions.sample(params, noise),
    }
    check_exercise(exercises.sample, lambda params, noise, temperature=1.0: ..., wrong, GIVEN)


def test_wrong_frequencies_are_found_without_the_kits_random_numbers():
    """An answer that draws components otherwise, but by the noise."""

    def uniform_components(params, noise, temperature=1.0):
        k = params.shape[1] // 10
        return solutions.sample(torch.cat([0 * params[:, :k], params[:, k:]], dim=1), noise, temperature)

    assert "the shares of the three components' draws are" in str(exercises.sample.frequencies(uniform_components))
    assert all(exercises.sample.frequencies(solutions.sample) is None for _ in range(20))


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
