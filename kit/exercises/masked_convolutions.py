"""The exercises of notebook 01."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.layers import DownShiftedConv2d
from utils.model import down_shift, right_shift

from . import Exercise, blank, wrong_shape
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
            if not mask.is_floating_point():
                return f"the mask is {mask.dtype}; it multiplies a kernel of floats, so make it one of floats."
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
        for size in (3, 5, 2 * int(torch.randint(3, 9, ())) + 1):
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

    steps = {  # noqa: RUF012
        "the masks have the right shape": shapes,
        "kind 'A' closes the centre, kind 'B' opens it": centre,
        "the past is open and the future is closed, in kernels of any size": past_and_future,
    }


class PaddingOf(Exercise):
    """Where the zeros go, so that a convolution looks back only."""

    hints = (
        "Without padding, output (0, 0) would see rows 0 ... kh-1 and columns 0 ... kw-1. It must see rows up to 0 and "
        "columns up to 0 instead. How many rows and columns of zeros have to come before the picture?",
    )

    @staticmethod
    def answer(kernel_size: tuple[int, int]) -> tuple[int, int, int, int]:
        kh, kw = kernel_size
        return (kw - 1, 0, kh - 1, 0)

    def problem(self, attempt) -> str | None:
        for kernel_size in [(2, 2), (2, 1), (1, 3), (3, 2), (4, 5)]:
            result = attempt(kernel_size)
            if sentence := blank(result):
                return sentence
            if len(result) != 4:
                return f"four numbers were expected (left, right, top, bottom), not {len(result)}."
            if sentence := self._wrong_sides(kernel_size, tuple(int(n) for n in result)):
                return f"kernel {kernel_size}: {sentence}"
        return None

    @staticmethod
    def _wrong_sides(kernel_size: tuple[int, int], padding: tuple[int, ...]) -> str | None:
        """Pads a 6x6 picture so, convolves it with ones, and looks by gradients at what output (3, 3) sees."""
        kh, kw = kernel_size
        left, right, top, bottom = padding
        if left + right != kw - 1 or top + bottom != kh - 1:
            return (
                f"padding {padding} turns a 6x6 picture into {6 + top + bottom - kh + 1}x{6 + left + right - kw + 1}; "
                f"left + right must be {kw - 1}, and top + bottom {kh - 1}."
            )
        x = torch.zeros(1, 1, 6, 6, dtype=torch.float64, requires_grad=True)
        F.conv2d(F.pad(x, padding), torch.ones(1, 1, kh, kw, dtype=torch.float64))[0, 0, 3, 3].backward()
        assert x.grad is not None
        rows, columns = x.grad[0, 0].nonzero().amax(dim=0).tolist()
        if columns > 3:
            return f"with padding {padding} output (3, 3) sees column {columns}, which lies to its right."
        if rows > 3:
            return f"with padding {padding} output (3, 3) sees row {rows}, which lies below it."
        return None


class ReceptiveRows(Exercise):
    """How far up a stack looks."""

    hints = (
        "One layer sees kernel_height rows, its own among them. What does each further layer add, if it looks at rows "
        "that the layers below it have already summed up? Draw depth 2 and height 2 on paper.",
    )

    @staticmethod
    def answer(depth: int, kernel_height: int) -> int:
        return 1 + depth * (kernel_height - 1)

    def problem(self, attempt) -> str | None:
        for depth, height in [(1, 2), (2, 2), (4, 2), (3, 3), (5, 1)]:
            result = attempt(depth, height)
            if sentence := blank(result):
                return sentence
            rows = self._measured(depth, height)
            if result != rows:
                return f"depth {depth}, kernel height {height}: the gradient reaches {rows} rows, not {result}."
        return None

    @staticmethod
    def _measured(depth: int, height: int) -> int:
        layers = (DownShiftedConv2d(1, 1, (height, 1)) for _ in range(depth))
        x = torch.zeros(1, 1, 16, 1, dtype=torch.float64, requires_grad=True)
        nn.Sequential(*layers).double()(x)[0, 0, -1, 0].backward()
        assert x.grad is not None
        return int((x.grad != 0).sum())


def convolution(kernel: list[list[float]], padding: tuple[int, int, int, int]) -> Callable[[Tensor], Tensor]:
    weight = torch.tensor(kernel, dtype=torch.float64)[None, None]
    return lambda x: F.conv2d(F.pad(x, padding), weight)


ABOVE = convolution([[1, 2, 3], [4, 5, 6]], (1, 1, 1, 0))  # down-shifted, 2x3
LEFT = convolution([[1], [2]], (0, 0, 1, 0))  # down-right-shifted, 2x1
MASKED_A = convolution([[1, 2, 3], [4, 0, 0], [0, 0, 0]], (1, 1, 1, 1))
MASKED_B = convolution([[1, 2, 3], [4, 5, 0], [0, 0, 0]], (1, 1, 1, 1))
RIGHT = convolution([[1, 2]], (0, 1, 0, 0))

# what it is, the layer, is it causal, what an answer that gets it wrong has overlooked
LAYERS = [
    ("down_shift of a down-shifted convolution", lambda x: down_shift(ABOVE(x)), True, "it sees the rows above alone"),
    ("a convolution with mask A", MASKED_A, True, "it sees the past alone, though not all of it"),
    ("a convolution with mask B", MASKED_B, False, "it sees the pixel itself, which is not yet drawn"),
    ("a down-shifted convolution without down_shift", ABOVE, False, "it sees its own row"),
    ("a convolution padded on the right", RIGHT, False, "it sees the pixel to the right"),
    (
        "right_shift made by torch.roll",
        lambda x: LEFT(x).roll(1, dims=3),
        False,
        "what leaves at the right comes in at the left, so column 0 sees its row's end: look at every output",
    ),
    (
        "a layer whose two output channels are the pixel itself and its negative",
        lambda x: torch.cat([x, -x], dim=1),
        False,
        "in a sum over channels the two gradients cancel: take each channel by itself",
    ),
    (
        "a layer that squares",
        lambda x: x.square(),
        False,
        "its gradient is 0 where x is 0: use a random x",
    ),
    ("down_shift and right_shift together", lambda x: down_shift(x) + right_shift(x), True, "it sees the past alone"),
]


class IsCausal(Exercise):
    """The X-ray as a test."""

    hints = (
        "For every output channel and pixel (i, j): torch.autograd.grad(out[0, c, i, j], x, retain_graph=True)[0], "
        "flattened in reading order. From entry i * size + j on, all must be exactly 0.",
    )

    @staticmethod
    def answer(layer: Callable[[Tensor], Tensor], size: int) -> bool:
        x = torch.randn(1, 1, size, size, dtype=torch.float64, requires_grad=True)
        for channel in layer(x)[0]:  # (size, size)
            for n, out in enumerate(channel.flatten()):
                (gradient,) = torch.autograd.grad(out, x, retain_graph=True)
                if gradient.flatten()[n:].any():
                    return False
        return True

    def problem(self, attempt) -> str | None:
        for name, layer, expected, why in LAYERS:
            result = attempt(layer, 5)
            if sentence := blank(result):
                return sentence
            if bool(result) != expected:
                return f"{name} {'is' if expected else 'is not'} causal ({why}), but you say {bool(result)}."
        return None


kernel_mask, padding_of, receptive_rows, is_causal = KernelMask(), PaddingOf(), ReceptiveRows(), IsCausal()
