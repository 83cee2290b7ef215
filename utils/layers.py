"""The bricks of PixelCNN++: causal convolutions made by shifting, and the gated residual block.

A convolution is made causal by *where it looks*, not by zeros in its kernel: the picture is padded on
the sides that lie in the past only, so no weight is ever wasted on a masked tap. Two kinds exist:

* **down-shifted**: output (i, j) sees rows <= i, left and right alike. Stacks of it form the u stream.
* **down-right-shifted**: output (i, j) sees rows <= i and columns <= j. Stacks of it form the ul stream.

Source: Salimans et al. 2017, "PixelCNN++", section 2.3 and the code published with it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

Modulation = tuple[Tensor | None, Tensor]  # what a class does to a gated block: (scale or None, shift), each (B, 2F)


def concat_elu(x: Tensor) -> Tensor:
    """ELU of x and of -x, side by side: (B, C, ...) -> (B, 2C, ...). Nothing a ReLU would kill is lost."""
    return F.elu(torch.cat([x, -x], dim=1), inplace=True)


def padded_concat_elu(x: Tensor, padding: tuple[int, int, int, int] = (0, 0, 0, 0)) -> Tensor:
    """`concat_elu` with zeros at its (left, right, top, bottom), for a convolution to read; x: (B, C, H, W)."""
    return ConcatELU.apply(x, padding) if memory_decides(x) else F.pad(concat_elu(x), padding)


def gate(c: Tensor) -> Tensor:
    """a * sigmoid(b), where a and b are the two halves of c: (B, 2F, H, W) -> (B, F, H, W)."""
    return Gate.apply(c) if memory_decides(c) else F.glu(c, dim=1)


def memory_decides(x: Tensor) -> bool:
    """Whether the passes over memory take the time, so that fewer are worth a gradient by hand: on CPUs, as long as no
    compiler merges them."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


class ConcatELU(torch.autograd.Function):
    """With half the exponentials, as min(x, -x) is all that is below 0, and no copy for the padding."""

    @staticmethod
    def forward(ctx, x: Tensor, padding) -> Tensor:
        b, c, h, w = x.shape
        left, right, top, bottom = ctx.padding = padding
        layout = torch.channels_last if x.stride(1) == 1 else torch.contiguous_format
        out = torch.empty((b, 2 * c, top + h + bottom, left + w + right), dtype=x.dtype, memory_format=layout)
        if any(padding):
            for edge in (out[:, :, :top], out[:, :, top + h :], out[..., :left], out[..., left + w :]):
                edge.zero_()
        minus_x = -x
        below_0 = torch.minimum(x, minus_x).expm1_()
        of_x, of_minus_x = inside(out, padding).chunk(2, dim=1)
        torch.maximum(x, below_0, out=of_x)
        torch.maximum(minus_x, below_0, out=of_minus_x)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        grad = torch.ops.aten.elu_backward(grad, 1.0, 1.0, 1.0, True, *ctx.saved_tensors)
        of_x, of_minus_x = inside(grad, ctx.padding).chunk(2, dim=1)
        return of_x - of_minus_x, None


def inside(x: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """x without its padding: (B, C, H, W), a view."""
    left, right, top, bottom = padding
    return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]


class Gate(torch.autograd.Function):
    """With operations on whole rows of channels, which are the fast ones in every layout."""

    @staticmethod
    def forward(ctx, c: Tensor) -> Tensor:
        a, b = c.chunk(2, dim=1)
        opening = b.clone().sigmoid_()
        ctx.save_for_backward(c, opening)
        return a * opening

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        c, opening = ctx.saved_tensors
        a, of_c = c.chunk(2, dim=1)[0], torch.empty_like(c)
        of_a, of_b = of_c.chunk(2, dim=1)
        torch.mul(grad, opening, out=of_a)
        torch.mul(of_a, torch.addcmul(a, a, opening, value=-1), out=of_b)
        return of_c


def modulate(c: Tensor, modulation: Modulation | None) -> Tensor:
    """c * (1 + scale) + shift for each picture and channel, in the precision of c; c: (B, 2F, H, W)."""
    if modulation is None:
        return c
    scale, shift = modulation
    shift = shift.to(c.dtype)[:, :, None, None]
    if scale is None:
        return c + shift
    return torch.addcmul(shift, c, 1 + scale.to(c.dtype)[:, :, None, None])


class ShiftedConv2d(nn.Module):
    """A weight-normalised convolution whose padding lies on chosen sides only.

    Args:
        past: zeros added at (left, right, top); never at the bottom, which is the future.
        init_scale: standard deviation of the outputs after `data_dependent_init`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        stride: int,
        past: tuple[int, int, int],
        init_scale: float,
    ):
        super().__init__()
        left, right, top = past
        self.padding = (left, right, top, 0)
        self.init_scale = init_scale
        self.conv = weight_norm(nn.Conv2d(in_channels, out_channels, kernel_size, stride), dim=0)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C', H / stride, W / stride)
        return self.conv(F.pad(x, self.padding))


class DownShiftedConv2d(ShiftedConv2d):
    """Output (i, j) sees rows i-kh+1 ... i, and columns j-kw//2 ... j+kw//2."""

    def __init__(self, in_channels, out_channels, kernel_size=(2, 3), stride=1, init_scale=1.0):
        kh, kw = kernel_size
        super().__init__(in_channels, out_channels, kernel_size, stride, (kw // 2, kw // 2, kh - 1), init_scale)


class DownRightShiftedConv2d(ShiftedConv2d):
    """Output (i, j) sees rows i-kh+1 ... i, and columns j-kw+1 ... j."""

    def __init__(self, in_channels, out_channels, kernel_size=(2, 2), stride=1, init_scale=1.0):
        kh, kw = kernel_size
        super().__init__(in_channels, out_channels, kernel_size, stride, (kw - 1, 0, kh - 1), init_scale)


class UnpaddedConv2d(nn.Module):
    """A weight-normalised convolution that needs no padding: no output sees more than the kernel's own place allows."""

    def __init__(self, conv: nn.Module, out_dim: int, init_scale: float):
        super().__init__()
        self.init_scale = init_scale
        self.conv = weight_norm(conv, dim=out_dim)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C', H, W), or (B, C', 2H, 2W) if transposed
        return self.conv(x)


class DownShiftedConvTranspose2d(UnpaddedConv2d):
    """Doubles height and width; output row i sees input rows <= i // 2. The twin of the strided (2, 3)."""

    def __init__(self, in_channels, out_channels, init_scale=1.0):
        conv = nn.ConvTranspose2d(in_channels, out_channels, (2, 3), stride=2, padding=(0, 1), output_padding=(0, 1))
        super().__init__(conv, 1, init_scale)


class DownRightShiftedConvTranspose2d(UnpaddedConv2d):
    """Doubles height and width; output (i, j) sees input (i // 2, j // 2) alone. The twin of the strided (2, 2)."""

    def __init__(self, in_channels, out_channels, init_scale=1.0):
        super().__init__(nn.ConvTranspose2d(in_channels, out_channels, (2, 2), stride=2), 1, init_scale)


class PointwiseConv2d(UnpaddedConv2d):
    """A 1x1 convolution: mixes channels ("network in network"), looks nowhere else."""

    def __init__(self, in_channels, out_channels, init_scale=1.0):
        super().__init__(nn.Conv2d(in_channels, out_channels, 1), 0, init_scale)


# an operator of its own, because `torch.compile` would draw each byte in a slow loop
@torch.library.custom_op("pixelcnn::dropout_mask", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def dropout_mask(x: Tensor, threshold: int) -> Tensor:
    """A factor for each element of x: 0 with probability threshold / 256, else what keeps the mean."""
    bits = next(bits for bits in (1, 2, 4, 8) if threshold % (256 >> bits) == 0)  # how many decide about an element
    noise = torch.randint(-(2**63), 2**63 - 1, (-(-x.numel() * bits // 64),)).view(torch.uint8)
    noise = torch.cat([noise >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)])
    drop = threshold >> 8 - bits  # of 2^bits numbers
    keep = noise.clamp_(drop - 1, drop).sub_(drop - 1)  # 1 or 0; comparing takes five times as long
    keep = keep.as_strided(x.shape, x.stride())  # in the memory order of x
    return keep.to(x.dtype).mul_(1 / (1 - threshold / 256))


@dropout_mask.register_fake
def _(x: Tensor, threshold: int) -> Tensor:
    return torch.empty_like(x)


class Dropout(nn.Module):
    """Dropout whose random numbers do not cost more than the convolutions beside it: PyTorch draws 32 bits an element,
    in a serial loop on CPUs; at most a byte decides here, so the probability is rounded to 1/256."""

    def __init__(self, p: float):
        super().__init__()
        self.p = min(round(p * 256), 255) / 256  # less than 1: something is always kept

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        return x * dropout_mask(x.detach(), int(self.p * 256))


class GatedResidualBlock(nn.Module):
    """h + a * sigmoid(b), where a and b are the two halves of what two causal convolutions in a row make of h.

    Args:
        conv: `DownShiftedConv2d` for the u stream, `DownRightShiftedConv2d` for the ul stream.
        nr_filters: F, the channels of h.
        nr_skips: how many streams of F channels come in through the 1x1 skip connection (0, 1 or 2).
    """

    def __init__(self, conv: Callable[..., ShiftedConv2d], nr_filters: int, nr_skips: int, dropout: float):
        super().__init__()
        self.conv_in = conv(2 * nr_filters, nr_filters)
        self.skip = PointwiseConv2d(2 * nr_skips * nr_filters, nr_filters) if nr_skips else None
        self.dropout = Dropout(dropout)
        self.conv_out = conv(2 * nr_filters, 2 * nr_filters, init_scale=0.1)

    def forward(self, h: Tensor, skip: Tensor | None = None, modulation: Modulation | None = None) -> Tensor:
        """h: (B, F, H, W); skip: (B, nr_skips F, H, W) -> (B, F, H, W)."""
        c = self.conv_in.conv(padded_concat_elu(h, self.conv_in.padding))  # (B, F, H, W)
        if self.skip is not None and skip is not None:
            c = c + self.skip(padded_concat_elu(skip))
        c = self.conv_out.conv(self.dropout(padded_concat_elu(c, self.conv_out.padding)))  # (B, 2F, H, W)
        return h + gate(modulate(c, modulation))


@contextmanager
def data_dependent_init(model: nn.Module) -> Iterator[None]:
    """While open, one forward pass sets every layer's gain and bias so that, on the batch it sees, each output
    channel has mean 0 and standard deviation `init_scale` (Salimans & Kingma 2016, "Weight Normalization",
    section 3). Layers are set in the order in which data reaches them, each seeing its set predecessors.
    """

    def normalise(layer, conv, _inputs, output):  # output: (B, C, H, W)
        exact = output.cpu().double()  # on the CPU: Apple's GPUs have no float64
        std, mean = torch.std_mean(exact, dim=(0, 2, 3), correction=0)  # (C,)
        gain, mean = (layer.init_scale / (std + 1e-10)).to(output), mean.to(output)
        g = conv.parametrizations.weight.original0  # (C, 1, 1, 1), or (1, C, 1, 1) in a transposed layer
        g.mul_(gain.view_as(g))
        conv.bias.copy_((conv.bias - mean) * gain)
        return (output - mean[:, None, None]) * gain[:, None, None]

    layers: list[Any] = [m for m in model.modules() if hasattr(m, "init_scale")]
    handles = [layer.conv.register_forward_hook(partial(normalise, layer)) for layer in layers]
    try:
        with torch.no_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
