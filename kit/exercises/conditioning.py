"""The exercises of notebook 03: the gate, FiLM, the gated block, the class's tables, the U's forward pass."""

import contextlib
import copy
import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.fusion import PRESETS, SITES
from utils.fusion import Fusion as KitFusion
from utils.layers import DownRightShiftedConv2d, DownShiftedConv2d, concat_elu, modulate
from utils.layers import GatedResidualBlock as KitBlock
from utils.model import ConditionalPixelCNN, ModelConfig

from . import Exercise, blank, difference, no_number, wrong_shape
from .pieces import Piece
from .solutions import conditioning as solutions

TABLES = {  # of each site, by their names in `Fusion.maps`
    "early": ("x",),
    "upstream": ("u0", "ul0"),
    "middle": ("u_middle", "ul_middle"),
    "late": ("params",),
    "blocks": ("bias",),
    "film": ("scale", "shift"),
}


ADDED = [name for site in SITES[:4] for name in TABLES[site]]  # the tables that `Fusion.add` knows


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def likeliest_mistake(value: Tensor, expected: Tensor, mistakes: dict[str, Tensor]) -> str | None:
    """The sentence of the mistake that gives this value, else where it differs from what is expected; None if right."""
    problem = difference(value, expected)
    if problem is None or not isinstance(value, Tensor):
        return problem
    same = (text for text, wrong in mistakes.items() if difference(value, wrong) is None)
    return next(same, problem)


class Gate(Exercise):
    """a * sigmoid(b), where a is the first half of the channels and b the second."""

    hints = ("c.chunk(2, dim=1) gives the two halves of the channels; the sigmoid belongs on the second.",)
    name = "gate"

    @staticmethod
    def answer(c):
        a, b = c.chunk(2, dim=1)
        return a * torch.sigmoid(b)

    def problem(self, attempt) -> str | None:
        for nr_filters, (height, width) in [(3, (4, 5)), (1, (2, 2)), (4, (1, 3))]:
            c = randn(2, 2 * nr_filters, height, width)
            before = c.clone()
            out = attempt(c)
            if sentence := blank(out) or wrong_shape(out, (2, nr_filters, height, width)):
                return sentence
            if not torch.equal(c, before):
                return "c itself was changed; make a new tensor, the caller still needs c."
            a, b = before[:, :nr_filters], before[:, nr_filters:]
            evens, odds = before[:, ::2], before[:, 1::2]
            mistakes = {
                "the halves are swapped: the sigmoid belongs on the second half, b.": b * torch.sigmoid(a),
                "the sigmoid is missing: a was multiplied by b itself, which can be any number.": a * b,
                "a went through a tanh: van den Oord et al. 2016 do that, PixelCNN++ leaves a as it is.": (
                    torch.tanh(a) * torch.sigmoid(b)
                ),
                "the channels were split into even and odd ones; a is the first half.": evens * torch.sigmoid(odds),
            }
            if sentence := likeliest_mistake(out, a / (1 + torch.exp(-b)), mistakes):
                return sentence
        return None


class Film(Exercise):
    """c * (1 + scale) + shift, one scale and one shift for each picture and channel."""

    hints = ("scale[:, :, None, None] is (B, 2F, 1, 1), which broadcasts over the pixels. Mind the 1 +.",)
    name = "film"

    @staticmethod
    def answer(c, scale, shift):
        return c * (1 + scale[:, :, None, None]) + shift[:, :, None, None]

    def problem(self, attempt) -> str | None:
        for batch, channels in [(3, 6), (2, 8)]:
            c, scale, shift = randn(batch, channels, 4, 5), randn(batch, channels), randn(batch, channels)
            zero = torch.zeros_like(scale)
            untouched = attempt(c.clone(), zero, zero)
            if sentence := blank(untouched) or wrong_shape(untouched, tuple(c.shape)):
                return sentence
            if difference(untouched, c):
                return (
                    "with scale and shift all 0 the features should pass unchanged, but they do not: "
                    "the factor is 1 + scale, so that tables that start at zero do nothing."
                )
            s, t = scale[:, :, None, None], shift[:, :, None, None]
            mistakes = {
                "the scale has no effect.": c + t,
                "the shift has no effect.": c * (1 + s),
                "the shift was scaled too: scale the features first, then add the shift.": (c + t) * (1 + s),
                "scale and shift have changed places.": c * (1 + t) + s,
                "every picture got the scale and shift of picture 0.": c * (1 + s[:1]) + t[:1],
            }
            if sentence := likeliest_mistake(attempt(c.clone(), scale, shift), c * (1 + s) + t, mistakes):
                return sentence
        return None


class SiteParameters(Exercise):
    """How many parameters a fusion site has in a network of a given config."""

    hints = (
        "Every table has one row per class, so multiply by config.num_classes. How long is a row?",
        "upstream and middle have a table for each stream. blocks has 2F numbers for each gated block, film twice 2F.",
        "Pairs: nr_resnet at each of three scales on the way down, as many on the way back, and one more at each of "
        "the two finer scales there: 6 * nr_resnet + 2. A pair is two gated blocks.",
    )
    name = "site_parameters"

    @staticmethod
    def answer(site, config):
        nr_filters, nr_blocks = config.nr_filters, 2 * (6 * config.nr_resnet + 2)
        row = {
            "early": 3 * config.image_size**2,
            "upstream": 2 * nr_filters,
            "middle": 2 * nr_filters,
            "late": 10 * config.nr_logistic_mix,
            "blocks": nr_blocks * 2 * nr_filters,
            "film": 2 * nr_blocks * 2 * nr_filters,
        }
        return config.num_classes * row[site]

    def problem(self, attempt) -> str | None:
        nr_classes, nr_filters, nr_mix = torch.randint(5, 30, (3,)).tolist()
        for values in [(4, 1, 3, 2, 8), (7, 2, 5, 3, 12), (nr_classes, 3, nr_filters, nr_mix, 16)]:
            config = ModelConfig(*values, 0.0, SITES)
            for site in SITES:
                if sentence := self._wrong_number(attempt(site, config), self.answer(site, config), site, config):
                    return sentence
        return None

    @staticmethod
    def _wrong_number(said, true: int, site: str, config: ModelConfig) -> str | None:
        if (sentence := no_number(said)) or float(said) == true:
            return sentence
        where = (
            f"site '{site}' of a network with {config.num_classes} classes, {config.nr_filters} filters, nr_resnet "
            f"{config.nr_resnet}, {config.nr_logistic_mix} mixtures and pictures of {config.image_size}x"
            f"{config.image_size} has {true} parameters, not {said}"
        )
        if said * config.num_classes == true:
            return f"{where}: that is the row of one class, and every class has its own."
        if said * 2 == true and site in ("upstream", "middle", "blocks"):
            return f"{where}: half of them are missing. Count both streams, u and ul, and 2F for each gate."
        if said * 2 == true and site == "film":
            return f"{where}: half of them are missing. It has a scale and a shift."
        if site in ("blocks", "film"):
            return (
                f"{where}: there are {12 * config.nr_resnet + 4} gated blocks, each with 2F = {2 * config.nr_filters}."
            )
        return f"{where}."


class RelabelLate(Exercise):
    """The parameters under other labels, without running a `late` network again."""

    hints = (
        "The output is f(x) + table[label]. Take the old rows away and add the new ones, at every pixel alike. "
        "What follows the other sites is not linear, so their share cannot be taken out again.",
    )
    name = "relabel_late"

    @staticmethod
    def answer(params, table, old, new):
        return params + (table[new] - table[old])[:, :, None, None]

    def problem(self, attempt) -> str | None:
        with torch.no_grad():
            network = filled(ModelConfig(4, 1, 4, 1, 8, 0.0, ("late",)))
            table = network.get_parameter("fusion.maps.params.weight")
            x, old, new = pictures(3, 8), torch.tensor([0, 1, 3]), torch.tensor([2, 2, 0])
            before, true = network(x, old), network(x, new)
            out = attempt(before.clone(), table.clone(), old, new)
            rows_old, rows_new = table[old][:, :, None, None], table[new][:, :, None, None]
            mistakes = {
                "the parameters are still those of the old labels.": before,
                "the rows of the old labels are still in there; take them away as well.": before + rows_new,
                "the sign is wrong: take the old rows away and add the new ones.": before + rows_old - rows_new,
                "every picture got the rows of picture 0's labels.": before + rows_new[:1] - rows_old[:1],
            }
            return likeliest_mistake(out, true, mistakes)


def filled(config: ModelConfig, dtype: torch.dtype = torch.float64) -> ConditionalPixelCNN:
    """A network in which no bias and no table of a class is zero."""
    network = ConditionalPixelCNN(config)
    for name, weight in network.named_parameters():
        if name.endswith("bias") or name.startswith("fusion."):
            nn.init.normal_(weight, std=0.5)
    return network.to(dtype).eval()


def pictures(count: int, size: int) -> Tensor:
    return torch.rand(count, 3, size, size, dtype=torch.float64) * 2 - 1


def twins(mine, theirs) -> tuple[Any, Any]:
    """The reader's module and the kit's with the same weights, none of which is special, in float64 and eval mode."""
    for weight in theirs.parameters():
        nn.init.normal_(weight)
    mine.load_state_dict(theirs.state_dict())
    return mine.double().eval(), theirs.double().eval()


def other_gradient(mine: Tensor, theirs: Tensor, of: dict[str, Tensor]) -> str | None:
    """The sentence for two outputs that are equal, but whose gradients are not; None if these are equal too."""
    each = (torch.autograd.grad(out.square().mean(), [*of.values()], materialize_grads=True) for out in (mine, theirs))
    for name, a, b in zip(of, *each, strict=True):
        if difference(a, b):
            return f"the output is right, but not the gradient that {name} gets. Is something detached on the way?"
    return None


def other_parameters(mine: nn.Module, theirs: nn.Module) -> str | None:
    """Where the names and shapes of the parameters differ, so that weights of one do not fit the other."""
    of_mine, of_theirs = (
        {name: tuple(weight.shape) for name, weight in module.state_dict().items()} for module in (mine, theirs)
    )
    has, should = (
        ", ".join(dict.fromkeys(re.sub(r"\.conv\..*|\.weight$|\.bias$", "", name) for name in names)) or "nothing"
        for names in (of_mine, of_theirs)
    )
    parts = f"there should be {should}, but there is {has}." if has != should else "is it the layer that is asked for?"
    for name in [*of_theirs, *of_mine]:
        if name not in of_mine:
            return f"there is no parameter {name}; {parts}"
        if name not in of_theirs:
            return f"the parameter {name} should not be there; {parts}"
        if of_mine[name] != of_theirs[name]:
            return f"the parameter {name} has the shape {of_mine[name]}, but it should be {of_theirs[name]}."
    return None


class GatedResidualBlock(Piece):
    """The block that the network is made of."""

    hints = (
        "__init__ makes four parts: conv_in, skip, dropout, conv_out. Every convolution reads concat_elu of something, "
        "so it has twice as many input channels as that has. In forward follow one picture: which number of channels "
        "does it have after each line?",
        "conv_in: 2F -> F. skip: 2 * nr_skips * F -> F, or None. conv_out: 2F -> 2F, for its output is a and b. The "
        "skip is added after conv_in; dropout comes right before conv_out; modulate right after it; the gate is last.",
        "c = conv_in(concat_elu(h)); if there is a skip, c = c + self.skip(concat_elu(skip)); "
        "c = conv_out(dropout(concat_elu(c))); c = modulate(c, modulation); return h + the gate of c's two halves.",
    )
    answer = staticmethod(solutions.GatedResidualBlock)
    kit = "utils.layers.GatedResidualBlock"

    @staticmethod
    def _pair(attempt, conv=DownShiftedConv2d, nr_filters=3, nr_skips=0, dropout=0.0):
        return twins(*(make(conv, nr_filters, nr_skips, dropout) for make in (attempt, KitBlock)))

    def parts(self, attempt) -> str | None:
        for conv, nr_skips in itertools.product((DownShiftedConv2d, DownRightShiftedConv2d), (0, 1, 2)):
            mine, theirs = (make(conv, 3, nr_skips, 0.25) for make in (attempt, KitBlock))
            if sentence := other_parameters(mine, theirs):
                return f"conv = {conv.__name__}, nr_filters = 3, nr_skips = {nr_skips}: {sentence}"
            if not nr_skips and getattr(mine, "skip", 0) is not None:
                return "with nr_skips = 0 the attribute skip must be None."
            for name, part in theirs.named_children():
                scale = getattr(getattr(mine, name, None), "init_scale", None)
                if scale != getattr(part, "init_scale", None):
                    return f"{name}.init_scale is {scale}, but it should be {part.init_scale}."
        return None

    def shapes(self, attempt) -> str | None:
        for nr_skips in (0, 1, 2):
            block, h = self._pair(attempt, nr_filters=4, nr_skips=nr_skips)[0], randn(2, 4, 6, 5)
            out = block(h, randn(2, nr_skips * 4, 6, 5)) if nr_skips else block(h)
            if sentence := blank(out) or wrong_shape(out, (2, 4, 6, 5)):
                return f"h of shape (2, 4, 6, 5), nr_skips = {nr_skips}: {sentence}"
        return None

    def by_hand(self, attempt) -> str | None:
        block, h = self._pair(attempt, nr_filters=2)[0], randn(1, 2, 3, 3)
        for a, b, modulation, change in [
            (0.0, 2.0, None, 0.0),
            (2.0, 0.0, None, 1.0),
            (2.0, 0.0, (None, torch.tensor([[4.0, 4.0, 0.0, 0.0]]).double()), 3.0),
            (2.0, 0.0, (torch.full((1, 4), 2.0).double(), torch.zeros(1, 4).double()), 3.0),
        ]:
            with torch.no_grad():
                block.conv_out.conv.parametrizations.weight.original0.zero_()
                block.conv_out.conv.bias.copy_(torch.tensor([a, a, b, b]))
            given = h.clone()
            out = block(given, modulation=modulation)
            if difference(given, h):
                return "h itself was changed; make a new tensor, h is also a skip."
            scale, shift = (each if each is None else each[0].tolist() for each in modulation or (None, None))
            told = "" if modulation is None else f", scale {scale} and shift {shift}"
            mistakes = {
                "h was not added: the block is residual, it returns h + a * sigmoid(b).": h * 0 + change,
                "the halves are swapped: a is the first half, the sigmoid belongs on the second.": (
                    h + b / (1 + math.exp(-a))
                ),
                "the modulation does not act on a and b; it belongs right after conv_out, before the gate.": h + a / 2,
            }
            if modulation is None:
                mistakes["a went through a tanh: van den Oord et al. 2016 do that, PixelCNN++ leaves a as it is."] = (
                    h + math.tanh(a) * change / (a or 1)
                )
            if sentence := likeliest_mistake(out, h + change, mistakes):
                where = f"conv_out made to return a = {a:g} and b = {b:g} everywhere{told}: h + {change:g} is expected"
                return f"{where}; {sentence}"
        return None

    def way_of_a_picture(self, attempt) -> str | None:
        for nr_skips in (0, 1, 2):
            block, kit = self._pair(attempt, nr_skips=nr_skips)
            h, skip = randn(2, 3, 5, 5), randn(2, 3 * nr_skips, 5, 5) if nr_skips else None
            for told in (None, (randn(2, 6), randn(2, 6))):
                problem = likeliest_mistake(
                    block(h, skip, told), kit(h, skip, told), self._mistakes(kit, h, skip, told)
                )
                if problem:
                    modulated = "" if told is None else ", with a modulation"
                    return f"nr_skips = {nr_skips}{modulated}: {problem}"
        return None

    @staticmethod
    def _mistakes(kit: nn.Module, h: Tensor, skip: Tensor | None, told) -> dict[str, Tensor]:
        def plain(x: Tensor) -> Tensor:
            return torch.cat([x, -x], dim=1)

        def run(first=concat_elu, of_skip=concat_elu, second=concat_elu) -> Tensor:
            c = kit.conv_in(first(h)) + (0 if skip is None else kit.skip(of_skip(skip)))  # type: ignore[operator]
            return h + F.glu(modulate(kit.conv_out(second(c)), told), dim=1)  # type: ignore[operator]

        found = {
            "h goes into conv_in without the ELU.": run(first=plain),
            "conv_out's input lacks its ELU.": run(second=plain),
        }
        if skip is not None:
            found["the skip is ignored; it is added to what conv_in returns."] = kit(h, None, told)
            found["the skip goes into its 1x1 convolution without the ELU."] = run(of_skip=plain)
        return found

    def dropped(self, attempt) -> str | None:
        for p in (0.25, 0.5):
            block = self._pair(attempt, nr_filters=32, dropout=p)[0]
            seen: list[Tensor] = []
            block.conv_out.register_forward_pre_hook(lambda _layer, given, seen=seen: seen.append(given[0]))
            h = randn(2, 32, 6, 6)
            block.eval()(h), block.train()(h)
            if len(seen) != 2:
                return f"conv_out was called {len(seen) / 2:g} times in one pass; call it once, as self.conv_out(...)."
            if (seen[0] == 0).any():
                return f"with dropout = {p} numbers are dropped in eval mode too."
            factor = seen[1] / seen[0]  # of each of conv_out's inputs: what training makes of it
            dropped = factor == 0
            share, kept = float(dropped.double().mean()), factor[~dropped]
            right = torch.full_like(kept, 1 / (1 - p))
            rule = f"{p:.0%} should be 0 and the others {1 / (1 - p):.3g} times what they are in eval mode"
            told = f"with dropout = {p}, in training, of what conv_out reads {rule}"
            if not difference(factor, torch.ones_like(factor)):
                return f"{told}; none is changed. Dropout belongs right before conv_out."
            if difference(kept, kept.mean().expand_as(kept)):
                return f"{told}; not all have one factor. Is something earlier dropped?"
            if torch.equal(dropped.flatten(2).any(dim=2), dropped.flatten(2).all(dim=2)):
                return "whole channels are 0; dropout decides for each number on its own."
            if abs(share - p) > 0.1 or difference(kept, right):
                return f"{told}; {share:.0%} are 0. Is that the given probability?"
        return None

    def causal(self, attempt) -> str | None:
        block, size = self._pair(attempt, DownRightShiftedConv2d, nr_skips=1)[0], 5
        h = randn(1, 3, size, size).repeat(size**2, 1, 1, 1).requires_grad_()
        out = (block(h, h) * randn(3)[:, None, None]).sum(dim=1).flatten(1)  # (size^2, size^2)
        (gradient,) = torch.autograd.grad(out.diagonal().sum(), h)
        for i, j in itertools.product(range(size), repeat=2):
            seen = gradient[i * size + j].any(dim=0)
            seen[: i + 1, : j + 1] = False
            if seen.any():
                k, l = seen.nonzero()[0].tolist()  # noqa: E741
                return f"with DownRightShiftedConv2d, output ({i}, {j}) sees ({k}, {l}), which is right of it or below."
        return None

    def equal(self, attempt) -> str | None:
        for conv, nr_skips in itertools.product((DownShiftedConv2d, DownRightShiftedConv2d), (0, 1, 2)):
            nr_filters, batch, height, width = (int(n) for n in torch.randint(2, 6, (4,)))
            mine, kit = self._pair(attempt, conv, nr_filters, nr_skips, 0.5)
            h, shift = randn(batch, nr_filters, height, width).requires_grad_(), randn(batch, 2 * nr_filters)
            skip = randn(batch, nr_skips * nr_filters, height, width).requires_grad_() if nr_skips else None
            for told in (None, (None, shift), (randn(batch, 2 * nr_filters), shift)):
                outs, of = (
                    (mine(h, skip, told), kit(h, skip, told)),
                    {"h": h} | ({} if skip is None else {"skip": skip}),
                )
                if sentence := difference(*outs) or other_gradient(*outs, of):
                    given = "without a modulation" if told is None else "with a modulation"
                    return f"{nr_filters} filters, nr_skips = {nr_skips}, {given}: {sentence}"
        return None

    steps = {
        "the parts have the names and sizes that the shipped weights have": parts,
        "what comes out has the shape of h, with no, one and two skips": shapes,
        "h + a * sigmoid(b), worked out by hand, is what it gives": by_hand,
        "ELUs, skip, modulation and gate are in their places": way_of_a_picture,
        "dropout acts before conv_out, in training only": dropped,
        "it looks where its convolutions look and nowhere else": causal,
        "it equals the kit's in float64, with random sizes and weights": equal,
    }


class Fusion(Piece):
    """The tables of the classes, and how they act."""

    hints = (
        "Look at the table of sites: for each chosen site write down the names of its tables and how long a row is. "
        "add is one look-up and one sum; modulations is one look-up, cut into a piece for each gated block.",
        "A table is called with the labels, self.maps[where](y), and gives their rows, (B, size). To add a row to "
        "(B, C, H, W), append two axes; the table x has a whole picture in a row. chunk(n, dim=1) cuts a row.",
        "modulations: for each of bias, scale, shift that exists, self.maps[name](y).chunk(self.nr_blocks, dim=1). For "
        "block n: no bias and no shift, None; else (scale's piece n or None, the sum of bias's and shift's pieces n).",
    )
    answer = staticmethod(solutions.Fusion)
    kit = "utils.fusion.Fusion"
    SIZES = (3, 2, 4, 10, 4)  # classes, filters, blocks, numbers of the output, image_size

    @classmethod
    def _pair(cls, attempt, sites: tuple[str, ...], sizes: tuple[int, ...] = SIZES):
        return twins(*(make(sites, *sizes) for make in (attempt, KitFusion)))

    def tables(self, attempt) -> str | None:
        for sites in ((), *((site,) for site in SITES), SITES):
            fusion, kit = attempt(sites, *self.SIZES), KitFusion(sites, *self.SIZES)
            if sentence := other_parameters(fusion, kit):
                return (
                    f"sites {sites}, num_classes 3, nr_filters 2, nr_blocks 4, nr_params 10, image_size 4: {sentence}"
                )
            for name, table in fusion.maps.items():
                if not isinstance(table, nn.Embedding) or table.weight.any():
                    return f"table {name} is not an nn.Embedding whose weight is all zero."
        return None

    @staticmethod
    def _features(fusion, batch: int, size: int) -> dict[str, Tensor]:
        """Something to which `add` can add a row of each of its tables, by the table's name."""
        channels = {name: table.embedding_dim for name, table in fusion.maps.items() if name in ADDED}
        return {name: randn(batch, 3 if name == "x" else count, size, size) for name, count in channels.items()}

    def adds(self, attempt) -> str | None:
        fusion, kit = self._pair(attempt, SITES)
        y = torch.tensor([2, 0, 2, 1])
        for where, h in self._features(kit, 4, 4).items():
            given, rows = h.clone(), kit.maps[where](y)
            out = fusion.add(where, given, y)
            if difference(given, h):
                return f"add({where!r}, h, y) changed h itself; make a new tensor."
            mistakes = {
                "it adds nothing.": h,
                "every picture got the row of picture 0's label.": kit.add(where, h, y[:1].expand(4)),
            }
            if where == "x":
                mistakes["a row is read as (height, width, 3), but it is (3, height, width)."] = h + rows.view(
                    4, 4, 4, 3
                ).permute(0, 3, 1, 2)
            if sentence := likeliest_mistake(out, kit.add(where, h, y), mistakes):
                return f"add({where!r}, h, y): {sentence}"
        return None

    def leaves(self, attempt) -> str | None:
        fusion, h = self._pair(attempt, ("late",))[0], randn(2, 2, 4, 4)
        if sentence := difference(fusion.add("u0", h, torch.tensor([0, 1])), h):
            return f"without the site upstream, add('u0', h, y) must return h: {sentence}"
        fusion = attempt(SITES, *self.SIZES)
        for where, dtype in itertools.product(("u0", "x"), (torch.bfloat16, torch.float16, torch.float64)):
            out = fusion.add(where, torch.ones(1, 3 if where == "x" else 2, 4, 4, dtype=dtype), torch.tensor([1]))
            if out.dtype != dtype:
                return f"h is {dtype} and the table torch.float32: add returned {out.dtype}; keep the precision of h."
        return None

    def modulates(self, attempt) -> str | None:
        y = torch.tensor([2, 0, 2, 1])
        for sites in (("early", "late"), ("blocks",), ("film",), ("blocks", "film")):
            mine, kit = self._pair(attempt, sites)
            if sentence := self._wrong_modulations(mine, kit, y):
                return f"sites {sites}{sentence}"
        return None

    @staticmethod
    def _wrong_modulations(fusion, kit: KitFusion, y: Tensor) -> str | None:
        told, expected = fusion.modulations(y), kit.modulations(y)
        if blank(told):
            return ": modulations(y) returned nothing."
        if not isinstance(told, list | tuple) or len(told) != len(expected):
            return f": modulations(y) must be a list of {len(expected)}, an entry for each gated block."
        for n, (mine, theirs) in enumerate(zip(told, expected, strict=True)):
            where = f", entry {n} of modulations(y)"
            if theirs is None and mine is not None:
                return f"{where}: it should be None, since neither blocks nor film is chosen."
            if theirs is None:
                continue
            if not isinstance(mine, list | tuple) or len(mine) != 2:
                return f"{where}: it should be a pair (scale or None, shift)."
            for part, a, b, others in zip(("scale", "shift"), mine, theirs, zip(*expected, strict=True), strict=True):
                if (a is None) != (b is None):
                    return f"{where}: the {part} should {'be None' if b is None else 'be there, but it is None'}."
                if b is None:
                    continue
                mistakes = {
                    f"it is that of block {m}; block n has the n-th piece of 2F numbers.": other
                    for m, other in enumerate(others)
                }
                if part == "scale":
                    mistakes["give the row itself; modulate adds the 1."] = 1 + b
                if sentence := likeliest_mistake(a, b, mistakes):
                    return f"{where}: the {part}: {sentence}"
        return None

    def learns(self, attempt) -> str | None:
        fusion, kit = self._pair(attempt, SITES)
        y = torch.tensor([2, 0, 2])
        for each in (fusion, kit):
            sums = [each.add(where, h, y) for where, h in self._features(kit, 3, 4).items()]
            sums += [part for pair in each.modulations(y) for part in pair]
            sum(part.sum() for part in sums).backward()
        for name, table in kit.maps.items():
            gradient = fusion.maps[name].weight.grad
            if gradient is None or difference(gradient, table.weight.grad):
                return f"the gradient does not reach the table {name} as it should, so it could not learn."
        return None

    def equal(self, attempt) -> str | None:
        for sites in (*PRESETS.values(), ("early", "film"), ("middle", "blocks")):
            nr_classes, nr_filters, nr_blocks, size = torch.randint(3, 7, (4,)).tolist()
            mine, kit = self._pair(attempt, sites, (nr_classes, nr_filters, nr_blocks, 10, size))
            y = torch.randint(nr_classes, (5,))
            for where, h in self._features(kit, 5, size).items():
                if sentence := difference(mine.add(where, h, y), kit.add(where, h, y)):
                    return f"sites {sites}, add({where!r}, h, y): {sentence}"
            if sentence := self._wrong_modulations(mine, kit, y):
                return f"sites {sites}{sentence}"
        return None

    steps = {
        "every site has its tables, of the right size and all zero": tables,
        "add adds each picture's own row, at every pixel": adds,
        "add leaves h as it is where there is no such table, and keeps its precision": leaves,
        "every gated block gets its own scale and shift": modulates,
        "gradients reach all tables": learns,
        "it equals the kit's in float64, for sites and sizes of all kinds": equal,
    }


def calls_of(forward: Callable, network: ConditionalPixelCNN, x: Tensor, y: Tensor) -> list[dict[str, Any]]:
    """What each gated block was given, in the order of the calls, up to an error."""
    calls: list[dict[str, Any]] = []

    def note(name: str):
        def hook(_block, args, kwargs):
            given = dict(zip(("h", "skip", "modulation"), args, strict=False)) | kwargs
            calls.append({"name": name, "skip": None, "modulation": None} | given)

        return hook

    blocks = [(name, block) for name, block in network.named_modules() if isinstance(block, KitBlock)]
    hooks = [block.register_forward_pre_hook(note(name), with_kwargs=True) for name, block in blocks]
    with contextlib.suppress(RuntimeError, IndexError, StopIteration):
        forward(network, x, y)
    for hook in hooks:
        hook.remove()
    return calls


class NetworkForward(Piece):
    """The way of a picture through the U."""

    hints = (
        "Five parts: the picture and its ones; the first features u and ul; the way down, which appends to a list of "
        "skips; the way back, which pops from it; the head. Compare with the diagram, line by line.",
        "Append (u, ul) once before the first block, after each pair, and after each strided convolution. The last one "
        "is where the way back begins: pop it before the site middle. Then each pair on the way back pops one. "
        "A pair is called as pair(u, ul, u_skip, ul_skip, u_modulation, ul_modulation).",
        "modulations = iter(self.fusion.modulations(y)), and next(modulations) twice in each call of a pair. Back: "
        "for scale in (2, 1, 0): all pairs of up_blocks[scale], then, if scale > 0, up_convs[scale - 1]. Last, in "
        "torch.autocast(x.device.type, enabled=False): self.head(F.elu(ul).to(x.dtype)); then the site late.",
    )
    answer = staticmethod(solutions.network_forward)
    kit = "utils.model.ConditionalPixelCNN.forward"

    @staticmethod
    def _network(fusion: str = "none", **sizes) -> ConditionalPixelCNN:
        values = {"num_classes": 3, "nr_resnet": 1, "nr_filters": 4, "nr_logistic_mix": 1, "image_size": 8}
        return filled(ModelConfig(**(values | sizes), dropout=0.0, fusion=fusion))  # type: ignore[arg-type]

    def shape(self, attempt) -> str | None:
        for size, nr_mix in [(8, 1), (12, 2)]:
            network = self._network("all", image_size=size, nr_logistic_mix=nr_mix)
            x = pictures(2, size)
            before = x.clone()
            try:
                out = attempt(network, x, torch.tensor([0, 2]))
            except (RuntimeError, IndexError, StopIteration) as error:  # a mistake on the way shows late, as a size
                where = self.order_and_skips(attempt)
                stopped = f"it stopped with {type(error).__name__}: {str(error).rstrip('.')}."
                return f"{stopped} Before that, {where}" if where else stopped
            if sentence := blank(out) or wrong_shape(out, (2, 10 * nr_mix, size, size)):
                return f"two pictures of {size}x{size}, K = {nr_mix}: {sentence}"
            if not torch.equal(x, before):
                return "x itself was changed; make a new tensor, the loss still needs x."
        return None

    @staticmethod
    def _sees(attempt, network: ConditionalPixelCNN) -> Tensor:
        """(n, k): whether any channel of output pixel n depends on pixel k, in raster order."""
        x = pictures(1, 8).repeat(64, 1, 1, 1).requires_grad_()  # output n is read from picture n
        out = attempt(network, x, torch.ones(64, dtype=torch.int64))
        each = (out * randn(out.shape[1])[:, None, None]).sum(dim=1).flatten(1).diagonal()
        (gradient,) = torch.autograd.grad(each.sum(), x)
        return gradient.abs().sum(dim=1).flatten(1) > 0

    def first_pixel(self, attempt) -> str | None:
        seen = self._sees(attempt, self._network("all"))[0]
        if not seen.any():
            return None
        return (
            f"output (0, 0) depends on pixel {tuple(divmod(int(seen.nonzero()[0]), 8))}, but nothing is known when it "
            "is drawn. Are u_first and ul_first_above shifted down, ul_first_left to the right, and does each stream "
            "go through its own layers?"
        )

    def causal(self, attempt) -> str | None:
        sees = self._sees(attempt, self._network("all"))
        future = (sees & torch.ones(64, 64, dtype=torch.bool).triu()).nonzero()
        if len(future):
            at, seen = (divmod(int(each), 8) for each in future[0])
            return f"output {at} depends on pixel {seen}, which is not known yet. Does each stream read its own?"
        for n in range(1, 64):
            if not sees[n, n - 1] and n % 8:
                return f"output {divmod(n, 8)} does not depend on the pixel at its left, though it is known."
        if not sees[63, 0] or not sees[15, 0]:
            return "the last outputs do not depend on the first pixel, though the network looks that far."
        return None

    def first_features(self, attempt) -> str | None:
        network, x, y = self._network(), pictures(2, 8), torch.tensor([0, 1])
        mine = {call["name"]: call for call in calls_of(attempt, network, x, y)}
        for call in calls_of(solutions.network_forward, network, x, y)[:2]:
            if call["name"] not in mine:
                return f"{call['name']} was not called."
            if sentence := difference(mine[call["name"]]["h"], call["h"]):
                what = "u is down_shift(u_first(x))" if call["name"].endswith(".u") else "ul is a sum of two"
                return (
                    f"the first block {call['name']} reads other features, {what}, x has a fourth channel: {sentence}"
                )
        return None

    def order_and_skips(self, attempt) -> str | None:
        network, x, y = self._network(nr_resnet=2), pictures(1, 8), torch.tensor([0])
        mine = calls_of(attempt, network, x, y)
        right = calls_of(solutions.network_forward, network, x, y)
        for n, call in enumerate(right):
            name = call["name"]
            if n == len(mine):
                return f"{n} gated blocks were called, but there are {len(right)}; the next would be {name}."
            if mine[n]["name"] != name:
                return f"gated block number {n + 1} that was called is {mine[n]['name']}, but it should be {name}."
            skip, expected = mine[n]["skip"], call["skip"]
            if (skip is None) != (expected is None):
                return f"{name} was given {'no' if skip is None else 'a'} skip, but it should be the other way."
            if expected is not None and (sentence := difference(skip, expected)):
                back = [c for c in right if c["name"].startswith("up_blocks")]
                given = [c["name"] for c in back if difference(skip, c["skip"]) is None]
                whose = f"that of {given[0]}. The last made is the first used." if given else f"another: {sentence}"
                return f"{name} should be given its own skip, but it was given {whose}"
            if sentence := difference(mine[n]["h"], call["h"]):
                return f"{name} reads other features than it should: {sentence}"
        extra = len(mine) - len(right)
        return f"{extra} gated blocks were called once too often." if extra else None

    def modulations(self, attempt) -> str | None:
        network, x, y = self._network("blocks,film"), pictures(2, 8), torch.tensor([2, 1])
        told: list[Any] = network.fusion.modulations(y)
        for n, call in enumerate(calls_of(attempt, network, x, y)):
            if call["modulation"] is None:
                return f"{call['name']} was given no modulation; it is entry {n} of self.fusion.modulations(y)."
            shift = call["modulation"][1]
            if difference(shift, told[n][1]):
                given = [m for m, (_, other) in enumerate(told) if difference(shift, other) is None]
                which = f"entry {given[0]}" if given else "something else"
                return (
                    f"{call['name']} should be given entry {n} of self.fusion.modulations(y), but it was given {which}."
                )
            if difference(call["modulation"][0], told[n][0]):
                return f"{call['name']} was given another scale than entry {n} of self.fusion.modulations(y)."
        return None

    def head(self, attempt) -> str | None:
        network, x, y = self._network(), pictures(2, 8), torch.tensor([0, 1])
        ends: list[Tensor] = []
        note = network.up_blocks[0][-1].register_forward_hook(lambda _pair, _given, out: ends.extend(out))  # type: ignore
        expected = solutions.network_forward(network, x, y)
        note.remove()
        u, ul = ends
        mistakes = {
            "it reads ul without the ELU.": ul,
            "it reads the ELU of u; ul is the stream that knows all earlier pixels.": F.elu(u),
            "it reads u as well as ul.": F.elu(u + ul),
        }
        outputs = {f"head: {text}": network.head(features) for text, features in mistakes.items()}
        if sentence := likeliest_mistake(attempt(network, x, y), expected, outputs):
            return sentence
        network, seen = self._network("report").float(), []
        network.head.register_forward_pre_hook(lambda _layer, given: seen.append(given[0].dtype))
        network.head.register_forward_hook(lambda _layer, _given, out: seen.append(out.dtype))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            try:
                seen.append(attempt(network, pictures(1, 8).float(), torch.tensor([0])).dtype)
            except RuntimeError:  # head cannot read what it is given
                if torch.bfloat16 not in seen:
                    raise
        wrong = [dtype for dtype in seen if dtype != torch.float32]
        if wrong:
            return (
                f"with x in float32, head must read and return float32 under autocast too, but it meets {wrong[0]}: "
                "switch autocast off there, and give head ul in x's precision."
            )
        return None

    def sites(self, attempt) -> str | None:
        x, y = pictures(3, 8), torch.tensor([2, 0, 1])
        network = self._network("all")
        tables = copy.deepcopy(network.fusion.state_dict())
        for site, names in TABLES.items():
            for name, table in network.fusion.maps.items():
                table.weight.data = tables[f"maps.{name}.weight"] * (name in names)
            out, expected = attempt(network, x, y), solutions.network_forward(network, x, y)
            for weight in network.fusion.parameters():
                nn.init.zeros_(weight)
            mistakes = {"the class has no effect.": solutions.network_forward(network, x, y)}
            if sentence := likeliest_mistake(out, expected, mistakes):
                return f"where the tables of the site {site} alone are not zero: {sentence}"
        return None

    def equal(self, attempt) -> str | None:
        for fusion, sizes in [
            ("none", {}),
            ("report", {"nr_resnet": 2, "nr_filters": 3}),
            ("all", {"image_size": 12, "num_classes": 5}),
            ("early,film", {"nr_logistic_mix": 3}),
        ]:
            network = self._network(fusion, **sizes)
            x, y = pictures(2, network.config.image_size), torch.randint(network.config.num_classes, (2,))
            outs = attempt(network, x, y), solutions.network_forward(network, x, y)
            if sentence := difference(*outs) or other_gradient(*outs, dict(network.named_parameters())):
                return f"fusion {fusion!r}, {network.config}: {sentence}"
        return None

    steps = {
        "the output has 10K channels": shape,
        "the first pixel's output knows nothing of the picture": first_pixel,
        "every output sees what was drawn before it, and nothing else": causal,
        "the first features are right": first_features,
        "all gated blocks are called in order, each with its skip": order_and_skips,
        "each gated block has its own modulation": modulations,
        "the head reads ELU(ul), in float32": head,
        "the class enters at all six sites": sites,
        "it equals the kit's in float64, for several networks": equal,
    }


gate, film, site_parameters, relabel_late = Gate(), Film(), SiteParameters(), RelabelLate()
gated_residual_block, fusion, network_forward = GatedResidualBlock(), Fusion(), NetworkForward()
