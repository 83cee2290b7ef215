"""Notebook 03."""

import torch
import torch.nn.functional as F
from torch import nn

from utils.fusion import Fusion  # noqa: F401 (the answer is the kit's own)
from utils.layers import Dropout, PointwiseConv2d, concat_elu, modulate
from utils.model import NR_SCALES, down_shift, right_shift


class GatedResidualBlock(nn.Module):
    def __init__(self, conv, nr_filters, nr_skips, dropout):
        super().__init__()
        self.conv_in = conv(2 * nr_filters, nr_filters)
        self.skip = PointwiseConv2d(2 * nr_skips * nr_filters, nr_filters) if nr_skips else None
        self.dropout = Dropout(dropout)
        self.conv_out = conv(2 * nr_filters, 2 * nr_filters, init_scale=0.1)

    def forward(self, h, skip=None, modulation=None):
        c = self.conv_in(concat_elu(h))  # (B, F, H, W)
        if self.skip is not None and skip is not None:
            c = c + self.skip(concat_elu(skip))
        c = self.conv_out(self.dropout(concat_elu(c)))  # (B, 2F, H, W)
        a, b = modulate(c, modulation).chunk(2, dim=1)
        return h + a * torch.sigmoid(b)


def network_forward(self, x, y):
    modulations = iter(self.fusion.modulations(y))
    x = self.fusion.add("x", x, y)
    x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)  # (B, 4, H, W)

    u = down_shift(self.u_first(x))  # (B, F, H, W)
    ul = down_shift(self.ul_first_above(x)) + right_shift(self.ul_first_left(x))
    u, ul = self.fusion.add("u0", u, y), self.fusion.add("ul0", ul, y)

    skips = [(u, ul)]
    for scale in range(NR_SCALES):  # the way down
        for pair in self.down_blocks[scale]:
            u, ul = pair(u, ul, None, None, next(modulations), next(modulations))
            skips.append((u, ul))
        if scale < NR_SCALES - 1:
            u, ul = self.down_convs[scale]["u"](u), self.down_convs[scale]["ul"](ul)
            skips.append((u, ul))

    u, ul = skips.pop()
    u, ul = self.fusion.add("u_middle", u, y), self.fusion.add("ul_middle", ul, y)
    for scale in reversed(range(NR_SCALES)):  # the way back
        for pair in self.up_blocks[scale]:
            u_skip, ul_skip = skips.pop()
            u, ul = pair(u, ul, u_skip, ul_skip, next(modulations), next(modulations))
        if scale > 0:
            u, ul = self.up_convs[scale - 1]["u"](u), self.up_convs[scale - 1]["ul"](ul)

    with torch.autocast(x.device.type, enabled=False):
        params = self.head(F.elu(ul).to(x.dtype))
    return self.fusion.add("params", params, y)
