"""Notebook 06."""

import torch

from utils.mixture import log_prob


@torch.no_grad()
def log_prob_of_rest(model, x, y, nr_given):
    log_pixels = log_prob(model(x, y), x, reduce=False)  # (B, H, W)
    return log_pixels[:, nr_given:].sum(dim=(1, 2))


def nearest(samples, training, count):
    distances = torch.cdist(samples.flatten(1), training.flatten(1))  # (N, M)
    return distances.topk(count, largest=False).indices  # (N, count)


def frechet(mean1, cov1, mean2, cov2):
    values, vectors = torch.linalg.eigh(cov1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T  # root @ root = cov1
    middle = torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum()
    return float((mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * middle)
