"""The exercises of notebook 01."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils import layers
from utils.model import down_shift, right_shift

from . import Exercise, blank, difference, no_number, some, wrong_shape
from .pieces import Piece
from .solutions import masked_convolutions as solutions


class KernelMask(Piece):
    """The masks of PixelCNN (van den Oord et al. 2016)."""

    hints = (
        "Read the kernel as you read a page. Which of its entries come before the centre?",
        "Rows below the middle row come later, and so do the columns right of the middle in the middle row. Kind 'A' "
        "closes the centre itself as well, kind 'B' opens it.",
        "middle = kernel_size // 2. Begin with torch.ones(kernel_size, kernel_size), set the rows from middle + 1 on "
        "to 0, then in row `middle` the columns from middle on (kind 'A') or from middle + 1 on (kind 'B').",
    )
    answer = staticmethod(solutions.kernel_mask)

    def shapes(self, attempt) -> str | None:
        for size in (1, 3, 5):
            mask = attempt(size, "A")
            if sentence := blank(mask) or wrong_shape(mask, (size, size)):
                return f"kernel_size {size}: {sentence}"
            if mask.dtype != torch.float32:
                return f"the mask is {mask.dtype}; it multiplies kernels of float32, so make it one of these: .float()."
        return None

    def centre(self, attempt) -> str | None:
        for size in (1, 3, 5):
            a, b = (float(attempt(size, kind)[size // 2, size // 2]) for kind in "AB")
            if a != 0:
                return f"kernel_size {size}: kind 'A' must close the centre, but there it is {a:g}."
            if b != 1:
                return f"kernel_size {size}: kind 'B' lets the centre through, but there it is {b:g}."
        return None

    def past_and_future(self, attempt) -> str | None:
        for size in (3, 5, 2 * some(3, 8) + 1):
            for kind in "AB":
                if sentence := self._wrong_entry(attempt(size, kind), size):
                    return f"kernel_size {size}, kind {kind!r}: {sentence}"
        return None

    @staticmethod
    def _wrong_entry(mask: Tensor, size: int) -> str | None:
        middle = size // 2
        for i in range(size):
            for j in range(size):
                entry = f"entry ({i}, {j}) is {float(mask[i, j]):g}"
                if (i, j) > (middle, middle) and mask[i, j] != 0:
                    where = "below the middle row" if i > middle else "right of the centre"
                    return f"{entry}; it lies {where}, in the future, and must be 0."
                if (i, j) < (middle, middle) and mask[i, j] != 1:
                    return f"{entry}; it lies in the past and must be 1."
        return None

    steps = {
        "the masks have the right shape": shapes,
        "kind 'A' closes the centre, kind 'B' opens it": centre,
        "the past is open and the future is closed, in kernels of any size": past_and_future,
    }


class MaskedConvolution(Piece):
    """A convolution whose kernel is multiplied by a mask, each time it is used."""

    hints = (
        "An nn.Conv2d has all that you need but the mask. Which padding keeps height and width, and which product has "
        "to be made anew each time, because an optimiser changes the weights?",
        "Make it a subclass of nn.Conv2d, with padding=kernel_size // 2. register_buffer keeps a tensor that is no "
        "parameter. nn.Conv2d's own forward knows nothing of the mask, so write another one with F.conv2d.",
        "__init__: super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2), then "
        "self.register_buffer('mask', kernel_mask(kernel_size, kind)). forward: F.conv2d of x with the kernel "
        "self.weight * self.mask, with self.bias and padding=self.padding.",
    )
    answer = staticmethod(solutions.MaskedConv2d)

    def shapes(self, attempt) -> str | None:
        for channels, out_channels, size, kind, batch in [(3, 8, 3, "A", 2), (1, 2, 5, "B", 1), (4, 4, 7, "A", 3)]:
            out = attempt(channels, out_channels, size, kind)(torch.randn(batch, channels, 6, 9))
            if sentence := blank(out) or wrong_shape(out, (batch, out_channels, 6, 9)):
                return f"kernel_size {size}, {batch} pictures of 6x9 with {channels} channels: {sentence}"
        return None

    def parts(self, attempt) -> str | None:
        layer = attempt(3, 8, 5, "B")
        parameters, buffers = dict(layer.named_parameters()), dict(layer.named_buffers())
        for name, shape in {"weight": (8, 3, 5, 5), "bias": (8,)}.items():
            if name not in parameters:
                return f"it needs a parameter called `{name}`, as nn.Conv2d has; yours are {list(parameters)}."
            if sentence := wrong_shape(parameters[name], shape):
                return f"`{name}`: {sentence}"
        if "mask" in parameters:
            return "the mask is a parameter, so an optimiser would change it; make it a buffer: register_buffer."
        if "mask" not in buffers or "mask" not in layer.state_dict():
            return "there is no buffer called `mask`, which .to() would move and state_dict() would hold."
        if len(parameters) != 2:
            return f"weight and bias alone are learnt, but the parameters are {list(parameters)}."
        sentence = difference(layer.mask.expand(8, 3, 5, 5)[0, 0], solutions.kernel_mask(5, "B"))
        return sentence and f"kernel_size 5, kind 'B': in the buffer `mask` {sentence}"

    def counts(self, attempt) -> str | None:
        for size, kind in [(3, "B"), (3, "A"), (5, "A")]:
            layer = attempt(1, 1, size, kind)
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
            picture = torch.ones(1, 1, 5, 6)
            kernel = solutions.kernel_mask(size, kind)[None, None]
            if sentence := difference(layer(picture), F.conv2d(picture, kernel, padding=size // 2), 1e-5):
                return (
                    f"kernel_size {size}, kind {kind!r}, every weight 1, bias 0, a picture of ones: each output counts "
                    f"the open taps that lie inside the picture, but {sentence} Is it the kernel that the mask "
                    "multiplies, and does that happen in forward, with the weights as they are then?"
                )
        return None

    def gradients(self, attempt) -> str | None:
        for kind in "AB":
            layer = attempt(2, 3, 3, kind).double()
            x = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
            optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
            layer(x).square().sum().backward()
            closed = solutions.kernel_mask(3, kind).expand(3, 2, 3, 3) == 0
            if layer.weight.grad is None or not layer.weight.grad.any():
                return f"kind {kind!r}: no gradient reaches `weight`, so it would never learn."
            if layer.weight.grad[closed].any():
                return (
                    f"kind {kind!r}: weights that the mask closes have a gradient. Leave `weight` as it is, and let "
                    "forward multiply it by the mask where autograd sees it."
                )
            optimiser.step()
            if sentence := leak(layer, x, own=kind == "B", sideways=False):
                return f"kind {kind!r}, after a step of an optimiser: {sentence}"
        return None

    def equal(self, attempt) -> str | None:
        for kind in "ABAB":  # twice: by chance all biases of one may be positive
            size, (batch, height, width) = 2 * some(1, 3) + 1, torch.randint(1, 9, (3,)).tolist()
            mine, ours = (make(3, 4, size, kind).double() for make in (attempt, solutions.MaskedConv2d))
            with torch.no_grad():
                for name in ("weight", "bias"):
                    getattr(mine, name).copy_(getattr(ours, name).normal_())
            x = torch.randn(batch, 3, height, width, dtype=torch.float64)
            if sentence := difference(mine(x), ours(x)):
                return f"kernel_size {size}, kind {kind!r}, {batch} pictures of {height}x{width}: {sentence}"
        return None

    steps = {
        "it keeps height and width, with any kernel and any batch": shapes,
        "weight and bias are parameters, the mask is a buffer": parts,
        "with weights of 1 it counts the open taps": counts,
        "closed weights get no gradient, and nothing leaks after a step of an optimiser": gradients,
        "it equals the solution on random pictures": equal,
    }


def leak(layer, x: Tensor, own: bool, sideways: bool, stride: int = 1) -> str | None:
    """What an output sees of the future. Output (i, j) stands at pixel (stride i, stride j); `own`: it may see that
    one; `sideways`: and all of its row."""
    out = layer(x)[0].sum(dim=0)
    for i, j in [(i, j) for i in range(out.shape[0]) for j in range(out.shape[1])]:
        (gradient,) = torch.autograd.grad(out[i, j], x, retain_graph=True)
        row, column = stride * i, stride * j
        for r, c in gradient[0].abs().sum(dim=0).nonzero().tolist():
            at = f"output ({i}, {j})" + (f", which stands at pixel ({row}, {column})," if stride > 1 else "")
            if r > row:
                return f"{at} sees pixel ({r}, {c}), which lies below it."
            if c > column and r == row and not sideways:
                return f"{at} sees pixel ({r}, {c}), which lies to its right in the same row."
            if (r, c) == (row, column) and not own:
                return f"{at} sees its own pixel."
    return None


class ShiftedConvolution(Piece):
    """What the two kinds have in common."""

    ours: Callable  # the kit's own, which is locked while an attempt is examined
    kernels: tuple[tuple[int, int], ...]  # the default first
    sideways: bool  # whether output (i, j) may see what lies to the right of (i, j) in row i
    what_it_sees: str

    def shapes(self, attempt) -> str | None:
        for kernel_size in self.kernels:
            for stride in (1, 2):
                out = attempt(3, 4, kernel_size, stride)(torch.randn(2, 3, 6, 8))
                if sentence := blank(out) or wrong_shape(out, (2, 4, 6 // stride, 8 // stride)):
                    return f"kernel_size {kernel_size}, stride {stride}, 2 pictures of 6x8: {sentence}"
        return None

    def parts(self, attempt) -> str | None:
        layer, ours = (make(3, 4, init_scale=0.25) for make in (attempt, self.ours))
        for name in ("conv", "padding", "init_scale"):
            if not hasattr(layer, name):
                return f"it needs an attribute called `{name}`; later notebooks read it."
        if not isinstance(layer.conv, nn.Conv2d):
            return f"`conv` should be an nn.Conv2d, weight-normalised, not a {type(layer.conv).__name__}."
        if tuple(layer.conv.kernel_size) != self.kernels[0]:
            return f"without kernel_size it is {tuple(layer.conv.kernel_size)}, but it should be {self.kernels[0]}."
        for stride in (1, 2):
            conv = attempt(3, 4, stride=stride).conv
            if tuple(conv.stride) != (stride, stride) or conv.padding not in (0, (0, 0), "valid"):
                return (
                    f"asked for stride {stride}, `conv` has the stride {conv.stride} and the padding {conv.padding}; "
                    f"give it the stride {stride}, and leave the padding to F.pad."
                )
        for when, asked, scale in (("asked for", 0.25, layer.init_scale), ("left out", 1.0, attempt(3, 4).init_scale)):
            if scale != asked:
                return f"`init_scale` should be {asked} when {when}, not {scale}."
        mine, theirs = (
            {name: tuple(value.shape) for name, value in each.state_dict().items()} for each in (layer, ours)
        )
        if "conv.weight" in mine:
            return "`conv` is not weight-normalised: wrap it, weight_norm(nn.Conv2d(...), dim=0)."
        if mine != theirs:
            name = next(name for name in [*theirs, *mine] if mine.get(name) != theirs.get(name))
            told = [f"is of shape {each[name]}" if name in each else "is missing" for each in (mine, theirs)]
            return (
                f"`{name}` in state_dict() {told[0]}; in the kit's layer it {told[1]}. That is what "
                "weight_norm(nn.Conv2d(...), dim=0) of torch.nn.utils.parametrizations makes."
            )
        if not isinstance(layer.padding, tuple | list) or len(layer.padding) != 4:
            return f"`padding` is {layer.padding}, but it should be four numbers: (left, right, top, bottom)."
        return None

    def counts(self, attempt) -> str | None:
        layer, ours = (make(1, 1).double() for make in (attempt, self.ours))
        for each in (layer, ours):
            each.conv.weight = torch.ones(1, 1, *self.kernels[0], dtype=torch.float64)
            nn.init.zeros_(each.conv.bias)
        picture = (10.0 ** torch.arange(6, dtype=torch.float64)).view(1, 1, 2, 3)
        expected = ours(picture)
        if sentence := difference(layer(picture), expected):
            return (
                f"weights 1, bias 0, and the picture [[1, 10, 100], [1000, 10000, 100000]]: {sentence} Its digits say "
                f"which pixels it adds up: output (0, 0) should see {self.what_it_sees}."
            )
        return None

    def causal(self, attempt) -> str | None:
        for kernel_size in self.kernels:
            for stride in (1, 2):
                x = torch.randn(1, 2, 6, 6, dtype=torch.float64, requires_grad=True)
                layer = attempt(2, 3, kernel_size, stride).double()
                if sentence := leak(layer, x, own=True, sideways=self.sideways, stride=stride):
                    return f"kernel_size {kernel_size}, stride {stride}: {sentence}"
        return None

    def equal(self, attempt) -> str | None:
        for kernel_size in self.kernels:
            stride, batch, height, width = (int(torch.randint(1, most, ())) for most in (3, 4, 10, 10))
            mine, ours = (make(3, 4, kernel_size, stride, 0.5).double() for make in (attempt, self.ours))
            if tuple(mine.padding) != ours.padding:
                return (
                    f"kernel_size {kernel_size}: `padding` is {tuple(mine.padding)}; forward should use {ours.padding}."
                )
            for parameter in ours.parameters():
                nn.init.normal_(parameter)
            mine.load_state_dict(ours.state_dict())
            x = torch.randn(batch, 3, height, width, dtype=torch.float64)
            if sentence := difference(mine(x), ours(x)):
                return (
                    f"kernel_size {kernel_size}, stride {stride}, init_scale 0.5, with the kit's weights, {batch} "
                    f"pictures of {height}x{width}: {sentence}"
                )
        return None

    steps = {
        "the shapes are right, with stride 1 and 2 and any kernel": shapes,
        "its parts have the names and shapes that later notebooks count on": parts,
        "with weights of 1 it adds up the right pixels": counts,
        "no output sees what it must not, with stride 1 and 2": causal,
        "with the kit's weights it equals the kit's layer": equal,
    }


class DownShifted(ShiftedConvolution):
    """Rows up to the output's own, left and right alike."""

    hints = (
        "Work out first where the zeros go: how many rows above, and how many columns on either side, so that the "
        "kernel's bottom middle tap lies on pixel (i, j) itself? All else is one convolution.",
        "(left, right, top, bottom): kw - 1 columns in all, shared equally by left and right, and kh - 1 rows, all on "
        "top. The convolution itself gets no padding. F.pad takes the four numbers in that very order.",
        "__init__: super().__init__(); kh, kw = kernel_size; self.padding = (kw // 2, kw // 2, kh - 1, 0); "
        "self.init_scale = init_scale; self.conv = weight_norm(nn.Conv2d(in_channels, out_channels, kernel_size, "
        "stride), dim=0). forward: self.conv of F.pad(x, self.padding).",
    )
    answer = staticmethod(solutions.DownShiftedConv2d)
    kit = "utils.layers.DownShiftedConv2d"
    ours = staticmethod(layers.DownShiftedConv2d)
    kernels = ((2, 3), (1, 3), (2, 1), (3, 5))
    sideways = True
    what_it_sees = "rows up to 0, and columns up to kw // 2 on either side"


class DownRightShifted(ShiftedConvolution):
    """Rows up to the output's own, columns up to its own."""

    hints = (
        "It differs from the layer before by its padding and its default kernel alone. You have worked the padding out "
        "already, in padding_of.",
        "Now the kernel's bottom right tap lies on pixel (i, j) itself, so nothing is padded on the right or below. "
        "You may write the class anew, or as a subclass of your DownShiftedConv2d that sets another padding.",
        "As in DownShiftedConv2d, with kernel_size=(2, 2) and self.padding = (kw - 1, 0, kh - 1, 0). As a subclass: "
        "call super().__init__ with all five arguments, then set self.padding.",
    )
    answer = staticmethod(solutions.DownRightShiftedConv2d)
    kit = "utils.layers.DownRightShiftedConv2d"
    ours = staticmethod(layers.DownRightShiftedConv2d)
    kernels = ((2, 2), (2, 1), (1, 3), (2, 3), (3, 5))
    sideways = False
    what_it_sees = "rows and columns up to 0"


class PaddingOf(Exercise):
    """Where the zeros go, so that a convolution looks back only."""

    name = "padding_of"
    hints = (
        "Without padding, output (0, 0) would see rows 0 ... kh-1 and columns 0 ... kw-1. It must see rows up to 0 and "
        "columns up to 0 instead. How many rows and columns of zeros have to come before the picture?",
    )

    @staticmethod
    def answer(kernel_size: tuple[int, int]) -> tuple[int, int, int, int]:
        kh, kw = kernel_size
        return (kw - 1, 0, kh - 1, 0)

    def problem(self, attempt) -> str | None:
        at_random = (some(2, 5), some(2, 5))
        for kernel_size in [(2, 2), (2, 1), (1, 3), (3, 2), (4, 5), at_random]:
            result = attempt(kernel_size)
            if sentence := blank(result):
                return sentence
            numbers = list(result) if hasattr(result, "__len__") else [result]
            if len(numbers) != 4:
                return f"four numbers were expected (left, right, top, bottom), not {len(numbers)}."
            if not all(no_number(n) is None and float(n) == int(n) for n in numbers):
                return f"four whole numbers were expected (left, right, top, bottom), not {tuple(numbers)}."
            if sentence := self._wrong_sides(kernel_size, tuple(int(n) for n in numbers)):
                return f"kernel {kernel_size}: {sentence}"
        return None

    @staticmethod
    def _wrong_sides(kernel_size: tuple[int, int], padding: tuple[int, ...]) -> str | None:
        kh, kw = kernel_size
        left, right, top, bottom = padding
        if min(padding) < 0:
            return f"padding {padding} is negative on a side; that cuts pixels off, which no output would see any more."
        if left + right != kw - 1 or top + bottom != kh - 1:
            return (
                f"padding {padding} turns a 6x6 picture into {6 + top + bottom - kh + 1}x{6 + left + right - kw + 1}; "
                f"left + right must be {kw - 1}, and top + bottom {kh - 1}."
            )
        if right:
            return f"with padding {padding} output (i, j) sees column j+{right}, which lies to its right."
        if bottom:
            return f"with padding {padding} output (i, j) sees row i+{bottom}, which lies below it."
        return None


class ReceptiveRows(Exercise):
    """How far up a stack looks."""

    name = "receptive_rows"
    hints = (
        "One layer sees kernel_height rows, its own among them. What does each further layer add, if it looks at rows "
        "that the layers below it have already summed up? Draw depth 2 and height 2 on paper.",
    )

    @staticmethod
    def answer(depth: int, kernel_height: int) -> int:
        return 1 + depth * (kernel_height - 1)

    def problem(self, attempt) -> str | None:
        at_random = (some(6, 29), some(4, 8))
        for depth, height in [(1, 2), (2, 2), (4, 2), (3, 3), (5, 1), at_random]:
            result = attempt(depth, height)
            if sentence := no_number(result):
                return sentence
            rows = self.answer(depth, height)
            if float(result) != rows:
                return f"depth {depth}, kernel height {height}: the gradient reaches {rows} rows, not {result}."
        return None


def convolution(kernel: list[list[float]], padding: tuple[int, int, int, int]) -> Callable[[Tensor], Tensor]:
    weight = torch.tensor(kernel, dtype=torch.float64)[None, None]
    return lambda x: F.conv2d(F.pad(x, padding), weight)


ABOVE = convolution([[1, 2, 3], [4, 5, 6]], (1, 1, 1, 0))  # down-shifted, 2x3
LEFT = convolution([[1], [2]], (0, 0, 1, 0))  # down-right-shifted, 2x1
MASKED_A = convolution([[1, 2, 3], [4, 0, 0], [0, 0, 0]], (1, 1, 1, 1))
MASKED_B = convolution([[1, 2, 3], [4, 5, 0], [0, 0, 0]], (1, 1, 1, 1))
RIGHT = convolution([[1, 2]], (0, 1, 0, 0))


def only_at(sound: Callable, leaky: Callable, where: Callable) -> Callable[[Tensor], Tensor]:
    """A layer whose outputs are those of `leaky` where where(rows, columns) says so, else those of `sound`."""

    def layer(x: Tensor) -> Tensor:
        here = where(torch.arange(x.shape[2])[:, None], torch.arange(x.shape[3]))
        return torch.where(here, leaky(x), sound(x))

    return layer


def past_only(x: Tensor) -> Tensor:
    return down_shift(ABOVE(x))


def far_right(x: Tensor) -> Tensor:
    """The pixel five columns to the right."""
    return F.pad(x[:, :, :, 5:], (0, 5)) + past_only(x)


def last_two(x: Tensor) -> Tensor:
    """A little of the picture's last pixel, less as much of the one before it."""
    return past_only(x) + 1e-4 * (x[:, :, -1:, -1:] - x[:, :, -1:, -2:-1])


# what it is, the layer, is it causal, what an answer that gets it wrong has overlooked
LAYERS = [
    ("down_shift of a down-shifted convolution", past_only, True, "it sees the rows above alone"),
    ("a convolution with mask A", MASKED_A, True, "it sees the past alone, though not all of it"),
    ("a convolution with mask B", MASKED_B, False, "it sees the pixel itself, which is not yet known"),
    ("a down-shifted convolution without down_shift", ABOVE, False, "it sees its own row"),
    ("a convolution padded on the right", RIGHT, False, "it sees the pixel to the right"),
    (
        "right_shift made by torch.roll",
        lambda x: LEFT(x).roll(1, dims=3),
        False,
        "what leaves at the right comes in at the left, so column 0 sees its row's end: look at every output",
    ),
    (
        "a layer that leaks in the last row alone",
        only_at(past_only, RIGHT, lambda i, j: i == i.max()),
        False,
        "there an output sees the pixel to its right: look at every row",
    ),
    (
        "a layer that leaks at odd columns alone",
        only_at(past_only, RIGHT, lambda i, j: j % 2 == 1),
        False,
        "there an output sees the pixel to its right: look at every column",
    ),
    (
        "a layer that leaks at one inner pixel alone",
        only_at(past_only, RIGHT, lambda i, j: (i == 1) & (j == 2)),
        False,
        "output (1, 2) sees the pixel to its right: look at every output",
    ),
    (
        "a layer that subtracts the picture's mean",
        lambda x: past_only(x) - x.mean(dim=(1, 2, 3), keepdim=True),
        False,
        "a mean over the picture holds every pixel of the future",
    ),
    (
        "a layer that sees the row below alone",
        lambda x: F.pad(x[:, :, 1:], (0, 0, 0, 1)),
        False,
        "rows below are the future too",
    ),
    (
        "a layer whose two output channels are the pixel itself and its negative",
        lambda x: torch.cat([x, -x], dim=1),
        False,
        "in a sum over channels the two gradients cancel: take each channel by itself",
    ),
    (
        "a layer whose third output channel alone leaks",
        lambda x: torch.cat([past_only(x), past_only(x), x], dim=1),
        False,
        "look at every channel",
    ),
    (
        "a layer that squares each pixel's distance from the mean",
        lambda x: (x - x.mean(dim=(1, 2, 3), keepdim=True)).square(),
        False,
        "its gradient is 0 where x is constant: use a random x",
    ),
    (
        "a layer whose first row sees the last two pixels, weakly, one with the opposite sign of the other",
        only_at(past_only, last_two, lambda i, j: i == 0),
        False,
        "look at all later pixels, each by itself, and count whatever is not 0",
    ),
    ("down_shift and right_shift together", lambda x: down_shift(x) + right_shift(x), True, "it sees the past alone"),
]
SIZES = (5, 8)


class IsCausal(Exercise):
    """The X-ray as a test."""

    name = "is_causal"
    hints = (
        "Which entries of the Jacobian must be 0? An answer that looks at one output, one row or one channel will miss "
        "some leaks.",
        "For every output channel and pixel (i, j): torch.autograd.grad(out[0, c, i, j], x, retain_graph=True)[0], "
        "flattened in raster order. From entry i * size + j on, all must be exactly 0.",
    )

    @staticmethod
    def answer(layer, size):
        x = torch.randn(1, 1, size, size, dtype=torch.float64, requires_grad=True)
        for channel in layer(x)[0]:  # (size, size)
            for n, out in enumerate(channel.flatten()):
                (gradient,) = torch.autograd.grad(out, x, retain_graph=True)
                if gradient.flatten()[n:].any():
                    return False
        return True

    def problem(self, attempt) -> str | None:
        far = "a layer that sees the pixel five columns to the right"
        cases = [(size, *layer) for size in SIZES for layer in LAYERS]
        cases += [
            (5, far, far_right, True, "the picture has five columns, so there is none so far right"),
            (8, far, far_right, False, "the picture has eight columns: test at the size that is asked for"),
        ]
        for size, name, layer, expected, why in cases:
            result = attempt(layer, size)
            if sentence := blank(result):
                return sentence
            if no_number(result) or float(result) not in (0, 1):
                return f"True or False was expected, not {result!r:.60}."
            if bool(result) != expected:
                is_or_not = "is" if expected else "is not"
                return f"size {size}: {name} {is_or_not} causal ({why}), but you say {bool(result)}."
        return None


kernel_mask, masked_conv2d = KernelMask(), MaskedConvolution()
padding_of, receptive_rows, is_causal = PaddingOf(), ReceptiveRows(), IsCausal()
down_shifted_conv2d, down_right_shifted_conv2d = DownShifted(), DownRightShifted()
