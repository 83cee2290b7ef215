"""Muon against the singular value decomposition and formulas by hand, in float64."""

import math

import pytest
import torch
from conftest import random_pictures, small_model, tiny
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from kit.train import train
from utils import training
from utils.muon import Muon, orthogonalised
from utils.training import TrainConfig, build_optimizer, train_step

LR, ADAM_LR, MOMENTUM, DECAY = 0.02, 0.005, 0.95, 0.1


def after_five_steps(s: float) -> float:
    """What becomes of a singular value, the matrix's norm being 1: Jordan's quintic, five times."""
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return s


def by_svd(matrix: torch.Tensor) -> torch.Tensor:
    """The step for one matrix: its singular vectors, its singular values through the quintic, the scale."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    s = torch.tensor([after_five_steps(v) for v in (s / s.square().sum().sqrt()).tolist()], dtype=s.dtype)
    return u @ (s[:, None] * vh) * max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5


def random_matrix(rows: int, columns: int, singular_values: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix with these singular values, and its polar factor U V'."""
    k = len(singular_values)
    u, v = (torch.linalg.qr(torch.randn(n, k, dtype=torch.float64))[0] for n in (rows, columns))
    return u * torch.tensor(singular_values, dtype=torch.float64) @ v.T, u @ v.T


@pytest.mark.parametrize("rows,columns", [(4, 9), (9, 4), (4, 4)])
def test_orthogonalised_is_close_to_the_polar_factor(rows, columns):
    """A thousandfold spread of singular values is left within what five steps promise, the vectors as they are."""
    matrices, polar = zip(*(random_matrix(rows, columns, [7.0, 1.0, 0.1, 0.015]) for _ in range(3)), strict=True)
    found = orthogonalised(torch.stack(matrices))
    for own, matrix, nearest in zip(found, matrices, polar, strict=True):
        assert torch.linalg.svdvals(own).min() > 0.68 and torch.linalg.svdvals(own).max() < 1.21
        assert torch.linalg.matrix_norm(own - nearest, 2) < 0.33, "no direction is farther from the polar factor"
        scale = max(1.0, rows / columns) ** 0.5
        torch.testing.assert_close(own * scale, by_svd(matrix), rtol=0, atol=1e-6)


def test_a_frozen_example():
    """diag(3, 4) has the norm 5: 0.6 and 0.8 go through the quintic, five times, on a pocket calculator."""
    found = orthogonalised(torch.tensor([[[3.0, 0.0], [0.0, 4.0]]], dtype=torch.float64))
    expected = torch.tensor([[[0.7228762, 0.0], [0.0, 1.1192039]]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert torch.equal(orthogonalised(torch.zeros(1, 2, 3)), torch.zeros(1, 2, 3)), "no gradient, no step"


class Kernels(nn.Module):
    """One of each kind: two alike, a tall one, a transposed one, none of them square; and what is no kernel."""

    def __init__(self):
        super().__init__()
        self.first = weight_norm(nn.Conv2d(3, 4, (2, 3)), dim=0)
        self.second = weight_norm(nn.Conv2d(3, 4, (2, 3)), dim=0)
        self.tall = weight_norm(nn.Conv2d(2, 9, 1), dim=0)
        self.back = weight_norm(nn.ConvTranspose2d(3, 5, (2, 3)), dim=1)
        self.plain = nn.Conv2d(3, 5, (1, 2))
        self.table = nn.Embedding(3, 4)


def directions(model: Kernels) -> dict[str, torch.Tensor]:
    names = [f"{name}.parametrizations.weight.original1" for name in ("first", "second", "tall", "back")]
    found = dict(model.named_parameters())
    return {name: found[name] for name in [*names, "plain.weight"]}


def matrix(name: str, kernel: torch.Tensor) -> torch.Tensor:
    """(out, all that one output reads)."""
    return (kernel.transpose(0, 1) if name.startswith("back") else kernel).flatten(1)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_three_steps_by_hand(memory_format):
    """Nesterov's momentum from averages of the gradients, the polar factor by SVD, the decay; Adam by its formula."""
    model = Kernels().double().to(memory_format=memory_format)
    optimizer = Muon(model, LR, ADAM_LR, MOMENTUM, DECAY)
    kernels, parameters = directions(model), dict(model.named_parameters())
    assert len(kernels) == 5 and len(parameters) == 5 + 4 + 5 + 1  # and lengths, biases, the table
    expected = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    first, second = ({name: torch.zeros_like(p) for name, p in parameters.items()} for _ in range(2))
    for step in (1, 2, 3):
        for name, parameter in parameters.items():
            g = parameter.grad = torch.randn_like(parameter)
            if name in kernels:
                first[name] = MOMENTUM * first[name] + (1 - MOMENTUM) * g
                ahead = MOMENTUM * first[name] + (1 - MOMENTUM) * g
                turn = by_svd(matrix(name, ahead))
                moved = (1 - LR * DECAY) * matrix(name, expected[name]) - LR * turn
                shape = expected[name].transpose(0, 1).shape if name.startswith("back") else expected[name].shape
                moved = moved.view(shape)
                expected[name] = moved.transpose(0, 1) if name.startswith("back") else moved
            else:
                first[name] = 0.9 * first[name] + 0.1 * g
                second[name] = 0.999 * second[name] + 0.001 * g**2
                root = (second[name] / (1 - 0.999**step)).sqrt()
                expected[name] = expected[name] - ADAM_LR * first[name] / (1 - 0.9**step) / (root + 1e-8)
        optimizer.step()
        for name, parameter in parameters.items():
            torch.testing.assert_close(parameter.detach(), expected[name], rtol=0, atol=1e-7, msg=f"{name}, {step}")


def test_every_kernel_of_the_network_goes_through_muon_and_nothing_else():
    model = small_model(fusion="all")
    *of_kernels, of_others = Muon(model).param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    kernels = [names[kernel] for group in of_kernels for kernel in group["params"]]
    assert sorted(kernels) == sorted(name for name in names.values() if name.endswith("weight.original1"))
    assert len(kernels) + len(of_others["params"]) == len(names), "each parameter once"
    transposed = [names[kernel] for group in of_kernels if group["transposed"] for kernel in group["params"]]
    assert len(transposed) == 4 and all(name.startswith("up_convs") for name in transposed)
    for group in of_kernels:
        assert len({kernel.shape for kernel in group["params"]}) == 1, "one batched product"


def test_a_parameter_without_a_gradient_stays():
    model = Kernels()
    optimizer = Muon(model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model.second(torch.ones(1, 3, 2, 3)).sum().backward()
    optimizer.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in before if name.startswith("second")}


def test_a_state_that_an_older_pytorch_saved():
    """Newer releases give Adam's groups more settings; those that a saved state lacks take their defaults."""
    optimizer = Muon(Kernels())
    state = optimizer.state_dict()
    del state["param_groups"][-1]["foreach"]
    state["param_groups"][-1].pop("decoupled_weight_decay", None)  # since PyTorch 2.7
    other = Kernels()
    resumed = Muon(other)
    resumed.load_state_dict(state)
    other.second(torch.ones(1, 3, 2, 3)).sum().backward()
    resumed.step()


def test_both_rates_follow_one_schedule(picture_folder, tmp_path, monkeypatch):
    seen = []
    step = training.train_step

    def look(model, x, y, optimizer, *rest):
        seen.append([group["lr"] for group in optimizer.param_groups])
        return step(model, x, y, optimizer, *rest)

    monkeypatch.setattr(training, "train_step", look)
    config = tiny(picture_folder, optimizer="muon", lr=0.02, adam_lr=0.003, schedule="cosine", warmup=2, epochs=4)
    train(*config, tmp_path / "run")
    share = [0.5, 0.5 * (1 + math.cos(math.pi / 4)), 0.5, 0.5 * (1 + math.cos(3 * math.pi / 4))]
    for rates, part in zip(seen, share, strict=True):
        assert rates == pytest.approx([0.02 * part] * (len(rates) - 1) + [0.003 * part])


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_a_step_in_sixteen_bits_is_nearly_that_in_thirty_two(precision):
    """Autocast and the loss's scaling change the gradient's last bits, and with them the step a little."""
    moved = []
    for dtype in (torch.float32, precision):
        model = small_model(torch.float32, fusion="all").train()
        before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        optimizer = build_optimizer(model, TrainConfig(optimizer="muon", lr=LR))
        scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)
        x = random_pictures(4, dtype=torch.float32)
        train_step(model, x, torch.tensor([0, 1, 2, 1]), optimizer, scaler, dtype, grad_clip=1.0)
        moved.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]) - before)
    assert moved[0].norm() > 0.1
    assert torch.cosine_similarity(*moved, dim=0) > 0.95


def test_a_gradient_that_overflows_in_float16_costs_the_step_and_nothing_else():
    model = small_model(torch.float32).train()
    optimizer = build_optimizer(model, TrainConfig(optimizer="muon", lr=LR))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    step = (model, random_pictures(2, dtype=torch.float32), torch.tensor([0, 1]), optimizer, scaler, torch.float16)
    train_step(*step, grad_clip=1.0)
    assert all(torch.equal(new, old) for new, old in zip(model.parameters(), before, strict=True))
    assert not optimizer.state and scaler.get_scale() == 2.0**39
