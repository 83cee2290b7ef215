"""Notebook 02; below, what typical wrong answers give."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.mixture import MIN_LOG_SCALE, parts, to_levels, unpack


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


class Flawed:
    """`log_prob` (without `reduce`) and `sample` as an answer with one flaw has them, by which a check knows it."""

    def __init__(self, params: Tensor, flaw: str):
        self.flaw, (self.logits, self.means, log_scales, coeffs) = flaw, parts(params)
        self.log_scales = log_scales if flaw == "clamp" else log_scales.clamp(min=MIN_LOG_SCALE)
        coeffs = coeffs if flaw == "tanh" else coeffs.tanh()
        coeffs = coeffs.roll(-1, dims=1) if flaw == "shifted" else coeffs
        self.of_red, self.in_blue, self.of_green = coeffs.unbind(dim=1)
        if flaw == "order":
            self.in_blue, self.of_green = self.of_green, self.in_blue
        if flaw == "coupling":
            self.of_red = self.in_blue = self.of_green = torch.zeros_like(self.of_red)
        if flaw == "green":
            self.of_green = torch.zeros_like(self.of_green)

    def log_prob(self, x: Tensor) -> Tensor:
        x, log_pi = x[:, :, None], self.logits.log_softmax(dim=1)
        red, green = (self.means if self.flaw == "means" else x)[:, :2].unbind(dim=1)
        of_blue = self.in_blue * red + self.of_green * green
        shift = torch.stack([torch.zeros_like(of_blue), self.of_red * red, of_blue], dim=1)
        log_mass = bin_log_mass(x, self.means + shift, self.log_scales)
        if self.flaw == "colours":
            return (log_mass + log_pi[:, None]).logsumexp(dim=2).sum(dim=1)
        terms = log_mass.sum(dim=1) + (self.logits if self.flaw == "softmax" else log_pi)
        if self.flaw == "one weight":
            terms = log_mass.sum(dim=1) - math.log(log_pi.shape[1])
        if self.flaw == "logs":
            return (log_pi.exp() * log_mass.sum(dim=1)).sum(dim=1)
        return terms.amax(dim=1) if self.flaw == "largest" else terms.logsumexp(dim=1)

    def sample(self, noise: Tensor, temperature: float) -> Tensor:
        k = self.logits.shape[1]
        noise = noise.roll(-3, dims=1) if self.flaw == "noise" else noise.clamp(1e-5, 1 - 1e-5)
        gumbel, spread = -torch.log(-torch.log(noise[:, :k])), temperature * torch.logit(noise[:, k:])
        gumbel = {"gumbel": -gumbel, "likeliest": 0 * gumbel, "uniform": noise[:, :k]}.get(self.flaw, gumbel)
        gumbel = gumbel if self.flaw == "temperature" else temperature * gumbel
        pi = torch.zeros_like(gumbel).scatter(1, (self.logits + gumbel).argmax(dim=1, keepdim=True), 1.0)
        pi = self.logits.softmax(dim=1) if self.flaw == "average" else pi
        each = (self.means, self.log_scales, self.of_red, self.in_blue, self.of_green)
        mean, log_scale, *coeffs = ((part * (pi[:, None] if part.ndim == 5 else pi)).sum(dim=-3) for part in each)
        scale = log_scale if self.flaw == "scale" else log_scale.exp()
        own, rounded = mean + scale * spread * (-1 if self.flaw == "sign" else 1), to_levels
        red = own[:, 0] if self.flaw == "unrounded" else rounded(own[:, 0])
        green = own[:, 1] + coeffs[0] * red
        green = green if self.flaw == "unrounded" else rounded(green)
        return rounded(torch.stack([red, green, own[:, 2] + coeffs[1] * red + coeffs[2] * green], dim=1))
