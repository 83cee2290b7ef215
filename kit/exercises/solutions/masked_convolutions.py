"""Notebook 01."""

import torch


def kernel_mask(kernel_size, kind):
    middle = kernel_size // 2
    mask = torch.ones(kernel_size, kernel_size)
    mask[middle + 1 :] = 0
    mask[middle, middle + (kind == "B") :] = 0
    return mask
