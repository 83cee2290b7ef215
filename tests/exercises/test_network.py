"""The network of notebook 03, made of the reader's pieces, is as good as the kit's everywhere."""

import contextlib
import copy
import io

import pytest
import torch
from common import pasted, said
from conftest import random_pictures
from test_conditioning import GIVEN
from torch.nn.utils.parametrizations import weight_norm

from kit.exercises import conditioning, masked_convolutions, network, pieces
from utils import checkpoints, layers, sampling, training
from utils.data import load_split
from utils.model import ConditionalPixelCNN, ModelConfig

MINE = ("gated_residual_block", "fusion", "network_forward")
SHIFTED = ("down_shifted_conv2d", "down_right_shifted_conv2d")
CONFIG = ModelConfig(3, 1, 4, 1, 8, 0.0, "all")


@pytest.fixture(params=["none", "all", "every second"], scope="module")
def lines_and_class(request, tmp_path_factory) -> tuple[list[str], type[ConditionalPixelCNN]]:
    """What `built_network` prints and returns, where the reader has built no piece, all of them, every second one."""
    chosen = [(masked_convolutions, name) for name in SHIFTED] + [(conditioning, name) for name in MINE]
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "folder", lambda: tmp_path_factory.getbasetemp() / request.param)
        for module, name in {"none": [], "every second": chosen[::2]}.get(request.param, chosen):
            exercise = getattr(module, name)
            assert "Kept as" in said(exercise.check, pasted(exercise, GIVEN | {"weight_norm": weight_norm}))
        with contextlib.redirect_stdout(out):
            built = network.built_network()
    return out.getvalue().splitlines(), built


@pytest.fixture
def built(lines_and_class) -> type[ConditionalPixelCNN]:
    return lines_and_class[1]


def filled_pair(built) -> tuple[ConditionalPixelCNN, ConditionalPixelCNN]:
    theirs = conditioning.filled(CONFIG)
    mine = built(CONFIG).double().eval()
    mine.load_state_dict(theirs.state_dict())
    return mine, theirs


def test_it_says_whose_each_piece_is(lines_and_class, request):
    lines, _ = lines_and_class
    assert [line.split(": ")[0] for line in lines] == [*network.PARTS, "network_forward"]
    yours = {"none": 0, "all": 5, "every second": 3}[request.node.callspec.params["lines_and_class"]]
    assert sum(line.endswith("yours") for line in lines) == yours


def test_it_has_the_shipped_weights_outputs(built):
    theirs = checkpoints.load_model("cartoons")
    mine = built(theirs.config).eval()
    mine.load_state_dict(theirs.state_dict())
    x, y = load_split("cartoons", "test").subset(3).tensors()
    with torch.no_grad():
        torch.testing.assert_close(mine(x, y), theirs(x, y), rtol=1e-5, atol=1e-4)
    mine, theirs = mine.double(), theirs.double()
    with torch.no_grad():
        torch.testing.assert_close(mine(x.double(), y), theirs(x.double(), y), rtol=1e-9, atol=1e-9)


def test_it_is_saved_copied_and_trained_like_the_kits(built, tmp_path):
    mine, _ = filled_pair(built)
    x, y = random_pictures(2), torch.tensor([2, 0])
    assert torch.equal(copy.deepcopy(mine)(x, y), mine(x, y))
    checkpoints.save_model(mine.float(), tmp_path / "mine.safetensors")
    again = checkpoints.load_model(tmp_path / "mine.safetensors")
    torch.testing.assert_close(again(x.float(), y), mine(x.float(), y), rtol=1e-5, atol=1e-5)

    with layers.data_dependent_init(mine):
        out = mine(x.float(), y)
    quiet = out.detach() - mine.fusion.maps["params"](y).detach()[:, :, None, None]
    assert float(quiet.std(dim=(0, 2, 3)).max()) < 0.2  # the head starts so
    averaged = copy.deepcopy(mine)
    optimizer, scaler = training.build_optimizer(mine, training.TrainConfig()), torch.amp.GradScaler(enabled=False)
    before = training.train_step(mine.train(), x.float(), y, optimizer, scaler, torch.float32, 1.0)
    for step in range(5):
        after = training.train_step(mine, x.float(), y, optimizer, scaler, torch.float32, 1.0)
        training.update_average(averaged, mine, 0.9, step)
    assert after < before and all(weight.grad is not None for weight in mine.parameters())
    assert not torch.equal(averaged.head.conv.bias, mine.head.conv.bias)


def test_the_cached_sampler_works_with_it(built):
    mine, theirs = filled_pair(built)
    x, y = random_pictures(2), torch.tensor([2, 0])
    torch.testing.assert_close(sampling.stepwise_params(mine, x, y), theirs(x, y), rtol=1e-9, atol=1e-9)
    drawn = [
        sample(model, y, generator=torch.Generator().manual_seed(1))
        for model, sample in [(mine, sampling.generate), (mine, sampling.generate_naive), (theirs, sampling.generate)]
    ]
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])


def test_a_traceback_shows_the_right_lines_of_the_kits_text(built):
    mine, theirs = built.__init__.__code__, ConditionalPixelCNN.__init__.__code__
    assert (mine.co_filename, mine.co_firstlineno) == (theirs.co_filename, theirs.co_firstlineno)
