"""The discretized mixture of logistics: the probability of an 8-bit pixel, exactly.

A colour value v is the bin [v - 1/255, v + 1/255] on the scale from -1 to 1; the lowest bin reaches down to
minus infinity, the highest up to infinity. One logistic gives it the mass sigmoid(a) - sigmoid(-b), with
a = (v + 1/255 - mean) / scale, b = (mean - v + 1/255) / scale. As a difference of two nearly equal numbers that
is useless in float32; as a product it is exact everywhere, without a branch on how small it is:

    sigmoid(a) - sigmoid(-b) = sigmoid(a) * sigmoid(b) * (1 - exp(-t)),    t = a + b = 2 / (255 scale)

In the two edge bins the side that is open lies so far away that its sigmoid and the third factor are 1.

Within a mixture component green's mean depends on red, blue's on red and green, linearly: three coefficients.
Source: Salimans et al. 2017, "PixelCNN++", section 2.1 and 2.2; the parameter layout is that of its code.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_LOG_SCALE = -7.0  # as in the original: a scale of 0.0009 puts all of a bin's mass where it is
MAX_LOG_SCALE = 60.0  # far above any in use; what follows stays inside float32
FAR = 1e34  # where the open side of an edge bin ends, in place of infinity, which times 0 is NaN


class Mixture(NamedTuple):
    """What the 10 K channels mean. logits: (B, K, H, W); the others (B, 3, K, H, W)."""

    logits: Tensor
    means: Tensor
    log_scales: Tensor
    coeffs: Tensor  # of colour 0: red in green's mean; of 1: red in blue's; of 2: green in blue's


def parts(params: Tensor) -> Mixture:
    """Views of (B, 10K, H, W), as they stand there."""
    b, channels, h, w = params.shape
    k = channels // 10
    logits, rest = params.split([k, 9 * k], dim=1)
    return Mixture(logits, *rest.view(b, 3, 3, k, h, w).unbind(dim=2))


def unpack(params: Tensor) -> Mixture:
    """(B, 10K, H, W) -> the mixture, in float32 or better: log-scales clamped, coefficients in (-1, 1)."""
    logits, means, log_scales, coeffs = parts(params.to(torch.promote_types(params.dtype, torch.float32)))
    return Mixture(logits, means, log_scales.clamp(MIN_LOG_SCALE, MAX_LOG_SCALE), coeffs.tanh())


def coupled_means(mixture: Mixture, x: Tensor) -> Tensor:
    """The means given the true colours that come before. x: (B, 3, 1, H, W) -> (B, 3, K, H, W)."""
    means, coeffs = mixture.means, mixture.coeffs
    red, green = x[:, 0], x[:, 1]  # (B, 1, H, W)
    return torch.stack(
        [
            means[:, 0],
            means[:, 1] + coeffs[:, 0] * red,
            means[:, 2] + coeffs[:, 1] * red + coeffs[:, 2] * green,
        ],
        dim=1,
    )


def log_prob(params: Tensor, x: Tensor, reduce: bool = True) -> Tensor:
    """Log-probability of 8-bit pictures, in nats, float32 or better: (B,), or (B, H, W) without `reduce`.

    Args:
        params: (B, 10K, H, W), the network's output, any floating type.
        x: (B, 3, H, W) in [-1, 1], on the 256 levels v / 127.5 - 1.
        reduce: sum over the pixels of a picture.
    """
    dtype = torch.promote_types(params.dtype, torch.float32)
    params, x = params.to(dtype).contiguous(), x.to(dtype).contiguous()  # its views are slow in channels-last
    log_pixels = PixelLogProb.apply(params, x)  # (B, H, W)
    return log_pixels.sum(dim=(1, 2)) if reduce else log_pixels


class PixelLogProb(torch.autograd.Function):
    """log-probability of each pixel, (B, 10K, H, W), (B, 3, H, W) -> (B, H, W); the gradient is that of `params`.

    The gradient is worked out by hand, along with the value: a third of the passes over memory that autograd makes.
    With r the components' responsibilities it is r - softmax for the logits, and r times that of a bin's log mass
    for the rest.
    """

    @staticmethod
    def forward(ctx, params: Tensor, x: Tensor) -> Tensor:
        mixture, x = unpack(params), x[:, :, None]  # x: (B, 3, 1, H, W)
        upper = torch.where(x > 0.999, FAR, x + 1 / 255)
        lower = torch.where(x < -0.999, -FAR, x - 1 / 255)
        means = coupled_means(mixture, x)  # (B, 3, K, H, W)
        inv_scales = torch.exp(-mixture.log_scales)
        a, b, t = (upper - means) * inv_scales, (means - lower) * inv_scales, (upper - lower) * inv_scales
        between = torch.tanh(t / 2).div_(torch.sigmoid(t))  # 1 - exp(-t); `expm1` takes three times as long on CPUs
        log_mass = (between * torch.sigmoid(a.abs())).mul_(torch.sigmoid(b.abs())).log_()
        log_mass += a.clamp(max=0).add_(b.clamp(max=0))
        log_components = log_mass.sum(dim=1) + F.log_softmax(mixture.logits, dim=1)  # (B, K, H, W)
        log_pixels = torch.logsumexp(log_components, dim=1)  # (B, H, W)

        if ctx.needs_input_grad[0]:
            r = torch.softmax(log_components, dim=1)  # (B, K, H, W)
            outside_a, outside_b = (torch.sigmoid(-edge).mul_(r[:, None]) for edge in (a, b))
            of_params = torch.empty_like(params)
            logits, means, log_scales, coeffs = parts(of_params)
            torch.sub(r, mixture.logits.softmax(dim=1), out=logits)
            torch.mul(outside_b - outside_a, inv_scales, out=means)
            of_t = (1 - between).mul_(t).div_(between).mul_(r[:, None])
            torch.add(outside_a.mul_(a), outside_b.mul_(b), out=log_scales).add_(of_t).neg_()
            log_scales *= parts(params).log_scales == mixture.log_scales  # 0 where it was clamped
            torch.mul(means[:, 1], x[:, 0], out=coeffs[:, 0])
            torch.mul(means[:, 2:], x[:, :2], out=coeffs[:, 1:])
            coeffs *= 1 - mixture.coeffs.square()
            ctx.save_for_backward(of_params)
        return log_pixels

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (of_params,) = ctx.saved_tensors
        return of_params * grad[:, None], None


def uniform_noise(params: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The random numbers with which `sample` draws from params (B, 10K, ...): (B, K + 3, ...) on the generator's
    device, or theirs."""
    b, channels, *where = params.shape
    device = generator.device if generator is not None else params.device
    return torch.rand(b, channels // 10 + 3, *where, generator=generator, device=device)


def sample(
    params: Tensor, generator: torch.Generator | None = None, temperature: float = 1.0, noise: Tensor | None = None
) -> Tensor:
    """Draws pictures from the mixture, every pixel on its own; -> (B, 3, ...), exactly on the levels v / 127.5 - 1.

    A component is chosen (Gumbel-max), then each colour by the inverse CDF, mean + scale * logit(uniform), and
    rounded to its bin, which gives the bin exactly the mass that `log_prob` says. Green and blue are conditioned
    on the rounded values.

    Args:
        params: (B, 10K, ...): of a picture (B, 10K, H, W), of one pixel (B, 10K).
        generator: where random numbers come from; it may live on another device than `params`.
        temperature: multiplies all randomness; 1 is the model, 0 the most likely component's means.
        noise: what `uniform_noise` gave, in place of the generator's next numbers.
    """
    params = params.to(torch.promote_types(params.dtype, torch.float32))
    b, k, where = len(params), params.shape[1] // 10, params.shape[2:]
    noise = uniform_noise(params, generator) if noise is None else noise
    noise = noise.to(params).clamp(1e-5, 1 - 1e-5)
    for_component, for_colours = noise.split([k, 3], dim=1)
    minus_gumbel, logistic = for_component.log().neg_().log_(), torch.logit(for_colours)

    logits, rest = params.split([k, 9 * k], dim=1)
    component = torch.sub(logits, minus_gumbel, alpha=temperature).argmax(dim=1)  # (B, *where)
    of_component = rest.view(b, 3, 3, k, *where)
    chosen = of_component.gather(3, component.view(b, 1, 1, 1, *where).expand(b, 3, 3, 1, *where))
    means, log_scales, coeffs = chosen.squeeze(3).unbind(dim=2)  # (B, 3, *where)
    scales = log_scales.clamp(MIN_LOG_SCALE, MAX_LOG_SCALE).exp_()
    colours = torch.addcmul(means, scales, logistic, value=temperature).mul_(127.5)  # counted in bins, from the middle
    red, green, blue = colours.unbind(dim=1)
    red_in_green, red_in_blue, green_in_blue = coeffs.tanh().unbind(dim=1)
    red.floor_().add_(0.5).clamp_(-127.5, 127.5)
    green.addcmul_(red_in_green, red).floor_().add_(0.5).clamp_(-127.5, 127.5)
    blue.addcmul_(red_in_blue, red).addcmul_(green_in_blue, green).floor_().add_(0.5).clamp_(-127.5, 127.5)
    return colours.add_(127.5).div_(127.5).sub_(1)


def to_levels(x: Tensor) -> Tensor:
    """Rounds to the nearest of the 256 levels v / 127.5 - 1."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def initial_bias(x: Tensor, nr_logistic_mix: int) -> Tensor:
    """Biases with which a network's output starts as a plausible mixture whatever the picture: the means are spread
    over the colours seen, a scale is about their distance. x: (N, 3, H, W) -> (10K,), in the layout of `unpack`."""
    k = nr_logistic_mix
    where = (torch.arange(k, device=x.device) + 0.5) / k
    bias = x.new_zeros(3, 3, k)
    bias[:, 0] = torch.quantile(x.transpose(0, 1).flatten(1), where, dim=1).T
    bias[:, 1] = -1.5
    return torch.cat([x.new_zeros(k), bias.flatten()])


def bits_per_dim(nats: Tensor | float, image_size: int):
    """Nats per picture -> bits per colour value of a 3 x image_size x image_size picture."""
    return nats / (3 * image_size * image_size * math.log(2))
