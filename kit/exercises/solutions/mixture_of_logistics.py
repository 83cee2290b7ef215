"""Notebook 02."""

import math

import torch
import torch.nn.functional as F

from utils.mixture import to_levels, unpack


def bin_log_mass(x, mean, log_scale):
    inv_scale = torch.exp(-log_scale)
    # infinity comes in after the multiplication: times a gradient of 0 it would be NaN
    a = torch.where(x > 0.999, math.inf, (x + 1 / 255 - mean) * inv_scale)
    b = torch.where(x < -0.999, math.inf, (mean - x + 1 / 255) * inv_scale)
    t = torch.where(x.abs() > 0.999, math.inf, 2 / 255 * inv_scale)
    return F.logsigmoid(a) + F.logsigmoid(b) + torch.log(-torch.expm1(-t))


def log_prob(params, x, reduce=True):
    logits, means, log_scales, coeffs = unpack(params)
    x = x.to(means.dtype)[:, :, None]  # (B, 3, 1, H, W)
    red, green = x[:, 0], x[:, 1]  # (B, 1, H, W)
    means = torch.stack(
        [
            means[:, 0],
            means[:, 1] + coeffs[:, 0] * red,
            means[:, 2] + coeffs[:, 1] * red + coeffs[:, 2] * green,
        ],
        dim=1,
    )  # (B, 3, K, H, W)
    log_mass = bin_log_mass(x, means, log_scales).sum(dim=1)  # the three colours: (B, K, H, W)
    log_pixels = torch.logsumexp(logits.log_softmax(dim=1) + log_mass, dim=1)  # (B, H, W)
    return log_pixels.sum(dim=(1, 2)) if reduce else log_pixels


def sample(params, noise, temperature=1.0):
    logits, means, log_scales, coeffs = unpack(params)
    b, k, h, w = logits.shape
    noise = noise.to(means.dtype).clamp(1e-5, 1 - 1e-5)
    gumbel = -torch.log(-torch.log(noise[:, :k]))
    spread = temperature * torch.logit(noise[:, k:])  # (B, 3, H, W), in scales

    component = (logits + temperature * gumbel).argmax(dim=1)  # (B, H, W)
    index = component[:, None, None].expand(b, 3, 1, h, w)
    mean, log_scale, coeff = (part.gather(2, index).squeeze(2) for part in (means, log_scales, coeffs))  # (B, 3, H, W)
    own = mean + log_scale.exp() * spread
    red = to_levels(own[:, 0])
    green = to_levels(own[:, 1] + coeff[:, 0] * red)
    blue = to_levels(own[:, 2] + coeff[:, 1] * red + coeff[:, 2] * green)
    return torch.stack([red, green, blue], dim=1)
