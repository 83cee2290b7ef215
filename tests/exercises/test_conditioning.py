"""The exercises of notebook 03."""

import functools

import numpy as np
import pytest
import torch
from common import IMPORTED, check_exercise, in_a_cell, pasted, said
from torch import nn

from kit.exercises import conditioning as exercises
from kit.exercises import solutions
from utils import fusion, layers, model, sampling

ALL = [value for value in vars(exercises).values() if isinstance(value, exercises.Exercise)]
NAMES = ("Modulation", "concat_elu", "modulate", "PointwiseConv2d", "Dropout", "DownShiftedConv2d")
GIVEN = {name: getattr(layers, name) for name in NAMES}
GIVEN |= {name: getattr(model, name) for name in ("down_shift", "right_shift", "NR_SCALES")}


def edited(exercise, *changes: tuple[str, str]):
    """The solution with changes in its text, each old text and new."""
    source = said(exercise.solution)
    for old, new in changes:
        assert old in source, old
        source = source.replace(old, new)
    return in_a_cell(source, IMPORTED | GIVEN)[exercise.name]


def test_gate():
    def swapped(c):
        b, a = c.chunk(2, dim=1)
        return a * torch.sigmoid(b)

    def in_place(c):
        a, b = c.chunk(2, dim=1)
        return a.mul_(b.sigmoid_())

    def of_tanh(c):
        a, b = c.chunk(2, dim=1)
        return torch.tanh(a) * torch.sigmoid(b)

    wrong = {
        "halves are swapped": swapped,
        "even and odd": lambda c: c[:, ::2] * torch.sigmoid(c[:, 1::2]),
        "c itself was changed": in_place,
        "the shape is (2, 6, 4, 5)": lambda c: c * torch.sigmoid(c),
        "tanh": of_tanh,
        "the sigmoid is missing": lambda c: c[:, :3] * c[:, 3:],
        "but it should be": lambda c: c[:, :3] + torch.sigmoid(c[:, 3:]),
        "the shape is (2, 0, 2, 2)": lambda c: c[:, : c.shape[1] - 3] * torch.sigmoid(c[:, 3:]),  # F = 3 alone
        "a tensor of shape (2, 3, 4, 5) was expected, not ndarray": lambda c: exercises.gate.answer(c).numpy(),
    }
    check_exercise(exercises.gate, lambda c: None, wrong)


def test_film():
    def spread(values):
        return values[:, :, None, None]

    wrong = {
        "1 + scale": lambda c, scale, shift: c * spread(scale) + spread(shift),
        "the scale has no effect": lambda c, scale, shift: c + spread(shift),
        "the shift has no effect": lambda c, scale, shift: c * (1 + spread(scale)),
        "the shift was scaled too": lambda c, scale, shift: (c + spread(shift)) * (1 + spread(scale)),
        "changed places": lambda c, scale, shift: c * (1 + spread(shift)) + spread(scale),
        "every picture got": lambda c, scale, shift: c * (1 + spread(scale[:1])) + spread(shift[:1]),
        "is invalid for input of size 16": lambda c, scale, shift: c * (1 + scale.view(3, 6, 1, 1)) + spread(shift),
        "it stopped with RuntimeError": lambda c, scale, shift: c * (1 + scale) + shift,
        "but it should be": lambda c, scale, shift: c,
    }
    check_exercise(exercises.film, lambda c, scale, shift: None, wrong)


def test_site_parameters():
    right = exercises.site_parameters.answer

    def one_stream(site, config):
        return right(site, config) // (2 if site in ("upstream", "middle") else 1)

    def no_scale(site, config):
        return right("blocks" if site == "film" else site, config)

    def even_stages(site, config):  # forgets the pair that the finer stages have more
        count = right(site, config)
        return count * 12 // 16 if site in ("blocks", "film") and config.nr_resnet == 1 else count

    def of_two_configs(site, config):
        return right(site, config) if config.nr_resnet < 3 else 0

    wrong = {
        "the row of one class": lambda site, config: right(site, config) // config.num_classes,
        "Count both streams": one_stream,
        "a scale and a shift": no_scale,
        "there are 16 gated blocks": even_stages,
        "site 'late'": lambda site, config: 3 * 4 if site == "late" else right(site, config),
        "nr_resnet 3": of_two_configs,
        "a number was expected, not str": lambda site, config: "many",
    }
    check_exercise(exercises.site_parameters, lambda site, config: None, wrong)
    for kind in (float, np.int64, torch.tensor):
        assert said(exercises.site_parameters.check, lambda *given, kind=kind: kind(right(*given))) == "Right."


def test_site_parameters_counts_what_a_network_has():
    for site in fusion.SITES:
        config = model.ModelConfig(3, 2, 5, 2, 12, 0.0, (site,))
        tables = model.ConditionalPixelCNN(config).fusion.parameters()
        assert exercises.site_parameters.answer(site, config) == sum(table.numel() for table in tables)


def test_relabel_late():
    def spread(rows):
        return rows[:, :, None, None]

    wrong = {
        "old labels are still in there": lambda params, table, old, new: params + spread(table[new]),
        "the sign is wrong": lambda params, table, old, new: params + spread(table[old] - table[new]),
        "picture 0's labels": lambda params, table, old, new: params + spread(table[new[:1]] - table[old[:1]]),
        "still those of the old labels": lambda params, table, old, new: params,
        "but it should be": lambda params, table, old, new: params - spread(table[old]),
    }
    check_exercise(exercises.relabel_late, lambda params, table, old, new: None, wrong)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_gated_residual_block():
    class GatedResidualBlock(nn.Module):
        def __init__(self, conv, nr_filters, nr_skips, dropout):
            super().__init__()

        def forward(self, h, skip=None, modulation=None): ...

    exercise, c, out = (
        exercises.gated_residual_block,
        "c = self.conv_in(concat_elu(h))",
        "return h + a * torch.sigmoid(b)",
    )
    last, chunk = "self.conv_out(self.dropout(concat_elu(c)))", "a, b = modulate(c, modulation).chunk(2, dim=1)"
    skip, dropout = "c = c + self.skip(concat_elu(skip))", "self.dropout = Dropout(dropout)"
    but = functools.partial(edited, exercise)
    wrong = {
        "conv_out.init_scale is 1.0, but it should be 0.1": but((", init_scale=0.1", "")),
        "there is no parameter conv_in.": but(("conv_in", "first")),
        "the parameter conv_out.": but(("2 * nr_filters, init_scale", "nr_filters, init_scale")),
        "the parameter skip.conv.bias should not be there": but((" if nr_skips else None", "")),
        "conv = DownRightShiftedConv2d": but(("= conv(", "= DownShiftedConv2d(")),
        "the attribute skip must be None": but((" if nr_skips else None", " if nr_skips else nn.Identity()")),
        "nothing was returned": but(("return h", "h")),
        "the shape is (2, 8, 6, 5)": but((out, "return torch.cat([h, h], dim=1)")),
        "channels, but got 4 channels": but((c, "c = self.conv_in(F.elu(h))")),
        "h was not added": but(("h + a", "a")),
        "h itself was changed": but((out, "return h.add_(a * torch.sigmoid(b))")),
        "the halves are swapped": but(("a, b =", "b, a =")),
        "the modulation does not act on a and b": but(("modulate(c, modulation)", "c")),
        "h goes into conv_in without the ELU": but(("concat_elu(h)", "torch.cat([h, -h], 1)")),
        "conv_out's input lacks its ELU": but(("concat_elu(c)", "torch.cat([c, -c], 1)")),
        "the skip is ignored": but((skip, "pass")),
        "1x1 convolution without the ELU": but(("concat_elu(skip)", "torch.cat([skip, -skip], 1)")),
        "it belongs right after conv_out": but(
            (last, last.replace("concat_elu(c)", "modulate(concat_elu(c), modulation)")),
            (chunk, "a, b = c.chunk(2, dim=1)"),
        ),
        "none is changed. Dropout belongs right before conv_out": but(
            (last, "self.dropout(self.conv_out(concat_elu(c)))")
        ),
        "numbers are dropped in eval mode too": but(
            ("self.dropout(concat_elu(c))", "F.dropout(concat_elu(c), self.dropout.p)")
        ),
        "not all have one factor": but(("self.dropout(concat_elu(c))", "concat_elu(self.dropout(c))")),
        "of what conv_out reads 50%": but((dropout, "self.dropout = Dropout(0.25)")),
        "of what conv_out reads 25%": but((dropout, "self.dropout = Dropout(0.5)")),
        "Is that the given probability": but((dropout, "self.dropout = Dropout(1 - dropout)")),
        "whole channels are 0": but((dropout, "self.dropout = nn.Dropout2d(dropout)")),
        "a went through a tanh": but((out, out.replace("+ a", "+ torch.tanh(a)"))),
        "is it the layer that is asked for": but(
            (
                "PointwiseConv2d(2 * nr_skips * nr_filters, nr_filters)",
                "nn.Conv2d(2 * nr_skips * nr_filters, nr_filters, 1)",
            )
        ),
        "conv_out was called 2 times": but((last, f"{last}; self.conv_out(concat_elu(self.conv_in(concat_elu(h))))")),
        "not the gradient that h gets": but((out, "return h.detach() + a * torch.sigmoid(b)")),
        "not the gradient that skip gets": but((skip, "c = c + self.skip(concat_elu(skip.detach()))")),
        "output (0, 0) sees": but((out, f"{out} + 1e-20 * (h.mean() - h.mean().detach())")),
    }
    check_exercise(exercise, GatedResidualBlock, wrong, GIVEN)


def test_a_block_that_is_right_only_in_float64_or_for_two_sizes_of_picture_is_found():
    exercise = exercises.gated_residual_block
    text = "torch.sigmoid(b)"
    for replaced in (f"{text}.float().to(b.dtype)", f"({text} if len(h) < 3 else b)"):
        verdict = said(exercise.check, edited(exercise, (text, replaced)))
        assert "Not yet" in verdict


def test_fusion():
    class Fusion(nn.Module):
        def __init__(self, sites, num_classes, nr_filters, nr_blocks, nr_params, image_size):
            super().__init__()
            self.nr_blocks = nr_blocks
            self.maps = nn.ModuleDict()

        def add(self, where, h, y): ...

        def modulations(self, y): ...

    exercise, e = exercises.fusion, "e[:, :, None, None]"
    zero = ", _weight=torch.zeros(num_classes, size)"
    but = functools.partial(edited, exercise)
    wrong = {
        "there should be maps.x, but there is maps.early": but(('sizes["x"] =', 'sizes["early"] =')),
        "should not be there; there should be nothing": but(('if "early" in sites', "if True")),
        "has the shape (3, 16), but": but(("3 * image_size *", "image_size *")),
        "has the shape (3, 8), but": but(("nr_blocks * 2 * nr", "nr_blocks * nr")),
        "not an nn.Embedding whose weight is all zero": but((zero, "")),
        "nothing was returned": but((f"return h + {e}", "pass")),
        "it adds nothing": but((f"h + {e}", "h")),
        "the row of picture 0's label": but(("[where](y)", "[where](y[:1].expand(len(y)))")),
        "a row is read as (height, width, 3)": but(
            ("e.view(len(y), 3, h.shape[-2], h.shape[-1])", "e.view(-1, *h.shape[2:], 3).permute(0, 3, 1, 2)")
        ),
        "changed h itself": but((f"return h + {e}", f"return h.add_({e})")),
        "add('params', h, y)": but((f"return h + {e}", f"return h + (0 if where == 'params' else {e})")),
        "KeyError": but(("if where not in self.maps", "if False")),
        "keep the precision of h": but((".to(h.dtype)", "")),
        "must be a list of 4": but(("scales, shifts, strict=True", "scales, shifts[1:]")),
        "it should be None, since": but(("return [None]", "return [(None, None)]")),
        "modulations(y) returned nothing": but(("return list(", "list(")),
        "it should be a pair": but(("list(zip(scales, shifts, strict=True))", "shifts")),
        "the scale should be None": but(("[None] * self.nr_blocks)\n", "[torch.zeros(len(y), 4)] * self.nr_blocks)\n")),
        "give the row itself; modulate adds the 1": but(
            ("list(zip(scales", "list(zip([s if s is None else 1 + s for s in scales]")
        ),
        "it is that of block 3": but(("scales, shifts", "scales, shifts[::-1]")),
        "entry 0 of modulations(y): the shift": but(("sum(parts)", "parts[0]")),
        "the table bias": but(("self.maps[name](y)", "self.maps[name].weight.data[y]")),
        "the table x": but(("self.maps[where](y)", "self.maps[where].weight.data[y]")),
    }
    check_exercise(exercise, Fusion, wrong, GIVEN)


def test_network_forward():
    def network_forward(self, x, y): ...

    exercise = exercises.network_forward
    first, pop = "u, ul = skips.pop()", "u_skip, ul_skip = skips.pop()"
    down = "None, None, next(modulations), next(modulations)"
    head = "params = self.head(F.elu(ul).to(x.dtype))"
    but = functools.partial(edited, exercise)
    wrong = {
        "channels, but got 3 channels": but(("torch.cat([x, torch.ones_like(x[:, :1])], dim=1)", "x")),
        "the shape is (2, 4, 8, 8)": but((head, "return ul")),
        "nothing was returned": but(('return self.fusion.add("params"', 'self.fusion.add("params"')),
        "x itself was changed": but(('x = self.fusion.add("x", x, y)', "x *= 0.5")),
        "output (0, 0) depends on pixel (0, 0)": but(("right_shift(self.ul_first_left(x))", "self.ul_first_left(x)")),
        "Are u_first and ul_first_above shifted": but(("down_shift(self.u_first(x))", "self.u_first(x)")),
        "does each stream go through its own layers": but(
            ('self.down_convs[scale]["ul"](ul)', 'self.down_convs[scale]["u"](ul)')
        ),
        "does not depend on the pixel at its left": but((" + right_shift(self.ul_first_left(x))", "")),
        "u is down_shift(u_first(x))": but(("down_shift(self.u_first(x))", "down_shift(2 * self.u_first(x))")),
        "ul is a sum of two": but(("right_shift(self.ul", "2 * right_shift(self.ul")),
        "x has a fourth channel": but(("torch.ones_like", "torch.zeros_like")),
        "up_blocks.2.0.u should be given its own skip, but it was given that of up_blocks.0.2.u": but(
            (pop, pop.replace("pop()", "pop(0)"))
        ),
        "up_blocks.2.0.u should be given its own skip, but it was given another": but(
            (first + "\n    u, ul =", "u, ul = skips[-1]\n    u, ul =")
        ),
        "Before that, up_blocks.2.1.u should be given its own skip": but(
            ("(ul)\n            skips.append((u, ul))", "(ul)")
        ),
        "was given a skip, but it should be": but(("None, None, next", "u, ul, next")),
        "is up_blocks.0.0.u, but it should be up_blocks.2.0.u": but(
            ("in reversed(range(NR_SCALES))", "in range(NR_SCALES)")
        ),
        "is down_blocks.1.0.u, but it should be down_blocks.0.1.u": but(
            ("in self.down_blocks[scale]", "in self.down_blocks[scale][:1]")
        ),
        "was given no modulation": but((down, "None, None, None, None")),
        "should be given entry 0 of self.fusion.modulations(y), but it was given entry 1": but(
            (down, "None, None, *[next(modulations), next(modulations)][::-1]")
        ),
        "site early alone are not zero: the class has no effect": but(('self.fusion.add("x", x, y)', "x")),
        "the site upstream alone": but(('self.fusion.add("ul0", ul, y)', "ul")),
        "the site middle alone": but(('self.fusion.add("ul_middle", ul, y)', 'self.fusion.add("u_middle", ul, y)')),
        "the site late alone": but(('self.fusion.add("params", params, y)', "params")),
        "it meets torch.bfloat16": but(("autocast(x.device.type, enabled=False)", "enable_grad()")),
        "give head ul in x's precision": but((".to(x.dtype)", "")),
        "it reads ul without the ELU": but(("F.elu(ul)", "ul")),
        "it reads u as well as ul": but(("F.elu(ul)", "F.elu(u + ul)")),
        "but not the gradient that": but(('["u"](u), self.up_convs', '["u"](u.detach()), self.up_convs')),
        "other features than it should": but(
            (first + "\n    u, ul =", "u, ul = (skips.pop()[0], ul * 2)\n    u, ul =")
        ),
        "does not require grad": lambda self, x, y: sampling.stepwise_params(self, x, y),
        "is the kit's own; write yours without it": lambda self, x, y: model.ConditionalPixelCNN.forward(self, x, y),
    }
    check_exercise(exercise, network_forward, wrong, GIVEN)


OTHERS = {  # right answers in other words
    "gated_residual_block": """
class GatedResidualBlock(nn.Module):
    def __init__(self, conv, nr_filters, nr_skips, dropout):
        super().__init__()
        self.conv_in = conv(2 * nr_filters, nr_filters)
        self.skip = None
        if nr_skips > 0:
            self.skip = PointwiseConv2d(2 * nr_skips * nr_filters, nr_filters)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = conv(2 * nr_filters, 2 * nr_filters, init_scale=0.1)

    def forward(self, h: Tensor, skip=None, modulation=None):
        out = self.conv_in(concat_elu(h))
        if skip is not None:
            out += self.skip(concat_elu(skip))
        out = self.dropout(concat_elu(out))
        out = modulate(self.conv_out(out), modulation)
        return h + F.glu(out, 1)
""",
    "fusion": """
class Fusion(nn.Module):
    def __init__(self, sites, num_classes, nr_filters, nr_blocks, nr_params, image_size):
        super().__init__()
        self.nr_blocks = nr_blocks
        self.F = nr_filters
        sizes = {}
        if "early" in sites:
            sizes["x"] = 3 * image_size**2
        for site, names in [("upstream", ("u0", "ul0")), ("middle", ("u_middle", "ul_middle"))]:
            sizes |= {name: nr_filters for name in names if site in sites}
        if "late" in sites:
            sizes["params"] = nr_params
        for site, names in [("blocks", ("bias",)), ("film", ("scale", "shift"))]:
            sizes |= {name: 2 * nr_filters * nr_blocks for name in names if site in sites}
        self.maps = nn.ModuleDict()
        for name, size in sizes.items():
            self.maps[name] = nn.Embedding(num_classes, size, _weight=torch.zeros(num_classes, size))

    def add(self, where, h, y):
        if where in self.maps:
            row = self.maps[where](y)
            if where == "x":
                row = row.reshape(-1, 3, *h.shape[2:])
            else:
                row = row.unsqueeze(-1).unsqueeze(-1)
            return h + row.to(h.dtype)
        return h

    def modulations(self, y):
        out = []
        n = 2 * self.F
        for i in range(self.nr_blocks):
            piece = {k: self.maps[k](y)[:, i*n:(i+1)*n] for k in ("bias", "scale", "shift") if k in self.maps}
            if "scale" in piece:
                out.append([piece["scale"], piece["shift"] + piece.get("bias", 0)])
            elif "bias" in piece:
                out.append([None, piece["bias"]])
            else:
                out.append(None)
        return out
""",
    "network_forward": """
def network_forward(self, x, y):
    mods = self.fusion.modulations(y)
    k = 0
    x = self.fusion.add("x", x, y)
    ones = torch.ones(x.shape[0], 1, x.shape[2], x.shape[3], dtype=x.dtype, device=x.device)
    x4 = torch.cat((x, ones), 1)
    u = down_shift(self.u_first(x4))
    ul = down_shift(self.ul_first_above(x4)) + right_shift(self.ul_first_left(x4))
    u = self.fusion.add("u0", u, y)
    ul = self.fusion.add("ul0", ul, y)
    stack = [(u, ul)]
    for s in range(3):
        for pair in self.down_blocks[s]:
            u = pair.u(u, modulation=mods[k])
            ul = pair.ul(ul, skip=u, modulation=mods[k + 1])
            k += 2
            stack.append((u, ul))
        if s != 2:
            u = self.down_convs[s]["u"](u)
            ul = self.down_convs[s]["ul"](ul)
            stack.append((u, ul))
    u, ul = stack.pop()
    u = self.fusion.add("u_middle", u, y)
    ul = self.fusion.add("ul_middle", ul, y)
    for s in [2, 1, 0]:
        for pair in self.up_blocks[s]:
            u, ul = pair(u, ul, *stack.pop(), mods[k], mods[k + 1])
            k += 2
        if s != 0:
            u = self.up_convs[s - 1]["u"](u)
            ul = self.up_convs[s - 1]["ul"](ul)
    with torch.autocast(x.device.type, enabled=False):
        params = self.head(F.elu(ul.to(x.dtype)))
    return self.fusion.add("params", params, y)
""",
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_right_answer_in_other_words_passes(name):
    exercise = getattr(exercises, name)
    assert "Right. Kept as" in said(exercise.check, in_a_cell(OTHERS[name], IMPORTED | GIVEN)[exercise.name])


@pytest.mark.parametrize("sites", [*fusion.PRESETS, "blocks", "film", "early,film", "middle,blocks"])
def test_the_solution_s_network_is_the_kit_s(sites):
    network = exercises.filled(model.ModelConfig(3, 1, 5, 2, 12, 0.0, sites))
    x, y = exercises.pictures(2, 12), torch.tensor([2, 0])
    mine = solutions.conditioning.network_forward(network, x, y)
    assert torch.equal(mine, network(x, y))


def test_checking_leaves_the_random_numbers_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for exercise in ALL:
        exercise.check(pasted(exercise, GIVEN))
    assert len(ALL) == 7 and torch.equal(before, torch.get_rng_state())
