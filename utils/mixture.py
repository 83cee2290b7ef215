"""The discretized mixture of logistics: the probability of an 8-bit pixel, exactly.

A colour value v is the bin [v - 1/255, v + 1/255] on the scale from -1 to 1; the lowest bin reaches down to
minus infinity, the highest up to infinity. One logistic gives it the mass sigmoid(a) - sigmoid(b), with
a = (v - mean + 1/255) / scale, b = (v - mean - 1/255) / scale. As a difference of two nearly equal numbers that
is useless in float32; as a product it is exact everywhere, without a branch on how small it is:

    sigmoid(a) - sigmoid(b) = sigmoid(a) * sigmoid(-b) * (1 - exp(-(a - b))),    a - b = 2 / (255 scale)

The first factor is missing in the highest bin, the second in the lowest, the third in both.

Within a mixture component green's mean depends on red, blue's on red and green, linearly: three coefficients.
Source: Salimans et al. 2017, "PixelCNN++", section 2.1 and 2.2; the parameter layout is that of its code.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_LOG_SCALE = -7.0  # as in the original: a scale of 0.0009 puts all of a bin's mass where it is


class Mixture(NamedTuple):
    """What the 10 K channels mean. logits: (B, K, H, W); the others (B, 3, K, H, W)."""

    logits: Tensor
    means: Tensor
    log_scales: Tensor
    coeffs: Tensor  # of colour 0: red in green's mean; of 1: red in blue's; of 2: green in blue's


def unpack(params: Tensor) -> Mixture:
    """(B, 10K, H, W) -> the mixture's parts, in float32 or better."""
    params = params.to(torch.promote_types(params.dtype, torch.float32))
    b, channels, h, w = params.shape
    k = channels // 10
    logits, rest = params.split([k, 9 * k], dim=1)
    means, log_scales, coeffs = rest.view(b, 3, 3, k, h, w).unbind(dim=2)  # each (B, 3, K, H, W)
    return Mixture(logits, means, log_scales.clamp(min=MIN_LOG_SCALE), coeffs.tanh())


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


def log1mexp_from_log(log_t: Tensor) -> Tensor:
    """log(1 - exp(-t)) from log t, for any t > 0: finite, with a finite gradient, even where t underflows.

    It is log t plus a correction that vanishes with t; the correction is computed from a t kept above 1e-30,
    where it already is 0 to the last bit.
    """
    t = log_t.exp().clamp(min=1e-30)
    return log_t + (torch.log(-torch.expm1(-t)) - torch.log(t))


def log_prob(params: Tensor, x: Tensor, reduce: bool = True) -> Tensor:
    """Log-probability of 8-bit pictures.

    Args:
        params: (B, 10K, H, W), the network's output, any floating type.
        x: (B, 3, H, W) in [-1, 1], on the 256 levels v / 127.5 - 1.
        reduce: sum over the pixels of a picture.

    Returns:
        nats, float32 or better: (B,), or (B, H, W) without `reduce`.
    """
    mixture = unpack(params)
    x = x.to(mixture.means.dtype)[:, :, None]  # (B, 3, 1, H, W)
    centred = x - coupled_means(mixture, x)  # (B, 3, K, H, W)
    inv_scales = torch.exp(-mixture.log_scales)
    below = F.logsigmoid((centred + 1 / 255) * inv_scales)  # log mass below the bin's upper edge
    above = F.logsigmoid((1 / 255 - centred) * inv_scales)  # log mass above its lower edge
    width = log1mexp_from_log(math.log(2 / 255) - mixture.log_scales)
    lowest, highest = x < -0.999, x > 0.999
    log_mass = (
        below.masked_fill(highest, 0.0) + above.masked_fill(lowest, 0.0) + width.masked_fill(lowest | highest, 0.0)
    )
    log_components = log_mass.sum(dim=1) + F.log_softmax(mixture.logits, dim=1)  # (B, K, H, W)
    log_pixels = torch.logsumexp(log_components, dim=1)  # (B, H, W)
    return log_pixels.sum(dim=(1, 2)) if reduce else log_pixels


def sample(params: Tensor, generator: torch.Generator | None = None, temperature: float = 1.0) -> Tensor:
    """Draws pictures from the mixture, every pixel on its own.

    A component is chosen (Gumbel-max), then each colour by the inverse CDF, mean + scale * logit(uniform), and
    rounded to its bin, which gives the bin exactly the mass that `log_prob` says. Green and blue are conditioned
    on the rounded values.

    Args:
        params: (B, 10K, H, W).
        generator: where random numbers come from; it may live on another device than `params`.
        temperature: multiplies all randomness; 1 is the model, 0 the most likely component's means.

    Returns:
        float (B, 3, H, W), exactly on the levels v / 127.5 - 1.
    """
    mixture = unpack(params)
    b, _, k, h, w = mixture.means.shape
    device = generator.device if generator is not None else params.device
    noise = torch.rand(b, k + 3, h, w, generator=generator, device=device).to(mixture.means)
    noise = noise.clamp(1e-5, 1 - 1e-5)
    gumbel = -torch.log(-torch.log(noise[:, :k]))
    logistic = torch.logit(noise[:, k:])  # (B, 3, H, W)

    component = (mixture.logits + temperature * gumbel).argmax(dim=1)  # (B, H, W)
    chosen = component[:, None, None].expand(b, 3, 1, h, w)
    means, log_scales, coeffs = (part.gather(2, chosen).squeeze(2) for part in mixture[1:])  # (B, 3, H, W)
    spread = temperature * log_scales.exp() * logistic
    red = to_levels(means[:, 0] + spread[:, 0])
    green = to_levels(means[:, 1] + coeffs[:, 0] * red + spread[:, 1])
    blue = to_levels(means[:, 2] + coeffs[:, 1] * red + coeffs[:, 2] * green + spread[:, 2])
    return torch.stack([red, green, blue], dim=1)


def to_levels(x: Tensor) -> Tensor:
    """Rounds to the nearest of the 256 levels v / 127.5 - 1."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def bits_per_dim(nats: Tensor | float, image_size: int):
    """Nats per picture -> bits per colour value of a 3 x image_size x image_size picture."""
    return nats / (3 * image_size * image_size * math.log(2))
