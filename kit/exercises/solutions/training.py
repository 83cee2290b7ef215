"""Notebook 04."""

import copy
import math

import torch

from utils.mixture import bits_per_dim, log_prob
from utils.training import build_optimizer


def train_step(model, x, y, optimizer, grad_clip=0.0):
    nats = -log_prob(model(x, y), x)  # (B,)
    loss = bits_per_dim(nats, x.shape[-1]).mean()
    optimizer.zero_grad()
    loss.backward()
    if grad_clip > 0:
        torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    optimizer.step()
    return loss.detach()


def learning_rate(config, step, steps_per_epoch):
    rate = config.lr * min(1.0, (step + 1) / max(1, config.warmup))
    if config.schedule == "step":
        return rate * config.lr_decay ** (step // steps_per_epoch)
    return rate * 0.5 * (1 + math.cos(math.pi * step / (config.epochs * steps_per_epoch)))


@torch.no_grad()
def update_average(averaged, model, decay, step):
    decay = min(decay, (1 + step) / (10 + step))
    for average, weight in zip(averaged.parameters(), model.parameters(), strict=True):
        average.copy_(decay * average + (1 - decay) * weight)


def fit(model, pictures, labels, config, on_step=None):
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = build_optimizer(model, config)
    generator = torch.Generator().manual_seed(config.seed)
    steps_per_epoch = math.ceil(len(labels) / config.batch_size)
    step = 0
    model.train()
    for _ in range(config.epochs):
        order = torch.randperm(len(labels), generator=generator)
        for batch in order.split(config.batch_size):
            rate = learning_rate(config, step, steps_per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("relative_lr", 1.0)
            bits = train_step(model, pictures[batch], labels[batch], optimizer, config.grad_clip)
            update_average(averaged, model, config.ema_decay, step)
            if on_step:
                on_step(step, bits, averaged)
            step += 1
    return averaged
