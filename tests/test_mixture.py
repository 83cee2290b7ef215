"""The loss against plain float64 formulas and against what a probability must be."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils import mixture

LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1


def random_params(count=1, k=3, size=1, scale=1.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, 10 * k, size, size, generator=generator, dtype=torch.float64).to(dtype)


def log_mass(v, mean, log_scale):
    """Log-probability of one level under one logistic, as it is defined, with 60 digits."""
    with mpmath.workdps(60):

        def sigmoid(t):
            return 1 / (1 + mpmath.exp(-t))

        scale = mpmath.exp(max(log_scale, -7.0))
        upper, lower = ((v - mean + side / mpmath.mpf(255)) / scale for side in (1, -1))
        if v < -0.999:
            return float(mpmath.log(sigmoid(upper)))
        if v > 0.999:
            return float(mpmath.log(sigmoid(-lower)))
        if lower > 0:  # sigmoid(t) = 1 - sigmoid(-t): take the difference where both are small
            upper, lower = -lower, -upper
        return float(mpmath.log(sigmoid(upper) - sigmoid(lower)))


def plain_log_prob(params, x):
    """One pixel, loops and plain numbers. params: (10K,), x: (3,)."""
    k = len(params) // 10
    logits, rest = params[:k], params[k:].reshape(3, 3, k)
    weights = [math.exp(v - max(logits)) for v in logits]
    terms = []
    for m in range(k):
        means, log_scales, coeffs = (rest[:, part, m] for part in range(3))
        coeffs = [math.tanh(c) for c in coeffs]
        mean_r = means[0]
        mean_g = means[1] + coeffs[0] * x[0]
        mean_b = means[2] + coeffs[1] * x[0] + coeffs[2] * x[1]
        terms.append(
            math.log(weights[m] / sum(weights))
            + sum(log_mass(v, mu, s) for v, mu, s in zip(x, (mean_r, mean_g, mean_b), log_scales, strict=True))
        )
    largest = max(terms)
    return largest + math.log(sum(math.exp(t - largest) for t in terms))


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0, 8.0])
def test_log_prob_is_the_plain_formula(scale):
    params = random_params(40, scale=scale)
    x = LEVELS[torch.randint(0, 256, (40, 3, 1, 1), generator=torch.Generator().manual_seed(1))]
    x[0], x[1] = -1, 1
    expected = [plain_log_prob(p.flatten().numpy(), v.flatten().tolist()) for p, v in zip(params, x, strict=True)]
    assert np.allclose(mixture.log_prob(params, x), expected, rtol=1e-9, atol=1e-9)
    single = mixture.log_prob(params.float(), x.float()).double()
    exact = mixture.log_prob(params.float().double(), x.float().double())
    assert torch.allclose(single, exact, rtol=2e-4, atol=1e-4)


def original_formula(params, x):
    """The loss as the original code writes it, where its bins are not tiny: float64."""
    b, channels, h, w = params.shape
    k = channels // 10
    logits, rest = params[:, :k], params[:, k:].reshape(b, 3, 3 * k, h, w)
    means, log_scales, coeffs = rest[:, :, :k], rest[:, :, k : 2 * k].clamp(min=-7), rest[:, :, 2 * k :].tanh()
    m2 = means[:, 1] + coeffs[:, 0] * x[:, 0:1]
    m3 = means[:, 2] + coeffs[:, 1] * x[:, 0:1] + coeffs[:, 2] * x[:, 1:2]
    centred = x[:, :, None] - torch.stack([means[:, 0], m2, m3], 1)
    plus, minus = ((centred + s / 255) * torch.exp(-log_scales) for s in (1, -1))
    inner = torch.log((torch.sigmoid(plus) - torch.sigmoid(minus)).clamp(min=1e-300))
    edge_low, edge_high = plus - torch.nn.functional.softplus(plus), -torch.nn.functional.softplus(minus)
    v = x[:, :, None].expand_as(centred)
    log_probs = torch.where(v < -0.999, edge_low, torch.where(v > 0.999, edge_high, inner))
    return torch.logsumexp(log_probs.sum(1) + torch.log_softmax(logits, 1), 1)


def test_agrees_with_the_original_and_so_do_its_gradients():
    params = random_params(4, k=5, size=6, scale=1.0)
    levels = torch.randint(0, 256, (4, 3, 6, 6), generator=torch.Generator().manual_seed(2))
    x = LEVELS[levels.clamp(0, 255)]
    x[0, :, 0], x[1, :, 1] = -1, 1
    results = []
    for function in (lambda p: mixture.log_prob(p, x, reduce=False), lambda p: original_formula(p, x)):
        p = params.clone().requires_grad_()
        out = function(p)
        out.sum().backward()
        results.append((out.detach(), p.grad))
    assert torch.allclose(results[0][0], results[1][0], rtol=1e-9)
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-7, atol=1e-10)


def one_colour_at_stake(channel, means, log_scales, edge, dtype):
    """Parameters under which the two other colours are certainly at the edge value, and the pictures in which
    the colour at stake takes each of its 256 values."""
    k = len(means)
    params = random_params(1, k, seed=3)
    parts = params[:, k:].view(3, 3, k)  # colour; mean, log-scale, coefficient
    parts[:, 0], parts[:, 1] = 100 * edge, -7
    parts[channel, 0], parts[channel, 1] = torch.tensor(means).double(), torch.tensor(log_scales).double()
    x = torch.full((256, 3, 1, 1), edge, dtype=dtype)
    x[:, channel, 0, 0] = LEVELS.to(dtype)
    return params.to(dtype).expand(256, -1, -1, -1), x


@pytest.mark.parametrize("dtype,tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("log_scale", [-50.0, -7.0, -5.0, -2.0, 0.0, 3.0, 10.0, 60.0])
@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize("edge", [-1.0, 1.0])
def test_each_channel_sums_to_one(channel, log_scale, edge, dtype, tolerance):
    params, x = one_colour_at_stake(channel, [-0.3, 0.0, 0.97], [log_scale, log_scale, -3.0], edge, dtype)
    assert mixture.log_prob(params, x).exp().sum().item() == pytest.approx(1.0, abs=tolerance)


finite = st.floats(-1e3, 1e3, allow_nan=False, width=32)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=4), st.integers(0, 2))
def test_property_each_channel_sums_to_one(components, channel):
    means, log_scales = zip(*components, strict=True)
    params, x = one_colour_at_stake(channel, means, log_scales, -1.0, torch.float32)
    assert mixture.log_prob(params, x).exp().sum().item() == pytest.approx(1.0, abs=1e-4)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-1e30, 1e30), min_size=20, max_size=20),
    st.lists(st.integers(0, 255), min_size=3, max_size=3),
)
def test_property_finite_with_finite_gradients(values, levels):
    params = torch.tensor(values).view(1, 20, 1, 1).requires_grad_()
    x = LEVELS[torch.tensor(levels)].float().view(1, 3, 1, 1)
    out = mixture.log_prob(params, x)
    out.sum().backward()
    assert torch.isfinite(out).all() and torch.isfinite(params.grad).all()


@pytest.mark.parametrize("levels", [[0, 255, 128], [255, 0, 0], [3, 254, 77]])
@pytest.mark.parametrize("log_scale", [-9.0, -4.0, -1.0, 3.0])
def test_the_gradient_by_hand_is_that_of_finite_differences(levels, log_scale):
    """In float64, inside the range and in both edge bins; below the smallest log-scale its gradient is 0."""
    params = torch.randn(1, 20, 1, 1, dtype=torch.float64) / 4
    params[:, 2:].view(3, 3, 2)[:, 1] += log_scale
    x = LEVELS[torch.tensor(levels)].double().view(1, 3, 1, 1)
    params[:, 2:].view(3, 3, 2)[:, 0] += x.view(3, 1) if log_scale < -2 else 0  # in reach of so small a scale
    assert torch.autograd.gradcheck(lambda p: mixture.log_prob(p, x), params.requires_grad_(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("log_scale", [20.0, 40.0, 59.0])
def test_a_wide_scale_is_exact_in_float32(log_scale):
    """So small a part of a logistic has the density's mass, (2 / 255) / (4 scale)."""
    params = torch.zeros(1, 10, 1, 1)
    params[0, [2, 5, 8]] = log_scale
    out = mixture.log_prob(params.requires_grad_(), LEVELS[[3, 100, 250]].float().view(1, 3, 1, 1))
    out.sum().backward()
    assert out.item() == pytest.approx(3 * (math.log(2 / 255) - math.log(4) - log_scale), rel=1e-6)
    assert params.grad.flatten()[[2, 5, 8]].tolist() == pytest.approx([-1, -1, -1], rel=1e-6)


@pytest.mark.parametrize("levels", [[3, 100, 250], [0, 255, 0]])
def test_beyond_the_largest_log_scale_nothing_changes(levels):
    x = LEVELS[levels].float().view(1, 3, 1, 1)
    params = torch.zeros(2, 10, 1, 1)
    params[0, [2, 5, 8]], params[1, [2, 5, 8]] = mixture.MAX_LOG_SCALE, 1e3
    at, beyond = mixture.log_prob(params.requires_grad_(), x.expand(2, -1, -1, -1))
    beyond.backward()
    assert at == beyond and not params.grad[:, [2, 5, 8]].any()


def test_half_precision_parameters_are_computed_in_float32():
    params = random_params(2, size=4).to(torch.bfloat16)
    x = LEVELS[torch.randint(0, 256, (2, 3, 4, 4))].float()
    with torch.autocast("cpu", torch.bfloat16):
        out = mixture.log_prob(params, x)
    assert out.dtype == torch.float32
    assert torch.equal(out, mixture.log_prob(params.float(), x))


def test_without_reduce_pixels_are_kept_apart():
    params, x = random_params(2, size=4), LEVELS[torch.randint(0, 256, (2, 3, 4, 4))]
    pixels = mixture.log_prob(params, x, reduce=False)
    assert pixels.shape == (2, 4, 4)
    assert torch.allclose(pixels.sum((1, 2)), mixture.log_prob(params, x))


def test_samples_have_the_probabilities_that_log_prob_says():
    """Chi-square of 200,000 draws of one pixel's green and blue against exact bin masses, red fixed by its edge."""
    torch.manual_seed(0)
    params = random_params(1, k=2, seed=5)
    parts = params[:, 2:].view(3, 3, 2)
    parts[0, 0], parts[0, 1] = 100.0, -7.0  # red is certainly 1
    parts[1:, 0], parts[1:, 1] = torch.tensor([[-0.4, 0.7], [0.9, -0.2]]).double(), -1.5
    count = 200_000
    drawn = mixture.sample(params.expand(count, -1, -1, -1), torch.Generator().manual_seed(0))[:, :, 0, 0]
    assert (drawn[:, 0] == 1).all()
    # p(green, blue) on a grid of all pairs, then both margins
    green, blue = torch.meshgrid(LEVELS, LEVELS, indexing="ij")
    x = torch.stack([torch.ones(65536).double(), green.flatten(), blue.flatten()], 1)[:, :, None, None]
    joint = mixture.log_prob(params.expand(65536, -1, -1, -1), x).exp().view(256, 256)
    assert joint.sum().item() == pytest.approx(1.0, abs=1e-9)
    for channel, expected in ((1, joint.sum(1)), (2, joint.sum(0))):
        levels = ((drawn[:, channel] + 1) * 127.5).round().long()
        counts = torch.bincount(levels, minlength=256).double()
        common = expected * count > 20
        chi2 = ((counts - expected * count) ** 2 / (expected * count))[common].sum().item()
        freedom = int(common.sum()) - 1
        assert abs(chi2 - freedom) < 5 * math.sqrt(2 * freedom)
    # and the two colours hang together as they should: correlation of draws against the exact one
    exact_mean = [(joint.sum(1) * LEVELS).sum(), (joint.sum(0) * LEVELS).sum()]
    exact = (joint * (green - exact_mean[0]) * (blue - exact_mean[1])).sum()
    seen = ((drawn[:, 1] - exact_mean[0]) * (drawn[:, 2] - exact_mean[1])).mean()
    assert seen.item() == pytest.approx(exact.item(), abs=0.005)


def test_samples_lie_on_the_256_levels():
    drawn = mixture.sample(random_params(8, size=16, scale=3.0, dtype=torch.float32))
    assert torch.isin(drawn, torch.arange(256.0) / 127.5 - 1).all()
    assert torch.equal(mixture.to_levels(drawn), drawn)


def test_temperature_zero_takes_the_means_of_the_likeliest_component():
    params = random_params(1, k=3, seed=9)
    parts = mixture.unpack(params)
    best = parts.logits[0, :, 0, 0].argmax()
    means, coeffs = parts.means[0, :, best, 0, 0], parts.coeffs[0, :, best, 0, 0]
    red = mixture.to_levels(means[0])
    green = mixture.to_levels(means[1] + coeffs[0] * red)
    blue = mixture.to_levels(means[2] + coeffs[1] * red + coeffs[2] * green)
    assert torch.equal(mixture.sample(params, temperature=0.0).flatten(), torch.stack([red, green, blue]))


def test_bits_per_dimension_of_a_uniform_guess_is_8():
    nats = torch.tensor(3 * 32 * 32 * math.log(256.0))
    assert mixture.bits_per_dim(nats, 32).item() == pytest.approx(8.0)
