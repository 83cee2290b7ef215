"""The cached sampler is the naive one, faster."""

import pytest
import torch
from conftest import random_pictures, small_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kit import cuda_graphs
from kit.cuda_graphs import generate_by_graphs
from utils import UsageError, sampling
from utils.checkpoints import FOLDER, load_model
from utils.fusion import SITES
from utils.sampling import generate, generate_naive, stepwise_params

CONFIGS = [
    *({"fusion": site} for site in ("none", *SITES)),
    {"fusion": "all", "nr_resnet": 2, "nr_logistic_mix": 3},
    {"fusion": "report", "nr_resnet": 3, "image_size": 4},
    {"fusion": "blocks,late", "image_size": 12},
    {"fusion": "all", "image_size": 32},
    {"fusion": "report", "nr_resnet": 2, "image_size": 64},
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_stepwise_params_are_the_models(config):
    model = small_model(**config)
    size = model.config.image_size
    x, y = random_pictures(3, size), torch.tensor([0, 2, 1])
    with torch.no_grad():
        expected = model(x, y)
    assert (stepwise_params(model, x, y) - expected).abs().max() < 1e-9


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_same_seed_same_pictures_as_the_naive_sampler(dtype):
    model, labels = small_model(dtype, fusion="all", image_size=12), torch.tensor([0, 1, 2, 1])
    cached = generate(model, labels, generator=torch.Generator().manual_seed(7))
    naive = generate_naive(model, labels, generator=torch.Generator().manual_seed(7))
    assert torch.equal(cached, naive)
    other = generate(model, labels, generator=torch.Generator().manual_seed(8))
    assert not torch.equal(cached, other)


def test_prefix_is_kept_and_the_rest_drawn_as_the_naive_sampler_does():
    model, labels = small_model(fusion="report"), torch.tensor([0, 1])
    prefix = random_pictures(1)[:, :, :3]
    cached = generate(model, labels, generator=torch.Generator().manual_seed(7), prefix=prefix)
    naive = generate_naive(model, labels, generator=torch.Generator().manual_seed(7), prefix=prefix)
    assert torch.equal(cached, naive)
    assert torch.allclose(cached[:, :, :3], prefix.expand(2, -1, -1, -1))


def test_guided_pictures_are_those_of_the_naive_sampler_too():
    model, labels = small_model(fusion="all"), torch.tensor([0, 1, 2, 1])
    for given in ({}, {"prefix": random_pictures(1)[:, :, :3]}, {"temperature": 0.7}):
        cached, naive = (
            draw(model, labels, generator=torch.Generator().manual_seed(7), guidance=2.0, **given)
            for draw in (generate, generate_naive)
        )
        assert torch.equal(cached, naive)
    assert not torch.equal(cached, generate(model, labels, generator=torch.Generator().manual_seed(7)))


@pytest.mark.parametrize("guidance, share_of_dark", [(1.0, (0.3, 0.972)), (3.0, (0.072973, 0.998067))])
def test_guidance_weighs_what_speaks_for_the_label(guidance, share_of_dark, monkeypatch):
    """A pixel is dark or bright. Label 0 says 1/2 each, label 1 says 9/10 dark, so the mean says 7/10. Guided by 1, the
    odds of dark under label 0 are (5/7) : (5/3) = 3 : 7, and 9/10 (9/7) : 1/10 (1/3) under label 1."""
    monkeypatch.setattr(sampling, "NR_CANDIDATES", 100)
    params = torch.full((2, 20), -7.0)  # two components, both of the smallest scale
    params[:, :2] = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    params[:, 2:4] = torch.tensor([-0.5, 0.5])  # red's means
    labels = torch.tensor([0, 1]).repeat_interleave(2000)
    under_every_label = params.repeat_interleave(len(labels), dim=0)
    generator = torch.Generator().manual_seed(0)
    red = sampling.draw_pixels(under_every_label, labels, generator, 1.0, guidance)[:, 0]
    for label, share in enumerate(share_of_dark):
        odds = (red[labels == label] < 0).double().mean()
        assert abs(odds - share) < 0.03


class Recording(TorchDispatchMode):
    """What a CUDA graph does, on the CPU: it keeps operations with the tensors they read and write, and does them again
    on those very tensors, whatever Python's variables say by then. Unlike a graph it also does them while it records,
    hence `captured` undoes that."""

    def __init__(self):
        super().__init__()
        self.operations: list = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        for function, args, kwargs, kept in self.operations:
            result = function(*args, **kwargs)
            for old, new in zip(tree_leaves(kept), tree_leaves(result), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def recorded(work):
    """As `cuda_graphs.captured`: nothing has happened when it returns."""
    written = {}  # the first value of everything that the work writes into

    class Undo(Recording):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function._schema.is_mutable:
                storage = storage_of((kwargs or {}).get("out", args[0]))
                written.setdefault(storage.data_ptr(), (storage, storage.clone()))
            return super().__torch_dispatch__(function, types, args, kwargs)

    with Undo() as recording:
        work()
    for storage, before in written.values():
        storage.copy_(before)
    return recording.replay


def storage_of(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())


@pytest.mark.parametrize("config", CONFIGS[:-1], ids=str)
def test_rows_replayed_as_graphs_are_the_rows_of_generate(config, monkeypatch):
    """A replay knows memory only: what lives on from row to row must have stayed where it was."""
    captures = []
    monkeypatch.setattr(cuda_graphs, "captured", lambda work: captures.append(work) or recorded(work))
    model, labels = small_model(**{"image_size": 12} | config), torch.tensor([0, 2, 1])
    size = model.config.image_size
    prefix = random_pictures(3, size)[:, :, : size // 2]
    for given in ({}, {"prefix": prefix}, {"temperature": 0.7}):
        expected = generate(model, labels, generator=torch.Generator().manual_seed(7), **given)
        drawn = generate_by_graphs(model, labels, generator=torch.Generator().manual_seed(7), **given)
        assert torch.equal(drawn, expected)
    assert len(captures) == 3 * (4 if size > 4 else 0)
    pictures = []
    for draw in (generate, generate_by_graphs):
        torch.manual_seed(3)
        pictures.append(draw(model, labels))
    assert torch.equal(*pictures), "without a generator it takes PyTorch's numbers, and no others"


def test_drawing_leaves_a_training_alone_that_goes_on_meanwhile():
    """As where a widget draws in a thread while a cell trains."""

    def losses(meanwhile) -> list[float]:
        model, labels, x = small_model(torch.float32), torch.tensor([0, 1]), random_pictures(2).float()
        optimizer, found = torch.optim.SGD(model.parameters(), lr=0.1), []

        def one_step(*_row):
            with torch.inference_mode(False), torch.enable_grad():
                loss = model(x, labels).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            found.append(loss.item())

        meanwhile(model, labels, one_step)
        return found

    alone = losses(lambda model, _labels, step: [step() for _ in range(model.config.image_size)])
    assert alone[-1] < alone[0]
    assert losses(lambda model, labels, step: generate(model, labels, on_row=step)) == alone


def test_samples_lie_on_the_levels_and_condition_what_follows():
    """The last pixel's distribution, given the picture that came out, is what the model says of that picture."""
    model, labels = small_model(torch.float32), torch.tensor([0, 1])
    images = generate(model, labels)
    assert torch.isin(images, torch.arange(256.0) / 127.5 - 1).all()
    means_only = generate(model, labels, temperature=0.0)
    with torch.no_grad():
        params = model(means_only, labels)
    from utils.mixture import sample

    assert torch.equal(sample(params, temperature=0.0), means_only)


@pytest.mark.parametrize("sampler", [generate, generate_naive, generate_by_graphs])
def test_on_row_sees_each_row_when_it_is_done(sampler, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "captured", recorded)
    rows = []
    images = sampler(small_model(), torch.tensor([1]), on_row=lambda i, x: rows.append((i, x.clone())))
    assert [i for i, _ in rows] == list(range(8))
    for i, seen in rows:
        assert torch.equal(seen[:, :, : i + 1], images[:, :, : i + 1]) and not seen[:, :, i + 1 :].any()


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"labels": torch.tensor([3])}, "labels must be"),
        ({"labels": torch.tensor([-1])}, "labels must be"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"guidance": -1.0}, "guidance"),
        ({"guidance": float("inf")}, "guidance"),
        ({"prefix": torch.zeros(1, 3, 9, 8)}, "prefix"),
        ({"prefix": torch.zeros(1, 3, 2, 7)}, "prefix"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UsageError, match=message):
        generate(small_model(), **({"labels": torch.tensor([0])} | arguments))


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.safetensors")))
def test_shipped_weights_cached_equals_direct(name):
    """With real weights: equal in float64, and in float32 about as near to that as a forward pass is."""
    model = load_model(name)
    x, y = random_pictures(2, model.config.image_size, torch.float32), torch.tensor([0, 3])
    with torch.no_grad():
        cached, direct = stepwise_params(model, x, y), model(x, y)
        exact = model.double()(x.double(), y)
    assert (stepwise_params(model, x.double(), y) - exact).abs().max() < 1e-9
    assert (cached - exact).norm() < 4 * (direct - exact).norm()
