"""Where and how a class enters the network.

Every site is a linear map of the one-hot label, which is the look-up of one row per class: an `nn.Embedding`.
All start at zero, so a fresh network does not know the classes and learns each site from its own gradient.

| site       | what becomes                            | rows of                                  |
|------------|-----------------------------------------|------------------------------------------|
| `early`    | x + e0                                  | 3 x H x W, a picture                     |
| `upstream` | u0 + e1, ul0 + e2                       | F each, after the first convolutions     |
| `middle`   | u + e3, ul + e4 at the bottleneck       | F each                                   |
| `late`     | params + e5                             | 10 K, the output itself                  |
| `blocks`   | c + b before each block's gate          | 2F for each block                        |
| `film`     | c * (1 + s) + t before each block's gate | 2 x 2F for each block                    |

The first four are Table 1 of the report this kit starts from; `blocks` is the conditioning of the original
PixelCNN++ code (van den Oord et al. 2016, equation 5), `film` that of Perez et al. 2018.
"""

import torch
from torch import Tensor, nn

from . import UsageError
from .layers import Modulation

SITES = ("early", "upstream", "middle", "late", "blocks", "film")
PRESETS = {"none": (), "report": SITES[:4], "all": SITES}


def parse_sites(sites: str | list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """`"report"`, `"blocks,late"` or a sequence of sites -> the sites, each once, in the order of `SITES`."""
    names = sites.split(",") if isinstance(sites, str) else list(sites)
    chosen: set[str] = set()
    for name in names:
        name = name.strip() if isinstance(name, str) else name
        if name in PRESETS:
            chosen.update(PRESETS[name])
        elif name in SITES:
            chosen.add(name)
        else:
            presets = f"or a preset: {', '.join(PRESETS)}; several are joined by commas"
            raise UsageError(f"unknown fusion site {name!r}: choose from {', '.join(SITES)}, {presets}")
    return tuple(site for site in SITES if site in chosen)


class Fusion(nn.Module):
    """The learned maps of the label, for the chosen sites.

    Args:
        nr_blocks: how many gated blocks the network has, both streams counted.
    """

    def __init__(self, sites: tuple[str, ...], num_classes, nr_filters, nr_blocks, nr_params, image_size):
        super().__init__()
        self.nr_blocks = nr_blocks
        sizes = {}
        if "early" in sites:
            sizes["x"] = 3 * image_size * image_size
        if "upstream" in sites:
            sizes |= {"u0": nr_filters, "ul0": nr_filters}
        if "middle" in sites:
            sizes |= {"u_middle": nr_filters, "ul_middle": nr_filters}
        if "late" in sites:
            sizes["params"] = nr_params
        if "blocks" in sites:
            sizes["bias"] = nr_blocks * 2 * nr_filters
        if "film" in sites:
            sizes |= {"scale": nr_blocks * 2 * nr_filters, "shift": nr_blocks * 2 * nr_filters}
        self.maps = nn.ModuleDict()
        for name, size in sizes.items():
            self.maps[name] = nn.Embedding(num_classes, size, _weight=torch.zeros(num_classes, size))

    def add(self, where: str, h: Tensor, y: Tensor) -> Tensor:
        """h + e(y), in the precision of h, if the map called `where` exists, else h. h: (B, C, H, W), y: (B,)."""
        if where not in self.maps:
            return h
        e = self.maps[where](y).to(h.dtype)  # (B, C H W) for the picture-sized map, else (B, C)
        if where == "x":
            return h + e.view(len(y), 3, h.shape[-2], h.shape[-1])
        return h + e[:, :, None, None]

    def modulations(self, y: Tensor) -> list[Modulation | None]:
        """For each gated block (scale or None, shift), each (B, 2F); None where no site reaches the blocks."""
        found = {
            name: torch.chunk(self.maps[name](y), self.nr_blocks, dim=1)
            for name in ("bias", "scale", "shift")
            if name in self.maps
        }
        if not found:
            return [None] * self.nr_blocks
        shifts = [sum(parts) for parts in zip(*(found[n] for n in ("bias", "shift") if n in found), strict=True)]
        scales = found.get("scale", [None] * self.nr_blocks)
        return list(zip(scales, shifts, strict=True))
