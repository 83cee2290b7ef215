"""Notebook 01."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm


def kernel_mask(kernel_size, kind):
    middle = kernel_size // 2
    mask = torch.ones(kernel_size, kernel_size)
    mask[middle + 1 :] = 0
    mask[middle, middle + (kind == "B") :] = 0
    return mask


class MaskedConv2d(nn.Conv2d):
    def __init__(self, in_channels, out_channels, kernel_size, kind):
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.register_buffer("mask", kernel_mask(kernel_size, kind))

    def forward(self, x):  # (B, C, H, W) -> (B, C', H, W)
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class DownShiftedConv2d(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size=(2, 3), stride=1, init_scale=1.0):
        super().__init__()
        kh, kw = kernel_size
        self.padding = (kw // 2, kw // 2, kh - 1, 0)  # left, right, top, bottom
        self.init_scale = init_scale
        self.conv = weight_norm(nn.Conv2d(in_channels, out_channels, kernel_size, stride), dim=0)

    def forward(self, x):  # (B, C, H, W) -> (B, C', H / stride, W / stride)
        return self.conv(F.pad(x, self.padding))


class DownRightShiftedConv2d(nn.Module):
    def __init__(self, in_channels, out_channels, kernel_size=(2, 2), stride=1, init_scale=1.0):
        super().__init__()
        kh, kw = kernel_size
        self.padding = (kw - 1, 0, kh - 1, 0)  # left, right, top, bottom
        self.init_scale = init_scale
        self.conv = weight_norm(nn.Conv2d(in_channels, out_channels, kernel_size, stride), dim=0)

    def forward(self, x):  # (B, C, H, W) -> (B, C', H / stride, W / stride)
        return self.conv(F.pad(x, self.padding))
