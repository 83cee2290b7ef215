"""The class-conditional PixelCNN++.

Two streams run through a U of three scales. The u stream knows the rows above a pixel, the ul stream also
knows what lies to the left; ul reads u, never the other way round, and the answer is read from ul:

    32x32   u, ul  blocks ─────────── skips ───────────►  blocks ── params
              │ stride 2                                   ▲
    16x16   blocks ────────────────── skips ──────────►  blocks
              │ stride 2                                   ▲ transposed
     8x8    blocks ── class enters ── skips ──────────►  blocks
"""

from dataclasses import asdict, dataclass, fields
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import UsageError
from .fusion import Fusion, parse_sites
from .layers import (
    DownRightShiftedConv2d,
    DownRightShiftedConvTranspose2d,
    DownShiftedConv2d,
    DownShiftedConvTranspose2d,
    GatedResidualBlock,
    PointwiseConv2d,
)

NR_SCALES = 3
# keep a forged checkpoint from asking for all memory
LIMITS = {"num_classes": 1000, "nr_resnet": 16, "nr_filters": 512, "nr_logistic_mix": 100, "image_size": 256}


@dataclass(frozen=True)
class ModelConfig:
    """What a network is made of. The names are those of the original code's flags.

    Args:
        num_classes: C, labels are 0 ... C-1.
        nr_resnet: gated blocks per stage and stream (one more in the two finer stages on the way back).
        nr_filters: F, channels of each stream.
        nr_logistic_mix: K, logistics per pixel.
        image_size: height and width, divisible by 4.
        dropout: probability, inside each gated block.
        fusion: sites where the class enters, `early`, `upstream`, `middle`, `late`, `blocks` and `film`, joined by
            commas; or `none`, `report` (the first four), `all`.

    Raises:
        UsageError: a value is out of range.
    """

    num_classes: int
    nr_resnet: int = 2
    nr_filters: int = 100
    nr_logistic_mix: int = 5
    image_size: int = 32
    dropout: float = 0.5
    fusion: tuple[str, ...] = ("early", "upstream", "middle", "late")

    def __post_init__(self):
        for name, most in LIMITS.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise UsageError(f"{name} must be a whole number from 1 to {most}, not {value!r}")
        if self.image_size % 4:
            raise UsageError(f"image_size must be divisible by 4, not {self.image_size}")
        if not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            raise UsageError(f"dropout must be at least 0 and less than 1, not {self.dropout!r}")
        object.__setattr__(self, "fusion", parse_sites(self.fusion))

    def to_dict(self) -> dict:
        return asdict(self) | {"fusion": list(self.fusion)}

    @classmethod
    def from_dict(cls, values: dict) -> "ModelConfig":
        """The config that `to_dict` described. Raises UsageError for anything else."""
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            raise UsageError(f"a model's config has the fields {', '.join(sorted(names))}")
        return cls(**values)


class BlockPair(nn.Module):
    """A gated block of the u stream and one of the ul stream, which reads the u stream's output."""

    def __init__(self, nr_filters: int, dropout: float, on_the_way_back: bool):
        super().__init__()
        back = int(on_the_way_back)
        self.u = GatedResidualBlock(DownShiftedConv2d, nr_filters, back, dropout)
        self.ul = GatedResidualBlock(DownRightShiftedConv2d, nr_filters, 1 + back, dropout)

    def forward(self, u, ul, u_skip, ul_skip, u_modulation, ul_modulation):
        u = self.u(u, u_skip, u_modulation)
        ul = self.ul(ul, u if ul_skip is None else torch.cat([u, ul_skip], dim=1), ul_modulation)
        return u, ul


class ConditionalPixelCNN(nn.Module):
    """PixelCNN++ that is told a class: `model(x, y)` gives each pixel's mixture given what came before it.

    Parameter layout of the output, along its 10 K channels: K mixture logits; then for each of R, G, B:
    K means, K log-scales, K coefficients (see `mixture`).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.class_names = tuple(str(label) for label in range(config.num_classes))  # training gives better ones
        nr_filters, nr_resnet = config.nr_filters, config.nr_resnet
        nr_params, both = 10 * config.nr_logistic_mix, (nr_filters, nr_filters)  # channels in and out

        self.u_first = DownShiftedConv2d(4, nr_filters, (2, 3))  # 4: colours, and ones, which no padding has
        self.ul_first_above = DownShiftedConv2d(4, nr_filters, (1, 3))
        self.ul_first_left = DownRightShiftedConv2d(4, nr_filters, (2, 1))

        def stage(nr_blocks, back):
            return nn.ModuleList(BlockPair(nr_filters, config.dropout, back) for _ in range(nr_blocks))

        def between(u_layer, ul_layer):
            pairs = ((u_layer(*both), ul_layer(*both)) for _ in range(NR_SCALES - 1))
            return nn.ModuleList(nn.ModuleDict({"u": u, "ul": ul}) for u, ul in pairs)

        # index s of each list: scale s, pictures of image_size / 2**s
        self.down_blocks = nn.ModuleList(stage(nr_resnet, back=False) for _ in range(NR_SCALES))
        self.down_convs = between(partial(DownShiftedConv2d, stride=2), partial(DownRightShiftedConv2d, stride=2))
        self.up_blocks = nn.ModuleList(stage(nr_resnet + (s < NR_SCALES - 1), back=True) for s in range(NR_SCALES))
        self.up_convs = between(DownShiftedConvTranspose2d, DownRightShiftedConvTranspose2d)
        self.head = PointwiseConv2d(nr_filters, nr_params, init_scale=0.1)

        nr_blocks = sum(isinstance(m, GatedResidualBlock) for m in self.modules())
        self.fusion = Fusion(config.fusion, config.num_classes, nr_filters, nr_blocks, nr_params, config.image_size)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x: float (B, 3, H, W) in [-1, 1]; y: int64 (B,) -> params (B, 10K, H, W)."""
        modulations = iter(self.fusion.modulations(y))
        x = self.fusion.add("x", x, y)
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)  # (B, 4, H, W)

        u = down_shift(self.u_first(x))  # (B, F, H, W)
        ul = down_shift(self.ul_first_above(x)) + right_shift(self.ul_first_left(x))
        u, ul = self.fusion.add("u0", u, y), self.fusion.add("ul0", ul, y)

        skips = [(u, ul)]  # everything made on the way down is read once on the way back
        for scale in range(NR_SCALES):
            for pair in self.down_blocks[scale]:  # type: ignore[attr-defined]
                u, ul = pair(u, ul, None, None, next(modulations), next(modulations))
                skips.append((u, ul))
            if scale < NR_SCALES - 1:
                u, ul = self.down_convs[scale]["u"](u), self.down_convs[scale]["ul"](ul)  # (B, F, H/2, W/2)
                skips.append((u, ul))

        u, ul = skips.pop()
        u, ul = self.fusion.add("u_middle", u, y), self.fusion.add("ul_middle", ul, y)

        for scale in reversed(range(NR_SCALES)):
            for pair in self.up_blocks[scale]:  # type: ignore[attr-defined]
                u, ul = pair(u, ul, *skips.pop(), next(modulations), next(modulations))
            if scale > 0:
                up = self.up_convs[scale - 1]
                u, ul = up["u"](u), up["ul"](ul)  # (B, F, 2H, 2W)

        with torch.autocast(x.device.type, enabled=False):  # bfloat16 cannot tell two neighbouring levels apart
            params = self.head(F.elu(ul).to(x.dtype))
        return self.fusion.add("params", params, y)  # (B, 10K, H, W)


def down_shift(x: Tensor) -> Tensor:
    """Every row moves one down; zeros come in at the top. (B, C, H, W) -> the same."""
    return F.pad(x[:, :, :-1], (0, 0, 1, 0))


def right_shift(x: Tensor) -> Tensor:
    """Every column moves one to the right; zeros come in at the left. (B, C, H, W) -> the same."""
    return F.pad(x[:, :, :, :-1], (1, 0))
