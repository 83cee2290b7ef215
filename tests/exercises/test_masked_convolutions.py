import torch
from common import check_exercise

from kit.exercises import masked_convolutions as exercises


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

    right = exercises.kernel_mask.answer
    wrong = {
        "lets the centre through, but kind 'A' must not: entry (0, 0) is 1": lambda k, kind: right(k, "B"),
        "kind 'B': the mask closes the centre": lambda k, kind: right(k, "A"),
        "entry (1, 0) is 0; it lies in the past": rows_above_only,
        "entry (1, 2) is 1; it lies right of the centre": all_but_the_centre,
        "the shape is": lambda k, kind: right(k, kind)[: k // 2],
        "entry (0, 0) is 0; it lies in the past": lambda k, kind: torch.tril(torch.ones(k, k), -(kind == "A")),
    }
    check_exercise(exercises.kernel_mask, lambda k, kind: ..., wrong)


def test_padding_of():
    wrong = {
        "which lies to its right": lambda kernel: (kernel[1] // 2, kernel[1] - 1 - kernel[1] // 2, kernel[0] - 1, 0),
        "which lies below": lambda kernel: (kernel[1] - 1, 0, 0, kernel[0] - 1),
        "kernel (2, 1): padding (1, 0, 0, 0)": lambda kernel: (kernel[0] - 1, 0, kernel[1] - 1, 0),
        "turns a 6x6 picture into 5x5": lambda kernel: (0, 0, 0, 0),
        "four numbers": lambda kernel: (kernel[1] - 1, kernel[0] - 1),
    }
    check_exercise(exercises.padding_of, lambda kernel: ..., wrong)


def test_receptive_rows():
    wrong = {
        "depth 2, kernel height 2: the gradient reaches 3 rows, not 4": lambda depth, height: depth * height,
        "depth 1, kernel height 2: the gradient reaches 2 rows, not 1": lambda depth, height: depth * (height - 1),
    }
    check_exercise(exercises.receptive_rows, lambda depth, height: ..., wrong)


def gradients(layer, size, x):
    """For every output pixel and channel (n, the gradient in reading order)."""
    for channel in layer(x)[0]:
        for n, out in enumerate(channel.flatten()):
            yield n, torch.autograd.grad(out, x, retain_graph=True)[0].flatten()


def random(size):
    return torch.randn(1, 1, size, size, dtype=torch.float64, requires_grad=True)


def test_is_causal():
    def the_centre_may_be_seen(layer, size):
        return not any(gradient[n + 1 :].any() for n, gradient in gradients(layer, size, random(size)))

    def the_middle_pixel_only(layer, size):
        middle = size * (size // 2) + size // 2
        return not any(g[n:].any() for n, g in gradients(layer, size, random(size)) if n == middle)

    def channels_summed(layer, size):
        summed = lambda x: layer(x).sum(dim=1, keepdim=True)  # noqa: E731
        return not any(gradient[n:].any() for n, gradient in gradients(summed, size, random(size)))

    def at_zero(layer, size):
        x = torch.zeros(1, 1, size, size, dtype=torch.float64, requires_grad=True)
        return not any(gradient[n:].any() for n, gradient in gradients(layer, size, x))

    def the_whole_past_demanded(layer, size):
        found = list(gradients(layer, size, random(size)))
        return all(bool(gradient[:n].all()) and not gradient[n:].any() for n, gradient in found)

    wrong = {
        "mask B is not causal": the_centre_may_be_seen,
        "look at every output": the_middle_pixel_only,
        "cancel": channels_summed,
        "use a random x": at_zero,
        "is causal": the_whole_past_demanded,
        "without down_shift": lambda layer, size: layer is not exercises.MASKED_B,
    }
    check_exercise(exercises.is_causal, lambda layer, size: ..., wrong)
