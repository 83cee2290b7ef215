"""Drawing pictures pixel by pixel, each pixel given all that were drawn before it.

`generate_naive` runs the whole network once for every pixel and throws all but one pixel's answer away.
`generate` computes each activation once, as soon as what it depends on is known, and keeps it:

* the **u** stream depends on the rows above only: one row at a time, when the row begins;
* the **ul** stream depends on the left as well: one pixel at a time. Of its 2x2 taps the upper two, and all that
  it takes from u, are known when the row begins: computed for the whole row at once. Two taps remain;
* the **coarser scales** change at every second and every fourth row and column only.

Nothing is approximated: it is the same sum in another order (Ramachandran et al. 2017, "Fast Generation for
Convolutional Autoregressive Models").
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import UsageError, mixture
from .layers import GatedResidualBlock, Modulation, ShiftedConv2d, concat_elu, modulate
from .model import NR_SCALES, ConditionalPixelCNN


@torch.inference_mode()
def generate(
    model: ConditionalPixelCNN,
    labels: Tensor,
    *,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
    prefix: Tensor | None = None,
    on_row: Callable[[int, Tensor], object] | None = None,
    guidance: float = 0.0,
) -> Tensor:
    """Draws one picture for each label, with cached activations; -> (B, 3, H, W) on the 256 levels.

    Args:
        labels: int64 (B,), 0 ... C-1.
        generator: where random numbers come from; the same seed gives the same pictures.
        temperature: 1 samples from the model; lower values vary less, 0 takes the most likely component's means.
        prefix: (B, 3, h, W), rows that are already known, or (1, 3, h, W) for the same in all (completion).
        on_row: called as `on_row(i, images)` after row i; later rows of `images` are still empty.
        guidance: w; above 0, every pixel is drawn from p(pixel | label) (p(pixel | label) / p(pixel))^w instead, which
            prefers what speaks for the label: see `draw_pixels`. It takes a pass for every class.

    Raises:
        UsageError: a label, the temperature, the guidance or the prefix is out of range.
    """
    images, nr_known = blank_pictures(model, labels, temperature, prefix, guidance)
    labels = labels.to(images.device)
    told = labels_told(model, labels, guidance)
    seen = images.repeat(len(told) // len(labels), 1, 1, 1) if guidance else images  # by the network
    for i, j, params in walk(model, seen, told):
        if i >= nr_known:
            images[:, :, i, j] = pixels = draw_pixels(params, labels, generator, temperature, guidance)
            if guidance:
                seen[:, :, i, j] = pixels.repeat(len(told) // len(labels), 1)
        if on_row and j == images.shape[3] - 1:
            on_row(i, images)
    return images


@torch.inference_mode()
def generate_naive(
    model, labels: Tensor, *, generator=None, temperature=1.0, prefix: Tensor | None = None, on_row=None, guidance=0.0
) -> Tensor:
    """As `generate`, by a whole forward pass for every pixel: the reference that `generate` must equal."""
    images, nr_known = blank_pictures(model, labels, temperature, prefix, guidance)
    labels = labels.to(images.device)
    told = labels_told(model, labels, guidance)
    for i in range(images.shape[2]):
        for j in range(images.shape[3]):
            if i >= nr_known:
                params = model(images.repeat(len(told) // len(labels), 1, 1, 1), told)[:, :, i, j]
                images[:, :, i, j] = draw_pixels(params, labels, generator, temperature, guidance)
        if on_row:
            on_row(i, images)
    return images


@torch.inference_mode()
def stepwise_params(model: ConditionalPixelCNN, x: Tensor, y: Tensor) -> Tensor:
    """The cached path, fed `x` pixel by pixel; equals `model(x, y)`. x: (B, 3, H, W) -> (B, 10K, H, W)."""
    params = x.new_empty(len(x), 10 * model.config.nr_logistic_mix, *x.shape[2:])
    for i, j, at_pixel in walk(model, x, y):
        params[:, :, i, j] = at_pixel
    return params


NR_CANDIDATES = 16  # of a guided pixel


def draw_pixels(params: Tensor, labels: Tensor, generator, temperature: float, guidance: float) -> Tensor:
    """Draws a pixel for each of B pictures: (B, 10K), or with guidance (C B, 10K) under every label, -> (B, 3).

    Guidance by importance resampling: of `NR_CANDIDATES` pixels from p(. | label) one is kept, with a probability
    proportional to (p(pixel | label) / p(pixel))^w, where p(pixel) is the mean over the labels. For many candidates
    that is exact; w = 0 is the model. Images are guided so by Ho & Salimans 2022, "Classifier-Free Diffusion Guidance";
    here the mean over the labels is in the place of a network that is not told the class.
    """
    if not guidance:
        return mixture.sample(params, generator, temperature)
    each = torch.arange(len(labels), device=labels.device)
    of_label = params.chunk(len(params) // len(labels))  # C of (B, 10K)
    own = torch.stack(of_label)[labels, each].repeat(NR_CANDIDATES, 1)  # (M B, 10K)
    candidates = mixture.sample(own[:, :, None, None], generator, temperature)  # (M B, 3, 1, 1)
    nats = [mixture.log_prob(p.repeat(NR_CANDIDATES, 1)[:, :, None, None], candidates) for p in of_label]  # (M B,) each
    posterior = torch.stack(nats, dim=1).view(NR_CANDIDATES, len(labels), -1).log_softmax(dim=2)  # of the pixel alone
    weights = (guidance * posterior[:, each, labels]).softmax(dim=0)  # (M, B)
    threshold = torch.rand(len(labels), generator=generator, device=generator.device if generator else labels.device)
    chosen = (weights.cumsum(dim=0) < threshold.to(weights)).sum(dim=0).clamp(max=NR_CANDIDATES - 1)
    return candidates.view(NR_CANDIDATES, len(labels), 3)[chosen, each]


def labels_told(model: ConditionalPixelCNN, labels: Tensor, guidance: float) -> Tensor:
    """Those of a forward pass: labels (B,), or for guidance every one of the C for all pictures: (C B,)."""
    every = torch.arange(model.config.num_classes, device=labels.device)
    return every.repeat_interleave(len(labels)) if guidance else labels


def blank_pictures(
    model, labels: Tensor, temperature: float, prefix: Tensor | None, guidance: float = 0.0
) -> tuple[Tensor, int]:
    """Checks the arguments; -> pictures that hold the prefix, and its number of rows."""
    size, nr_classes = model.config.image_size, model.config.num_classes
    if labels.ndim != 1 or bool(((labels < 0) | (labels >= nr_classes)).any()):
        raise UsageError(f"labels must be whole numbers from 0 to {nr_classes - 1}, not {labels.tolist()}")
    if not 0 <= temperature < float("inf"):
        raise UsageError(f"the temperature must not be negative or infinite, not {temperature}")
    if not 0 <= guidance < float("inf"):
        raise UsageError(f"the guidance must not be negative or infinite, not {guidance}")
    images = model.head.conv.bias.new_zeros(len(labels), 3, size, size)
    if prefix is None:
        return images, 0
    nr_known = prefix.shape[-2]
    if prefix.ndim != 4 or (prefix.shape[1], prefix.shape[3]) != (3, size) or nr_known > size:
        raise UsageError(f"a prefix is (B, 3, rows, {size}), not {tuple(prefix.shape)}")
    images[:, :, :nr_known] = mixture.to_levels(prefix.to(images))
    return images, nr_known


def walk(model: ConditionalPixelCNN, images: Tensor, labels: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """In raster order (i, j, params (B, 10K)); pixel (i, j) of `images` is read after the caller has had its turn."""
    network = CachedNetwork(model.eval(), labels)
    for i in range(images.shape[2]):
        network.start_row(i)
        for j, pixel in enumerate(images[:, :, i].unbind(dim=2)):  # (B, 3)
            yield i, j, network.params(j)
            network.put(j, pixel)


def with_weights_of_now(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """The layer's convolution, without its padding, whose weight norm is worked out once, not at every use.

    `parametrize.cached()` would do that for all threads, and a model that trains in another one needs its new weights.
    """
    conv: Any = layer.conv
    weight = conv.weight.contiguous(memory_format=torch.channels_last)
    if isinstance(layer.conv, nn.ConvTranspose2d):
        return lambda x: F.conv_transpose2d(x, weight, conv.bias, conv.stride, conv.padding, conv.output_padding)
    return lambda x: F.conv2d(x, weight, conv.bias, conv.stride)


def put_concat_elu(x: Tensor, place: Tensor, halves: tuple[Tensor, ...]) -> None:
    """`concat_elu(x)`, written where it is read. x: (B, F, ...); place: (B, 2F, ...), and its two halves."""
    halves[0].copy_(x)
    torch.neg(x, out=halves[1])
    F.elu_(place)


class RowConv:
    """A down-shifted convolution that is fed row after row: `row` (B, C, 1, W) is where the next one is put, `above`
    the one before. Channels lie last in memory."""

    def __init__(self, layer: ShiftedConv2d, batch: int, width: int):
        self.conv, (left, right, _, _) = with_weights_of_now(layer), layer.padding
        rows = layer.conv.bias.new_zeros(batch, 2, left + width + right, layer.conv.in_channels)
        self.both = rows.permute(0, 3, 1, 2)  # (B, C, 2, left + W + right)
        self.above, self.row = self.both[..., left : left + width].split(1, dim=2)
        self.halves = self.row.chunk(2, dim=1)

    def __call__(self) -> Tensor:  # -> (B, C', 1, W / stride)
        out = self.conv(self.both)
        self.above.copy_(self.row)
        return out


class RowBlock:
    """A gated block of the u stream, a row at a time."""

    def __init__(self, block: GatedResidualBlock, modulation: Modulation | None, batch: int, width: int):
        self.conv_in, self.conv_out = (RowConv(conv, batch, width) for conv in (block.conv_in, block.conv_out))
        self.skip = None if block.skip is None else with_weights_of_now(block.skip)
        self.modulation = modulation

    def __call__(self, h: Tensor, skip: Tensor | None = None) -> Tensor:  # (B, F, 1, W) -> (B, F, 1, W)
        put_concat_elu(h, self.conv_in.row, self.conv_in.halves)
        c = self.conv_in()
        if self.skip is not None and skip is not None:
            c += self.skip(concat_elu(skip))
        put_concat_elu(c, self.conv_out.row, self.conv_out.halves)
        return h + F.glu(modulate(self.conv_out(), self.modulation), dim=1)


class PixelConv:
    """A 2x2 down-right-shifted convolution that is fed pixel after pixel: `pixels[j]` (B, C) is where the next one is
    put. Up to there the row holds this row's pixels, from there on still those of the row above, whose share
    `start_row` has already taken. The class may scale and shift what comes out (`modulation`).

    Slices are made once, in lists: at each pixel they would cost as much as the arithmetic.
    """

    def __init__(self, layer: ShiftedConv2d, batch: int, width: int, modulation: Modulation | None = None):
        conv = layer.conv
        self.bias, self.stride, self.modulation = conv.bias, conv.stride[0], modulation
        self.gain = None if modulation is None or modulation[0] is None else 1 + modulation[0]  # (B, C')
        upper, lower = conv.weight.split(1, dim=2)  # (C', C, 1, 2) each: left tap, right tap
        self.upper = upper.contiguous(memory_format=torch.channels_last)
        self.lower = lower.permute(2, 3, 1, 0).flatten(0, 2)  # (2C, C')
        row = lower.new_zeros(batch, width + 1, conv.in_channels)  # one column of padding at the left
        self.row, self.pixels = row.transpose(1, 2)[:, :, None], row.unbind(dim=1)[1:]  # (B, C, 1, W + 1); (B, C) each
        self.halves = [pixel.chunk(2, dim=1) for pixel in self.pixels]
        two = row.flatten(1).unfold(1, 2 * conv.in_channels, self.stride * conv.in_channels)  # (B, W / stride, 2C)
        self.taps = two.unbind(dim=1)

    def start_row(self, more: Tensor | None = None) -> None:  # more: of the output, (B, C', 1, W / stride)
        known = F.conv2d(self.row, self.upper, self.bias, self.stride)
        known = modulate(known if more is None else known + more, self.modulation)
        self.known = known[:, :, 0].unbind(dim=2)  # (B, C') each

    def at(self, j: int) -> Tensor:  # -> (B, C')
        known, taps = self.known[j // self.stride], self.taps[j // self.stride]
        if self.gain is None:
            return torch.addmm(known, taps, self.lower)
        return torch.addcmul(known, taps @ self.lower, self.gain)


class PixelBlock:
    """A gated block of the ul stream, a pixel at a time."""

    def __init__(self, block: GatedResidualBlock, modulation: Modulation | None, batch: int, width: int):
        self.conv_in = PixelConv(block.conv_in, batch, width)
        self.conv_out = PixelConv(block.conv_out, batch, width, modulation)
        assert block.skip is not None  # every ul block reads u
        # concat_elu of [u, ul skip] is [u, ul skip, -u, -ul skip]: take the channels apart
        parts = block.skip.conv.weight.split(block.conv_in.conv.out_channels, dim=1)
        half = len(parts) // 2
        self.from_u, self.skip_bias = torch.cat([parts[0], parts[half]], dim=1), block.skip.conv.bias  # (F, 2F, 1, 1)
        from_ul = torch.cat([parts[half - 1], parts[-1]], dim=1)[:, :, 0, 0]  # used on the way back only
        self.from_ul = from_ul.T.contiguous()  # (2F, F)

    def start_row(self, u: Tensor) -> None:  # u: (B, F, 1, W)
        self.conv_in.start_row(F.conv2d(concat_elu(u), self.from_u, self.skip_bias))
        self.conv_out.start_row()

    def __call__(self, j: int, h: Tensor, elu_of_skip: Tensor | None = None) -> Tensor:  # (B, F), (B, 2F) -> (B, F)
        put_concat_elu(h, self.conv_in.pixels[j], self.conv_in.halves[j])
        c = self.conv_in.at(j)
        if elu_of_skip is not None:
            c = torch.addmm(c, elu_of_skip, self.from_ul)
        put_concat_elu(c, self.conv_out.pixels[j], self.conv_out.halves[j])
        return h + F.glu(self.conv_out.at(j), dim=1)


class CachedNetwork:
    """`model` with a memory: `start_row(0)`, `params(0)`, `put(0, pixel)`, `params(1)`, ... , `start_row(1)`, ..."""

    def __init__(self, model: ConditionalPixelCNN, labels: Tensor):
        batch, width = len(labels), model.config.image_size
        self.model, self.labels, self.width = model, labels, width
        bias = model.head.conv.bias
        no_pixel = bias.new_zeros(batch, 3, width, width)
        self.early = model.fusion.add("x", no_pixel, labels).permute(2, 0, 3, 1)  # (H, B, W, 3)
        self.early_row = torch.zeros_like(self.early[0])  # (B, W, 3)
        self.row = bias.new_zeros(batch, width, 4)  # the colours of the current row, and ones
        self.pixels, self.colours = self.row.unbind(dim=1), self.row[:, :, :3].unbind(dim=1)

        self.u_first = RowConv(model.u_first, batch, width)
        self.ul_first_above = with_weights_of_now(model.ul_first_above)
        self.left_weight = model.ul_first_left.conv.weight[:, :, :, 0]  # (F, 4, 2): above, here
        self.here = self.left_weight[:, :, 1].T.contiguous()  # (4, F)
        modulations = iter(model.fusion.modulations(labels))

        def blocks(pairs, width):
            size = batch, width
            return [
                (RowBlock(p.u, next(modulations), *size), PixelBlock(p.ul, next(modulations), *size)) for p in pairs
            ]

        self.down_blocks = [blocks(model.down_blocks[s], width >> s) for s in range(NR_SCALES)]
        up_blocks = [blocks(model.up_blocks[s], width >> s) for s in reversed(range(NR_SCALES))]
        self.up_blocks = up_blocks[::-1]
        self.down_convs = [
            (RowConv(conv["u"], batch, width >> s), PixelConv(conv["ul"], batch, width >> s))
            for s, conv in enumerate(model.down_convs)
        ]
        nr_filters = model.config.nr_filters
        # what the coarser scale last sent up: two rows of u, two rows of ul that fill two columns at a time
        self.u_up = [bias.new_zeros(batch, nr_filters, 2, width >> s) for s in range(NR_SCALES - 1)]
        self.ul_up = [bias.new_zeros(batch, 2, width >> s, nr_filters) for s in range(NR_SCALES - 1)]
        self.ul_up_pixels = [[row.unbind(dim=1) for row in up.unbind(dim=1)] for up in self.ul_up]  # (B, F) each
        self.u_up_convs = [with_weights_of_now(conv["u"]) for conv in model.up_convs]
        self.up_weights = [conv["ul"].conv.weight.permute(0, 2, 3, 1).flatten(1) for conv in model.up_convs]
        self.up_biases = [conv["ul"].conv.bias for conv in model.up_convs]
        no_feature = bias.new_zeros(batch, nr_filters, 1, 1)
        self.middle = model.fusion.add("ul_middle", no_feature, labels).flatten(1)  # (B, F)
        self.head = model.head.conv.weight[:, :, 0, 0].T.contiguous()  # (F, 10K)
        late = model.fusion.add("params", bias.new_zeros(batch, len(bias), 1, 1), labels).flatten(1)
        self.head_bias = bias + late  # (B, 10K)

    def start_row(self, i: int) -> None:
        """Brings the u stream to row i, and readies the ul stream for the row's pixels."""
        self.place(i)
        self.advance()

    def place(self, i: int) -> None:
        """What differs between rows of one kind: where they are."""
        self.i = i
        self.early_row.copy_(self.early[i])

    def advance(self) -> None:
        """What rows of one kind have in common."""
        i = self.i
        above = self.row.clone().transpose(1, 2)[:, :, None]  # (B, 4, 1, W): the picture's row i - 1
        self.row[:, :, 3] = 1
        self._first_features(i, above)

        u, rows = self.u0, []
        for s, blocks in enumerate(self.down_blocks):
            if s > 0:
                u_conv, ul_conv = self.down_convs[s - 1]
                if (i >> (s - 1)) % 2:  # an odd row leaves the coarser scale as it is
                    u_conv.above.copy_(u)
                    break
                u_conv.row.copy_(u)
                u = u_conv()
                ul_conv.start_row()
            rows.append([u])
            for u_block, ul_block in blocks:
                u = u_block(u)
                ul_block.start_row(u)
                rows[s].append(u)

        for s in reversed(range(len(rows))):
            if s == NR_SCALES - 1:
                u = self.model.fusion.add("u_middle", rows[s].pop(), self.labels)
            else:
                u = self.u_up[s][:, :, (i >> s) % 2, None]
            for u_block, ul_block in self.up_blocks[s]:
                u = u_block(u, rows[s].pop())
                ul_block.start_row(u)
            if s > 0:
                self.u_up[s - 1].copy_(self.u_up_convs[s - 1](u))  # (B, F, 2, 2W)

    def _first_features(self, i: int, above: Tensor) -> None:
        """u0 of the row, and all of ul0 but what comes from the pixel at the left."""
        model, y = self.model, self.labels
        left_bias = model.ul_first_left.conv.bias[:, None]
        from_above_left = self.left_weight[:, :, 0] @ above[:, :, 0, :-1] + left_bias  # (B, F, W - 1)
        ul0 = F.pad(from_above_left, (1, 0))[:, :, None]  # (B, F, 1, W)
        if i == 0:
            u0 = torch.zeros_like(ul0)
        else:
            self.u_first.row.copy_(above)
            u0 = self.u_first()
            left, right, _, _ = model.ul_first_above.padding
            ul0 = ul0 + self.ul_first_above(F.pad(above, (left, right)))
        self.u0 = model.fusion.add("u0", u0, y)
        ul0 = model.fusion.add("ul0", ul0, y)[:, :, 0].transpose(1, 2).contiguous()  # (B, W, F)
        self.ul0 = ul0.unbind(dim=1)

    def params(self, j: int) -> Tensor:
        """The mixture of pixel (i, j), given the pixels put so far: (B, 10K)."""
        i = self.i
        ul = torch.addmm(self.ul0[j], self.pixels[j - 1], self.here) if j > 0 else self.ul0[0]

        elus: list[list[Tensor]] = []  # concat_elu of what is read once more on the way back
        for s, blocks in enumerate(self.down_blocks):
            if s > 0:
                _, ul_conv = self.down_convs[s - 1]
                ul_conv.pixels[j >> (s - 1)].copy_(ul)
                if (i >> (s - 1)) % 2 or (j >> (s - 1)) % 2:
                    break
                ul = ul_conv.at(j >> (s - 1))
            elus.append([])
            for _, ul_block in blocks:
                ul = ul_block(j >> s, ul)
                elus[s].append(ul_block.conv_in.pixels[j >> s])
            if s < NR_SCALES - 1:
                elus[s].append(concat_elu(ul))

        for s in reversed(range(len(elus))):
            at_bottleneck = s == NR_SCALES - 1
            ul = ul + self.middle if at_bottleneck else self.ul_up_pixels[s][(i >> s) % 2][j >> s]
            for _, ul_block in self.up_blocks[s]:
                ul = ul_block(j >> s, ul, elus[s].pop())
            if s > 0:
                four = (ul @ self.up_weights[s - 1]).view(len(ul), 2, 2, -1) + self.up_biases[s - 1]
                left = 2 * (j >> s)
                self.ul_up[s - 1][:, :, left : left + 2] = four
        return torch.addmm(self.head_bias, F.elu(ul), self.head)

    def put(self, j: int, pixel: Tensor) -> None:
        """Tells the colours (B, 3) of pixel (i, j)."""
        torch.add(pixel, self.early_row[:, j], out=self.colours[j])
