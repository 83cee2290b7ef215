"""Nothing on the CPU meets something on a GPU: PyTorch's fake tensors say they lie on `cuda`, and hold no values."""

from types import SimpleNamespace

import pytest
import torch
from conftest import random_pictures
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from kit import cuda_graphs, runs
from kit.samples import draw_gallery
from kit.train import _train_epoch
from utils import mixture, sampling, training
from utils.classify import class_log_likelihoods, evidence_map
from utils.data import to_bytes
from utils.model import ConditionalPixelCNN, ModelConfig

CUDA = torch.device("cuda", 0)
MEET = "same device|convert all Tensors to FakeTensors"


class PretendedGpu(TorchFunctionMode):
    """What goes to `cuda` becomes a fake tensor there; what comes back to the CPU is real again, and 0."""

    def __init__(self):
        super().__init__()
        self.fakes = FakeTensorMode()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function == torch.Tensor.cpu and isinstance(args[0], FakeTensor):
            return torch.zeros(args[0].shape, dtype=args[0].dtype)
        if function in (torch.Tensor.item, torch.Tensor.__float__) and isinstance(args[0], FakeTensor):
            return 0.0
        given = tree_leaves((args, kwargs))
        if not any(isinstance(each, FakeTensor) or each == CUDA for each in given if type(each) is not torch.Tensor):
            return function(*args, **kwargs)
        if function == torch.Tensor.to and not isinstance(args[0], FakeTensor):
            args = (self.fakes.from_tensor(args[0]), *args[1:])
        if function == torch.Tensor.copy_:  # may copy from one to the other
            args = (args[0], args[1] if isinstance(args[1], FakeTensor) else self.fakes.from_tensor(args[1]))
        with self.fakes:
            return function(*args, **kwargs)


@pytest.fixture
def model(tmp_path):
    with PretendedGpu() as gpu:
        with gpu.fakes, CUDA:
            model = ConditionalPixelCNN(
                ModelConfig(3, nr_resnet=1, nr_filters=6, nr_logistic_mix=2, image_size=8, fusion="all")
            ).eval()
        assert {parameter.device for parameter in model.parameters()} == {CUDA}
        yield model


@pytest.fixture
def x():
    return random_pictures(2, dtype=torch.float32)


def test_the_stand_in_finds_a_meeting(model, x):
    y = torch.tensor([0, 1])
    for pictures, labels in ((x, y.to(CUDA)), (x.to(CUDA), y)):
        with pytest.raises(Exception, match=MEET):
            model(pictures, labels)
    params = model(x.to(CUDA), y.to(CUDA))
    with pytest.raises(Exception, match=MEET):
        mixture.log_prob(params, x)


def test_the_network_and_the_loss(model, x):
    params = model(x.to(CUDA), torch.tensor([0, 1]).to(CUDA))
    assert params.shape == (2, 20, 8, 8) and params.device == CUDA
    assert mixture.log_prob(params, x.to(CUDA)).device == CUDA


def test_classification_takes_pictures_from_the_cpu(model, x):
    assert class_log_likelihoods(model, x).shape == (2, 3) and class_log_likelihoods(model, x).device == CUDA
    assert evidence_map(model, x[0], 0, 1).shape == (8, 8)


@pytest.mark.parametrize("draw", [sampling.generate, sampling.generate_naive])
def test_drawing_with_a_generator_of_the_cpu(model, x, draw):
    rows = []
    images = draw(
        model,
        torch.tensor([2, 0]),
        generator=torch.Generator().manual_seed(0),
        prefix=x[:1, :, :3],
        on_row=lambda row, images: rows.append((row, images.device)),
    )
    assert images.shape == (2, 3, 8, 8) and rows == [(row, CUDA) for row in range(8)]


def test_the_gallery(model, tmp_path):
    draw_gallery(model, tmp_path / "gallery.png", seed=0, per_class=1)
    assert (tmp_path / "gallery.png").is_file()


def test_by_graphs_before_anything_is_captured(model, x, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "captured", lambda work: work)
    images = cuda_graphs.generate_by_graphs(
        model, torch.tensor([2, 0]), generator=torch.Generator().manual_seed(0), prefix=x[:1, :, :3]
    )
    assert images.shape == (2, 3, 8, 8) and images.device == CUDA


def test_the_initialisation(model, x):
    images = to_bytes(random_pictures(5, dtype=torch.float32))
    training.initialise(model, images.to(CUDA), torch.arange(5).to(CUDA) % 3, seed=0)


@pytest.mark.parametrize("hybrid", [0.0, 0.1])
def test_an_epoch_of_training(model, monkeypatch, tmp_path, hybrid):
    """All but the way back: fake tensors have none."""
    steps = []

    def forward_only(forward, x, y, optimizer, scaler, precision, grad_clip, loss_of, count):
        losses, bits = loss_of(forward, x, y)
        assert losses.device == bits.device == CUDA
        steps.append(len(x))
        assert y.shape == ((len(x), 2) if hybrid else (len(x),))
        return bits.detach().sum() / count

    monkeypatch.setattr(training, "train_step", forward_only)
    images = to_bytes(random_pictures(5, dtype=torch.float32)).to(CUDA)
    optimizer, scaler = SimpleNamespace(param_groups=[]), torch.amp.GradScaler("cuda", enabled=False)
    state = runs.RunState(model, model, optimizer, scaler)
    state.rivals = torch.ones(5, dtype=torch.long)  # as they come from last.pt: on the CPU
    config = runs.RunConfig(batch_size=2, flip=True, shift=1, hybrid=hybrid, ema_decay=0.9)
    stop = SimpleNamespace(reason=lambda: "")
    labels = torch.arange(5).to(CUDA) % 3
    _train_epoch(state, model, images, labels, torch.float32, config, stop, tmp_path)
    assert steps == [2, 2, 1]
