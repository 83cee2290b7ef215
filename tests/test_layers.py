"""The bricks: convolutions that a person can check on paper, and the data-dependent initialisation."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from conftest import random_pictures, small_model

from utils.layers import (
    DownRightShiftedConv2d,
    DownRightShiftedConvTranspose2d,
    DownShiftedConv2d,
    DownShiftedConvTranspose2d,
    Dropout,
    GatedResidualBlock,
    concat_elu,
    data_dependent_init,
    gate,
    padded_concat_elu,
)
from utils.model import down_shift, right_shift


def with_weights(layer, weights, bias=0.0):
    """The layer with the given kernel of one input and one output channel."""
    weight = torch.tensor(weights, dtype=torch.float32)[None, None]
    with torch.no_grad():
        layer.conv.weight = weight
        layer.conv.bias.fill_(bias)
    return layer


def counted() -> torch.Tensor:
    """1 ... 25 in a 5x5 picture."""
    return torch.arange(1.0, 26).view(1, 1, 5, 5)


def test_down_shifted_sums_a_row_above_and_its_own():
    layer = with_weights(DownShiftedConv2d(1, 1), [[1, 1, 1], [1, 1, 1]])
    expected = [  # three neighbours of this row and of the row above
        [3, 6, 9, 12, 9],
        [3 + 13, 6 + 21, 9 + 24, 12 + 27, 9 + 19],
        [13 + 23, 21 + 36, 24 + 39, 27 + 42, 19 + 29],
        [23 + 33, 36 + 51, 39 + 54, 42 + 57, 29 + 39],
        [33 + 43, 51 + 66, 54 + 69, 57 + 72, 39 + 49],
    ]
    assert torch.allclose(layer(counted())[0, 0], torch.tensor(expected, dtype=torch.float32), atol=1e-4)


def test_down_right_shifted_sees_above_and_left():
    layer = with_weights(DownRightShiftedConv2d(1, 1), [[1000, 100], [10, 1]], bias=0.5)
    out = layer(counted())[0, 0]
    assert out[0, 0].item() == pytest.approx(1 + 0.5, rel=1e-5)  # only itself
    assert out[0, 3].item() == pytest.approx(10 * 3 + 4 + 0.5, rel=1e-5)  # left and itself
    assert out[3, 0].item() == pytest.approx(100 * 11 + 16 + 0.5, rel=1e-5)  # above and itself
    assert out[2, 2].item() == pytest.approx(1000 * 7 + 100 * 8 + 10 * 12 + 13 + 0.5, rel=1e-5)


def test_strided_layers_read_the_even_places():
    x = torch.arange(1.0, 17).view(1, 1, 4, 4)
    down = with_weights(DownShiftedConv2d(1, 1, stride=2), [[0, 0, 0], [0, 1, 0]])
    assert torch.allclose(down(x)[0, 0], torch.tensor([[1.0, 3], [9, 11]]))
    above = with_weights(DownRightShiftedConv2d(1, 1, stride=2), [[1, 0], [0, 0]])
    assert torch.allclose(above(x)[0, 0], torch.tensor([[0.0, 0], [0, 6]]))


def test_transposed_layers_double_the_size():
    x = torch.tensor([[1.0, 2], [3, 4]])[None, None]
    layer = with_weights(DownRightShiftedConvTranspose2d(1, 1), [[1, 10], [100, 1000]])
    expected = [[1, 10, 2, 20], [100, 1000, 200, 2000], [3, 30, 4, 40], [300, 3000, 400, 4000]]
    assert torch.allclose(layer(x)[0, 0], torch.tensor(expected, dtype=torch.float32), rtol=1e-5)
    # the (2, 3) kernel: columns 2j - 1, 2j and 2j + 1 of rows 2i and 2i + 1
    layer = with_weights(DownShiftedConvTranspose2d(1, 1), [[1, 10, 100], [0, 0, 0]])
    expected = [[10, 100 + 2, 20, 200], [0] * 4, [30, 300 + 4, 40, 400], [0] * 4]
    assert torch.allclose(layer(x)[0, 0], torch.tensor(expected, dtype=torch.float32), rtol=1e-5)


def test_shifts():
    x = counted()
    assert torch.equal(down_shift(x)[0, 0, 1:], x[0, 0, :-1]) and not down_shift(x)[0, 0, 0].any()
    assert torch.equal(right_shift(x)[0, 0, :, 1:], x[0, 0, :, :-1]) and not right_shift(x)[0, 0, :, 0].any()


def test_concat_elu():
    out = concat_elu(torch.tensor([[2.0, -1.0]]))
    expected = torch.tensor([[2.0, torch.e**-1 - 1, torch.e**-2 - 1, 1.0]])
    assert torch.allclose(out, expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_by_hand_are_those_of_the_formulas(memory_format):
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64).contiguous(memory_format=memory_format)
    x[0, 0, 0] = torch.tensor([0.0, -0.0, 40.0, -40.0, 1e-9])
    x.requires_grad_()
    a, b = x.chunk(2, dim=1)
    padding = (1, 2, 3, 0)
    for found, formula in (
        (padded_concat_elu(x), F.elu(torch.cat([x, -x], dim=1))),
        (padded_concat_elu(x, padding), F.pad(F.elu(torch.cat([x, -x], dim=1)), padding)),
        (gate(x), a * torch.sigmoid(b)),
    ):
        torch.testing.assert_close(found, formula, rtol=1e-12, atol=1e-12)
        assert found.is_contiguous(memory_format=memory_format)
        of_found = torch.randn_like(found)
        gradients = [torch.autograd.grad(out, x, of_found)[0] for out in (found, formula)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_gated_block_is_the_identity_when_its_last_layer_is_zero():
    block = GatedResidualBlock(DownShiftedConv2d, 4, nr_skips=0, dropout=0.0)
    with torch.no_grad():
        block.conv_out.conv.parametrizations.weight.original0.zero_()
        block.conv_out.conv.bias.zero_()
    h = torch.randn(2, 4, 6, 6)
    assert torch.equal(block(h), h)


def test_data_dependent_init_normalises_every_layer():
    model = small_model(fusion="all")
    x, y = random_pictures(16), torch.arange(16) % 3
    seen = {}
    with data_dependent_init(model):
        model(x, y)
    layers = {m: name for name, m in model.named_modules() if hasattr(m, "init_scale")}
    for layer in layers:
        note = partial(lambda layer, _conv, _x, out: seen.update({layers[layer]: (layer.init_scale, out)}), layer)
        layer.conv.register_forward_hook(note)
    with torch.no_grad():
        model(x, y)
    assert len(seen) == len(layers) == 57
    for name, (scale, out) in seen.items():
        mean, std = out.mean((0, 2, 3)), out.std((0, 2, 3), correction=0)
        assert mean.abs().max() < 1e-6, name
        assert torch.allclose(std, torch.full_like(std, scale), rtol=1e-4), name


def test_data_dependent_init_ends():
    model = small_model()
    x, y = random_pictures(4), torch.zeros(4, dtype=torch.long)
    with data_dependent_init(model):
        model(x, y)
    before = {name: p.clone() for name, p in model.named_parameters()}
    model(x * 0.3, y)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dropout_drops_the_share_it_says_and_keeps_the_mean(memory_format):
    layer = Dropout(0.1)
    x = torch.full((8, 16, 32, 32), 3.0).contiguous(memory_format=memory_format).requires_grad_()
    out = layer(x)
    dropped = (out == 0).double()
    share = 26 / 256  # 0.1 in 256ths; five standard deviations of the mean of 131,072 draws
    assert abs(dropped.mean() - share) < 5 * (share * (1 - share) / x.numel()) ** 0.5
    for dims in ((1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2)):  # no picture, channel, row or column is favoured
        rates = dropped.mean(dims)
        assert (rates - share).abs().max() < 6 * (share * (1 - share) * len(rates) / x.numel()) ** 0.5
    assert torch.allclose(out[out != 0], torch.tensor(3 / (1 - share)))
    out.sum().backward()
    assert torch.equal(x.grad != 0, out != 0)
    assert not torch.equal(layer(x), out)
    assert layer.eval()(x) is x


def test_dropout_close_to_one_keeps_gradients_finite():
    x = torch.ones(4, 8, 16, 16, requires_grad=True)
    Dropout(0.999)(x).sum().backward()
    assert torch.isfinite(x.grad).all() and x.grad.any()
