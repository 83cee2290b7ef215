"""Muon: momentum, each step made orthogonal (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

A convolution's kernel is a matrix: a row for each output channel, a column for each number that the channel reads. Its
gradient G = U S V' has singular values of very different sizes, so a step along G changes a few directions a lot and
the others hardly at all. Muon steps along U V', the (semi-)orthogonal matrix nearest to G, which changes all equally.
Five Newton-Schulz steps, which are matrix products alone, come close enough to it.

Under weight normalisation the kernel is the direction v. Its length does not change the output, only how far a step
turns it: steps lengthen v, weight decay shortens it. Gains, biases and the class's embeddings are not matrices that act
on a signal: Adam trains those.

`torch.optim.Muon` (PyTorch 2.9 or newer) takes parameters that are matrices and handles them one by one, in bfloat16
even where that is emulated: 6 to 26 times slower here. A PixelCNN++ has many small kernels of few shapes; those of one
shape go through one batched product.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan's: steep at 0, so that small singular values grow fast
NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Muon for the kernels of a model's convolutions, Adam for its other parameters.

    Args:
        lr: the kernels' learning rate.
        adam_lr: that of the other parameters. Their group holds it in units of `lr` as `relative_lr`, so that one
            schedule can drive both.
        momentum: Nesterov's, of the kernels' gradients.
        weight_decay: a step shortens the kernels by lr * weight_decay of their length.
    """

    def __init__(self, model: nn.Module, lr=0.02, adam_lr=0.005, momentum=0.95, weight_decay=0.0):
        alike: dict[tuple, list[nn.Parameter]] = {}  # kernels of one kind and shape
        others = dict.fromkeys(model.parameters())
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                kernel = kernel_of(module)
                alike.setdefault((isinstance(module, nn.ConvTranspose2d), kernel.shape), []).append(kernel)
                del others[kernel]
        groups = [{"params": kernels, "transposed": transposed} for (transposed, _), kernels in alike.items()]
        fused = next(model.parameters()).device.type != "mps"
        self.adam = torch.optim.Adam([{"params": list(others), "relative_lr": adam_lr / lr}], adam_lr, fused=fused)
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__([*groups, *self.adam.param_groups], defaults)
        self.adam.state = self.state

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step along the gradients. Parameters without a gradient stay as they are."""
        for group in self.param_groups[:-1]:
            kernels = [kernel for kernel in group["params"] if kernel.grad is not None]
            if kernels:
                self._turn(kernels, group["lr"], group["momentum"], group["weight_decay"], group["transposed"])
        self.adam.step()

    def load_state_dict(self, state_dict) -> None:
        super().load_state_dict(state_dict)  # replaces the groups and the state, which Adam shares
        shared = {"param_groups": self.param_groups[-1:], "state": self.state}
        self.adam.__setstate__(shared)  # adds what an older PyTorch did not save

    def _turn(self, kernels, lr, momentum, weight_decay, transposed):
        for kernel in kernels:
            if kernel not in self.state:
                self.state[kernel]["momentum_buffer"] = torch.zeros_like(kernel)
        averages = [self.state[kernel]["momentum_buffer"] for kernel in kernels]
        grads = [kernel.grad for kernel in kernels]
        torch._foreach_lerp_(averages, grads, 1 - momentum)
        ahead = torch.stack(torch._foreach_lerp(grads, averages, momentum))  # (N, out, in, kh, kw)
        if transposed:  # (N, in, out, kh, kw): outputs first here too
            ahead = ahead.transpose(1, 2)
        steps = orthogonalised(ahead.flatten(2)).view_as(ahead)
        steps *= max(1, steps.shape[1] / steps[0, 0].numel()) ** 0.5  # √(rows / columns)
        if transposed:
            steps = steps.transpose(1, 2)
        torch._foreach_mul_(kernels, 1 - lr * weight_decay)
        torch._foreach_add_(kernels, steps.unbind(), alpha=-lr)


def kernel_of(conv) -> nn.Parameter:
    """The weight of a convolution; under weight normalisation its direction v."""
    return conv.parametrizations.weight.original1 if is_parametrized(conv) else conv.weight


def orthogonalised(matrices: Tensor) -> Tensor:
    """Close to U V' of each matrix U S V': (N, rows, columns) -> the same. Singular values that were above 0.0015 of
    the matrix's norm are between 0.68 and 1.21 afterwards, smaller ones below.

    The quintic X <- a X + b (X X') X + c (X X')^2 X acts on each singular value alone and drives it towards 1. All it
    needs of X is the small square X X', so the steps are worked out on that and multiplied with X once, at the end.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices  # X X' is the smaller of the two squares
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)  # no singular value is above 1
    square = x @ x.mT
    eye = torch.eye(square.shape[1], device=x.device, dtype=x.dtype)
    product = eye.expand_as(square)
    for _ in range(NEWTON_SCHULZ_STEPS):
        factor = a * eye + b * square + c * square @ square
        product, square = factor @ product, factor @ square @ factor
    x = product @ x
    return x.mT if tall else x
