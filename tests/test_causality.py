"""No output sees the future, none is blind to the past: float64 gradients of every output on every input."""

import pytest
import torch
from conftest import random_pictures, small_model

import utils.model
from utils import fusion

SIZE = 8


def influence(model) -> torch.Tensor:
    """|gradient| of output pixel p (random weights on its channels) on input pixel q, colours kept apart:
    (H W, 3, H W)."""
    x = random_pictures(2, SIZE).requires_grad_()
    y = torch.tensor([0, 2])
    params = model(x, y)
    weighted = (params * torch.randn(params.shape[:2], dtype=params.dtype)[..., None, None]).sum((0, 1)).flatten()
    rows = [torch.autograd.grad(out, x, retain_graph=True)[0].abs().amax(0).flatten(1) for out in weighted]
    return torch.stack(rows)


def leak_and_blind_spots(model) -> tuple[int, int]:
    """How many (output, colour, input) triples see the present or the future; how many do not see the past."""
    grads = influence(model)
    past = torch.ones(SIZE**2, SIZE**2).tril(-1).bool()[:, None].expand_as(grads)
    return int((grads[~past] != 0).sum()), int((grads[past] == 0).sum())


@pytest.mark.parametrize("sites", [*fusion.PRESETS, *fusion.SITES])
def test_every_output_sees_all_of_the_past_and_nothing_else(sites):
    assert leak_and_blind_spots(small_model(fusion=sites, nr_resnet=2)) == (0, 0)


def test_one_resnet_sees_six_columns_in_the_rows_that_the_coarser_scale_skips():
    """A fact of the architecture: on odd rows the nearest row reaches the output at full scale only, through one
    first convolution, two of the way down, one after the skip and two of the last block."""
    grads = influence(small_model(fusion="report"))
    output, _, pixel = (grads > 0).nonzero().unbind(1)
    assert (pixel < output).all()
    past = torch.ones(SIZE**2, SIZE**2).tril(-1).bool()[:, None].expand_as(grads)
    output, _, pixel = (past & (grads == 0)).nonzero().unbind(1)
    assert (output // SIZE % 2 == 1).all() and ((output % SIZE - pixel % SIZE).abs() > 6).all()


def leaky_variants():
    def no_down_shift(model, monkeypatch):
        monkeypatch.setattr(utils.model, "down_shift", lambda x: x)

    def no_right_shift(model, monkeypatch):
        monkeypatch.setattr(utils.model, "right_shift", lambda x: x)

    def padded_on_the_wrong_side(model, monkeypatch):
        model.down_blocks[1][0].ul.conv_in.padding = (0, 1, 1, 0)

    def padded_below(model, monkeypatch):
        model.up_blocks[0][0].u.conv_out.padding = (1, 1, 0, 1)

    def upsampled_one_row_early(model, monkeypatch):
        up = model.up_convs[0]["u"]
        up.register_forward_hook(lambda _m, _x, out: out.roll(-1, dims=2))

    return [no_down_shift, no_right_shift, padded_on_the_wrong_side, padded_below, upsampled_one_row_early]


@pytest.mark.parametrize("leak", leaky_variants(), ids=lambda leak: leak.__name__)
def test_leaks_are_caught(leak, monkeypatch):
    model = small_model(fusion="none")
    leak(model, monkeypatch)
    assert leak_and_blind_spots(model)[0] > 0
