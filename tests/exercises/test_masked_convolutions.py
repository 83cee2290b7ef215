import numpy as np
import pytest
import torch
import torch.nn.functional as F
from common import check_exercise, in_a_cell, named, pasted, said
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from kit.exercises import masked_convolutions as exercises
from kit.exercises import pieces
from kit.exercises.solutions import masked_convolutions as solutions
from utils import layers

GIVEN = {"kernel_mask": solutions.kernel_mask, "weight_norm": weight_norm}


def nothing(*_):
    return None


def changed(exercise, *replacements: tuple[str, str]):
    """The solution with a slip: what a student hands in whose text differs in these places."""
    source = said(exercise.solution)
    for old, new in replacements:
        assert old in source
        source = source.replace(old, new)
    given = {"torch": torch, "F": F, "nn": nn} | GIVEN
    return in_a_cell(source, given)[exercise.name]


def test_kernel_mask():
    def rows_above_only(kernel_size, kind):
        mask = torch.zeros(kernel_size, kernel_size)
        mask[: kernel_size // 2] = 1
        mask[kernel_size // 2, kernel_size // 2] = kind == "B"
        return mask

    def all_but_the_centre(kernel_size, kind):
        mask = torch.ones(kernel_size, kernel_size)
        mask[kernel_size // 2, kernel_size // 2] = kind == "B"
        return mask

    right = solutions.kernel_mask
    table = {(k, kind): right(k, kind) for k in (1, 3, 5) for kind in "AB"}
    wrong = {
        "kernel_size 1: kind 'A' must close the centre, but there it is 1": lambda k, kind: right(k, "B"),
        "kernel_size 1: kind 'B' lets the centre through, but there it is 0": lambda k, kind: right(k, "A"),
        "entry (1, 0) is 0; it lies in the past": rows_above_only,
        "entry (1, 2) is 1; it lies right of the centre": all_but_the_centre,
        "the shape is": lambda k, kind: right(k, kind)[: k // 2],
        "entry (0, 0) is 0; it lies in the past": lambda k, kind: torch.tril(torch.ones(k, k), -(kind == "A")),
        "the mask is torch.bool": lambda k, kind: right(k, kind).bool(),
        "make it one of these: .float()": lambda k, kind: right(k, kind).double(),
        "kernel_size 1: the shape is (1, 1, 1, 1)": lambda k, kind: right(k, kind)[None, None],
        "not ndarray": lambda k, kind: right(k, kind).numpy(),
        "it stopped with KeyError": lambda k, kind: table[k, kind],
    }
    check_exercise(exercises.kernel_mask, lambda k, kind: ..., wrong)


class MaskedOnce(nn.Conv2d):
    def __init__(self, in_channels, out_channels, kernel_size, kind):
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        self.register_buffer("mask", solutions.kernel_mask(kernel_size, kind))
        self.weight.data *= self.mask


class MaskedInPlace(MaskedOnce):
    def forward(self, x):
        self.weight.data *= self.mask
        return super().forward(x)


class MaskedOutput(MaskedOnce):
    """Equation 6 of the report: each output times an entry of the mask, here the centre's."""

    def forward(self, x):
        middle = len(self.mask) // 2
        return super().forward(x) * self.mask[middle, middle]


def test_masked_conv2d():
    exercise, call = exercises.masked_conv2d, "(kernel_size, kind))"
    buffer = 'self.register_buffer("mask", kernel_mask(kernel_size, kind))'
    wrong = {
        "does that happen in forward, with the weights as they are then?": MaskedOnce,
        "closes have a gradient": MaskedInPlace,
        "kind 'B', every weight 1, bias 0, a picture of ones: each output counts": MaskedOutput,
        "there is no buffer called `mask`": changed(exercise, (buffer, "self.mask = kernel_mask(kernel_size, kind)")),
        "the mask is a parameter": changed(
            exercise, (buffer, "self.mask = nn.Parameter(kernel_mask(kernel_size, kind))")
        ),
        "kind 'B': in the buffer `mask` at [2, 2] it is 0": changed(exercise, (call, '(kernel_size, "A"))')),
        "kind 'A', every weight 1": changed(exercise, (call, '(kernel_size, "B"))')),
        "the shape is (2, 8, 4, 7), but it should be (2, 8, 6, 9)": changed(
            exercise, (", padding=kernel_size // 2", "")
        ),
        "kernel_size 5, 1 pictures": changed(exercise, ("padding=kernel_size // 2", "padding=1")),
        "no gradient reaches `weight`": changed(exercise, ("self.weight *", "self.weight.data *")),
        "pictures of": changed(exercise, ("self.bias, ", "self.bias.abs(), ")),
    }  # fmt: skip
    check_exercise(exercise, nothing, wrong, GIVEN)


def test_a_bool_mask_and_other_ways_to_write_it_are_right():
    buffer = 'self.register_buffer("mask", kernel_mask(kernel_size, kind))'
    for slip in (
        (buffer, 'self.register_buffer("mask", kernel_mask(kernel_size, kind).bool())'),
        (buffer, 'self.register_buffer("mask", kernel_mask(kernel_size, kind)[None, None])'),
        ("F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)",
         "self._conv_forward(x, self.mask * self.weight, self.bias)"),
    ):  # fmt: skip
        assert "Right." in said(exercises.masked_conv2d.check, changed(exercises.masked_conv2d, slip))


def test_a_masked_convolution_is_kept_with_the_mask_it_uses(mine):
    given = {"torch": torch, "F": F, "nn": nn}
    said(exercises.kernel_mask.check, pasted(exercises.kernel_mask))
    given["kernel_mask"] = pieces.take("kernel_mask")
    verdict = said(
        exercises.masked_conv2d.check, in_a_cell(said(exercises.masked_conv2d.solution), given)["MaskedConv2d"]
    )
    assert "Kept as" in verdict and "def kernel_mask" in (mine / "MaskedConv2d.py").read_text()
    assert said(pieces.take, "MaskedConv2d") == "MaskedConv2d: yours"


SHIFTED = [
    (exercises.down_shifted_conv2d, "(kw // 2, kw // 2, kh - 1, 0)", layers.DownShiftedConv2d),
    (exercises.down_right_shifted_conv2d, "(kw - 1, 0, kh - 1, 0)", layers.DownRightShiftedConv2d),
]
NORMED = "weight_norm(nn.Conv2d(in_channels, out_channels, kernel_size, stride), dim=0)"
RETURN, SIZES = "        return ", "        kh, kw = self.conv.kernel_size\n"
ARGUMENTS = "x, self.padding)"
PADDED = "self.conv(F.pad(x, self.padding))"


@pytest.mark.parametrize("exercise, padding, ours", SHIFTED, ids=["down", "down-right"])
def test_shifted_conv2d(exercise, padding, ours):
    slip = lambda *replacements: changed(exercise, *replacements)  # noqa: E731
    other = "(0, kw - 1, kh - 1, 0)" if ours is layers.DownRightShiftedConv2d else "(kw - 1, 0, kh - 1, 0)"
    same = "(kw // 2, (kw - 1) // 2, kh // 2, (kh - 1) // 2)"
    wrong = {
        "`conv` is not weight-normalised": slip((NORMED, NORMED[len("weight_norm(") : -len(", dim=0)")])),
        "`conv.parametrizations.weight.original0` in state_dict() is of shape": slip(("dim=0", "dim=1")),
        "`conv.bias` in state_dict() is missing": slip(("stride)", "stride, bias=False)")),
        "it needs an attribute called `padding`": slip(("self.padding", "self.sides")),
        "it needs an attribute called `init_scale`": slip(("        self.init_scale = init_scale\n", "")),
        "`init_scale` should be 0.25 when asked for, not 1.0": slip(("= init_scale\n", "= 1.0\n")),
        "the shape is": slip((padding, "(0, 0, 0, 0)")),
        "asked for stride 2, `conv` has the stride (1, 1)": slip(
            (", stride)", ")"), ("init_scale\n", "init_scale\n        self.stride = stride\n"),
            (PADDED, f"{PADDED}[..., :: self.stride, :: self.stride]"),
        ),
        "`padding` is ZeroPad2d": slip(
            (padding, f"nn.ZeroPad2d({padding})"), (PADDED, "self.conv(self.padding(x))")
        ),
        "stride 2, 2 pictures of 6x8: the shape is (2, 4, 6, 8)": slip((", stride)", ")")),
        "Its digits say which pixels it adds up": slip((padding, other)),
        "with the kit's weights, ": slip((PADDED, f"self.init_scale * {PADDED}")),
        "sees pixel": slip((RETURN, SIZES + RETURN), (ARGUMENTS, f"x, {same} if len(x) == 1 else self.padding)")),
        "forward should use": slip((padding, "(0, 0, 0, 0)"), (RETURN, SIZES + RETURN), (ARGUMENTS, f"x, {padding})")),
    }  # fmt: skip
    check_exercise(exercise, nothing, wrong, GIVEN)
    mine = named(type("Mine", (ours,), {"__module__": "__main__"}), exercise.name)
    assert f"this is the kit's own {exercise.name}; write yours" in said(exercise.check, mine)


def test_padding_moved_up_is_told_where_it_looks():
    verdict = said(
        exercises.down_shifted_conv2d.check, changed(exercises.down_shifted_conv2d, ("kh - 1, 0)", "0, kh - 1)"))
    )
    assert "3 of 5" in verdict and "output (0, 0) should see rows up to 0" in verdict


def test_the_kits_own_layer_under_another_name_is_refused():
    source = "def DownShiftedConv2d(*args, **kwargs):\n    return Theirs(*args, **kwargs)\n"
    attempt = in_a_cell(source, {"Theirs": layers.DownShiftedConv2d})["DownShiftedConv2d"]
    assert "is the kit's own; write yours without it" in said(exercises.down_shifted_conv2d.check, attempt)


def test_the_second_kind_may_subclass_the_first(mine):
    first = said(exercises.down_shifted_conv2d.solution)
    second = """
class DownRightShiftedConv2d(DownShiftedConv2d):
    def __init__(self, in_channels, out_channels, kernel_size=(2, 2), stride=1, init_scale=1.0):
        super().__init__(in_channels, out_channels, kernel_size, stride, init_scale)
        kh, kw = kernel_size
        self.padding = [kw - 1, 0, kh - 1, 0]
"""
    namespace = in_a_cell(first, {"F": F, "nn": nn} | GIVEN)
    attempt = in_a_cell(second, namespace)["DownRightShiftedConv2d"]
    assert "Right. Kept as" in said(exercises.down_right_shifted_conv2d.check, attempt)
    assert said(pieces.take, "DownRightShiftedConv2d") == "DownRightShiftedConv2d: yours"
    for kits in (solutions.DownShiftedConv2d, layers.DownShiftedConv2d):  # what `take` gives who skips the first
        attempt = in_a_cell(second, namespace | {"DownShiftedConv2d": kits})["DownRightShiftedConv2d"]
        assert "built on the kit's own DownShiftedConv2d; write yours" in said(
            exercises.down_right_shifted_conv2d.check, attempt
        )


def test_padding_of():
    wrong = {
        "which lies to its right": lambda kernel: (kernel[1] // 2, kernel[1] - 1 - kernel[1] // 2, kernel[0] - 1, 0),
        "which lies below": lambda kernel: (kernel[1] - 1, 0, 0, kernel[0] - 1),
        "kernel (2, 1): padding (1, 0, 0, 0)": lambda kernel: (kernel[0] - 1, 0, kernel[1] - 1, 0),
        "turns a 6x6 picture into 5x5": lambda kernel: (0, 0, 0, 0),
        "four numbers were expected (left, right, top, bottom), not 2": lambda kernel: (kernel[1] - 1, kernel[0] - 1),
        "not 1": lambda kernel: kernel[1] - 1,
        "is negative on a side": lambda kernel: (kernel[1], -1, kernel[0], -1),
        "four whole numbers": lambda kernel: (kernel[1] - 0.5, 0, kernel[0] - 1, 0),
        "it stopped with KeyError": lambda kernel: {
            (2, 2): (1, 0, 1, 0), (2, 1): (0, 0, 1, 0), (1, 3): (2, 0, 0, 0), (3, 2): (1, 0, 2, 0)
        }[kernel],
    }  # fmt: skip
    check_exercise(exercises.padding_of, lambda kernel: ..., wrong)
    as_numbers = lambda kernel: torch.tensor([kernel[1] - 1, 0, kernel[0] - 1, 0])  # noqa: E731
    assert said(exercises.padding_of.check, as_numbers) == "Right."
    assert said(exercises.padding_of.check, lambda kernel: as_numbers(kernel).double().numpy()) == "Right."


def test_receptive_rows():
    wrong = {
        "depth 2, kernel height 2: the gradient reaches 3 rows, not 4": lambda depth, height: depth * height,
        "depth 1, kernel height 2: the gradient reaches 2 rows, not 1": lambda depth, height: depth * (height - 1),
        "depth 3, kernel height 3: the gradient reaches 7 rows, not 4": lambda depth, height: depth + 1,
        "a number was expected, not list": lambda depth, height: [depth + 1],
        "it stopped with KeyError": lambda depth, height: {(1, 2): 2, (2, 2): 3, (4, 2): 5, (3, 3): 7}[depth, height],
    }
    check_exercise(exercises.receptive_rows, lambda depth, height: ..., wrong)
    assert said(exercises.receptive_rows.check, lambda d, h: np.float64(1 + d * (h - 1))) == "Right."
    for depth, height in [(1, 2), (4, 2), (3, 3), (5, 1), (6, 5)]:
        assert exercises.receptive_rows.answer(depth, height) == measured_rows(depth, height)


def gradients(layer, size, x):
    """For every output pixel and channel (n, the gradient in raster order)."""
    for channel in layer(x)[0]:
        for n, out in enumerate(channel.flatten()):
            yield n, torch.autograd.grad(out, x, retain_graph=True)[0].flatten()


def measured_rows(depth, height):
    """The rows from which a gradient arrives."""
    stack = nn.Sequential(*(layers.DownShiftedConv2d(1, 1, (height, 1)) for _ in range(depth))).double()
    x = torch.zeros(1, 1, 32, 1, dtype=torch.float64, requires_grad=True)
    return int((torch.autograd.grad(stack(x)[0, 0, -1, 0], x)[0] != 0).sum())


def random(size):
    return torch.randn(1, 1, size, size, dtype=torch.float64, requires_grad=True)


def looks_at(where):
    """A tester that looks at some outputs alone: where(i, j, size)."""

    def tester(layer, size):
        found = gradients(layer, size, random(size))
        return not any(gradient[n:].any() for n, gradient in found if where(n // size, n % size, size))

    return tester


PARTIAL = {
    "the first output": lambda i, j, size: (i, j) == (0, 0),
    "the middle output": lambda i, j, size: (i, j) == (size // 2, size // 2),
    "the last row": lambda i, j, size: i == size - 1,
    "all but the last row": lambda i, j, size: i < size - 1,
    "the first column": lambda i, j, size: j == 0,
    "the middle column": lambda i, j, size: j == size // 2,
    "even columns": lambda i, j, size: j % 2 == 0,
    "all but the border": lambda i, j, size: 0 < i < size - 1 and 0 < j < size - 1,
    "the diagonal": lambda i, j, size: i == j,
    "the border": lambda i, j, size: i in (0, size - 1) or j in (0, size - 1),
}


@pytest.mark.parametrize("where", PARTIAL.values(), ids=PARTIAL)
def test_a_test_of_some_outputs_is_no_test(where):
    assert "Not yet: size 5: " in said(exercises.is_causal.check, looks_at(where))


def test_is_causal():
    def the_centre_may_be_seen(layer, size):
        return not any(gradient[n + 1 :].any() for n, gradient in gradients(layer, size, random(size)))

    def channels_summed(layer, size):
        summed = lambda x: layer(x).sum(dim=1, keepdim=True)  # noqa: E731
        return not any(gradient[n:].any() for n, gradient in gradients(summed, size, random(size)))

    def the_first_channel(layer, size):
        return exercises.is_causal.answer(lambda x: layer(x)[:, :1], size)

    def at_zero(layer, size):
        x = torch.zeros(1, 1, size, size, dtype=torch.float64, requires_grad=True)
        return not any(gradient[n:].any() for n, gradient in gradients(layer, size, x))

    def the_whole_past_demanded(layer, size):
        found = list(gradients(layer, size, random(size)))
        return all(bool(gradient[:n].all()) and not gradient[n:].any() for n, gradient in found)

    def rows_below_alone(layer, size):
        found = gradients(layer, size, random(size))
        return not any(gradient[n] or gradient[n - n % size + size :].any() for n, gradient in found)

    def its_row_alone(layer, size):
        found = gradients(layer, size, random(size))
        return not any(gradient[n : n - n % size + size].any() for n, gradient in found)

    def tolerant(layer, size, limit=0.5):
        return not any(gradient[n:].abs().max() > limit for n, gradient in gradients(layer, size, random(size)))

    def at_one(layer, size):
        x = torch.ones(1, 1, size, size, dtype=torch.float64, requires_grad=True)
        return not any(gradient[n:].any() for n, gradient in gradients(layer, size, x))

    def near_pixels(layer, size):
        found = gradients(layer, size, random(size))
        return not any(gradient[n : n + size + 1].any() for n, gradient in found)

    def summed_over_the_future(layer, size):
        return all(gradient[n:].sum() == 0 for n, gradient in gradients(layer, size, random(size)))

    right = exercises.is_causal.answer
    wrong = {
        "mask B is not causal": the_centre_may_be_seen,
        "look at every output": looks_at(PARTIAL["the middle output"]),
        "look at every row": looks_at(PARTIAL["all but the last row"]),
        "look at every column": looks_at(PARTIAL["even columns"]),
        "cancel": channels_summed,
        "look at every channel": the_first_channel,
        "use a random x": at_zero,
        "is causal": the_whole_past_demanded,
        "right_shift made by torch.roll is not causal": rows_below_alone,
        "rows below are the future too": its_row_alone,
        "a mean over the picture": tolerant,
        "test at the size that is asked for": lambda layer, size: right(layer, 5),
        "True or False was expected, not 0.5.": lambda layer, size: 0.5,
        "True or False was expected, not tensor([1., 1., 1.]).": lambda layer, size: torch.ones(3),
        "True or False was expected, not 'True'.": lambda layer, size: "True",
    }
    check_exercise(exercises.is_causal, lambda layer, size: ..., wrong)
    assert "use a random x" in said(exercises.is_causal.check, at_one)
    for attempt in (near_pixels, summed_over_the_future, lambda layer, size: tolerant(layer, size, 0.01)):
        assert "look at all later pixels, each by itself" in said(exercises.is_causal.check, attempt)
    for kind in (int, np.bool_, torch.tensor, float):
        assert said(exercises.is_causal.check, lambda layer, size, kind=kind: kind(right(layer, size))) == "Right."


def test_other_ways_to_look_at_every_output_are_right():
    def by_jacobian(layer, size):
        jacobian = torch.autograd.functional.jacobian(layer, random(size).detach())
        return (jacobian.reshape(-1, size**2, size**2).triu() == 0).all()

    def by_a_change(layer, size):
        x = random(size).detach()
        changed = x.repeat(size**2, 1, 1, 1) + torch.eye(size**2, dtype=x.dtype).view(-1, 1, size, size)
        felt = [(layer(one[None]) - layer(x)).abs().sum(dim=1).flatten() for one in changed]
        return not torch.stack(felt).tril().any()

    for attempt in (by_jacobian, by_a_change):
        assert said(exercises.is_causal.check, attempt) == "Right."


def test_the_random_numbers_of_the_reader_go_on():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    for exercise in (exercises.masked_conv2d, exercises.down_shifted_conv2d, exercises.is_causal):
        said(exercise.check, pasted(exercise, GIVEN))
    assert torch.equal(torch.get_rng_state(), before)
