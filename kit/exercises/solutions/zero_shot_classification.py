"""Notebook 05."""

import torch
import torch.nn.functional as F

from utils.mixture import log_prob


@torch.no_grad()
def class_log_likelihoods(model, x, batch_size=32):
    rows = []
    for part in x.split(batch_size):
        columns = []
        for label in range(model.config.num_classes):
            labels = torch.full((len(part),), label, device=x.device)
            columns.append(log_prob(model(part, labels), part))  # (b,)
        rows.append(torch.stack(columns, dim=1))  # (b, C)
    return torch.cat(rows)


def log_posterior(log_likelihoods, prior=None):
    joint = log_likelihoods if prior is None else log_likelihoods + torch.log(prior)
    return joint - torch.logsumexp(joint, dim=1, keepdim=True)


def fit_temperature(log_likelihoods, labels):
    grid = torch.logspace(-1, 4, 501).tolist()
    losses = [float(F.cross_entropy(log_likelihoods / t, labels)) for t in grid]
    return grid[losses.index(min(losses))]


@torch.no_grad()
def evidence_map(model, x, label, against):
    pictures = x.expand(2, -1, -1, -1)
    params = model(pictures, torch.tensor([label, against], device=x.device))
    for_label, for_other = log_prob(params, pictures, reduce=False)  # (H, W) each
    return for_label - for_other
