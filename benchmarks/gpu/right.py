"""Is it right? The same numbers, pictures and labels as on the CPU, within bounds that are stated beside them."""

import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from kit.cuda_graphs import generate_by_graphs
from kit.runs import RunConfig
from kit.train import train
from utils import checkpoints, mixture, training
from utils.classify import class_log_likelihoods
from utils.data import load_split
from utils.model import ConditionalPixelCNN, ModelConfig
from utils.sampling import generate, generate_naive

from .common import Job

STEPS, BATCH = 30, 8
# largest distance from the CPU's loss in bits per dimension, over the steps
LOSS_BOUNDS = {torch.float32: 0.005, torch.float16: 0.05, torch.bfloat16: 0.1}
QUALITY = Path(__file__).parents[1] / "quality.json"


def lines(job: Job) -> Iterator[dict]:
    """One dict for each check: what, the value, its bound, whether it passed."""
    checks: list[Callable[[Job], Iterator[tuple[str, float, float]]]] = [
        forward, accuracy, samplers, training_steps, resumption, galleries, graphs,
    ]  # fmt: skip
    for check in checks:
        if job.seconds_left() <= 0:
            yield {"what": check.__name__, "value": None, "at most": None, "passed": "not measured: out of time"}
            continue
        try:
            for what, value, bound in check(job):
                yield {"what": what, "value": value, "at most": bound, "passed": "yes" if value <= bound else "NO"}
        except Exception as error:  # whatever it is, the other checks are to be made
            reason = (str(error) or type(error).__name__).splitlines()[0]
            yield {"what": check.__name__, "value": None, "at most": None, "passed": f"NO: {reason}"}


def trained_model(job: Job, device: torch.device | str = "cpu") -> ConditionalPixelCNN:
    return checkpoints.load_model("cartoons" if job.tiny else "cpen455", device)


@torch.no_grad()
def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.cpu().double() - expected.cpu().double()).norm() / expected.cpu().double().norm())


@torch.no_grad()
def forward(job: Job) -> Iterator[tuple[str, float, float]]:
    """float32 is float32: `pick_device` has switched TF32 off."""
    model, there = trained_model(job), trained_model(job, job.device)
    x, y = load_split("cartoons", "validation").subset(8).tensors()
    params, found = model(x, y), there(x.to(job.device), y.to(job.device))
    nats, found_nats = mixture.log_prob(params, x), mixture.log_prob(found, x.to(job.device))
    yield "forward, float32: relative distance", relative(found, params), 1e-4
    yield "log p(x | y), float32: relative distance", relative(found_nats, nats), 1e-4


def samplers(job: Job) -> Iterator[tuple[str, float, float]]:
    """In float64 a sum in another order gives the same bytes. A naive row is slow, hence the last two only."""
    model = trained_model(job, job.device).double()
    cached = draw(generate, model)
    prefix = cached[:, :, : model.config.image_size - 2]
    naive, again = draw(generate_naive, model, prefix=prefix), draw(generate, model, prefix=prefix)
    yield "pictures, cached against naive: differing values", float((naive != again).sum()), 0


def graphs(job: Job) -> Iterator[tuple[str, float, float]]:
    if job.device.type == "cuda":
        model = trained_model(job, job.device)
        differing = (draw(generate_by_graphs, model) != draw(generate, model)).sum()
        yield "pictures, by CUDA graphs against one by one, float32: differing values", float(differing), 0


def draw(how: Callable, model: ConditionalPixelCNN, **given) -> Tensor:
    return how(model, torch.tensor([0, 1, 2, 3]), generator=torch.Generator().manual_seed(0), **given)


def small_model(job: Job, **config) -> ConditionalPixelCNN:
    values = {"nr_filters": 24, "nr_resnet": 1, "nr_logistic_mix": 5, "fusion": "all", "image_size": 32} | config
    torch.manual_seed(0)
    return ConditionalPixelCNN(ModelConfig(4, **values | ({"nr_filters": 4, "image_size": 8} if job.tiny else {})))


def training_steps(job: Job) -> Iterator[tuple[str, float, float]]:
    size = 8 if job.tiny else 32
    pictures = load_split("cartoons", "train", image_size=size).subset(BATCH * STEPS)
    x, y = pictures.tensors()
    config = training.configs_for("cartoons", 4, lr=0.01)[1]
    start = small_model(job, dropout=0.0)
    training.initialise(start, pictures.images, y, seed=0)

    def losses(device: torch.device, precision: torch.dtype) -> Tensor:
        model = copy.deepcopy(start).train().to(device)
        optimizer = training.build_optimizer(model, config)
        scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
        batches = zip(x.to(device).split(BATCH), y.to(device).split(BATCH), strict=True)
        found = [training.train_step(model, *batch, optimizer, scaler, precision, 1.0) for batch in batches]
        return torch.stack(found).cpu()

    expected = losses(torch.device("cpu"), torch.float32)
    for precision, bound in LOSS_BOUNDS.items():
        name = str(precision).removeprefix("torch.")
        distance = (losses(job.device, precision) - expected).abs().max()
        yield f"{STEPS} training steps, {name}: largest distance in bits per dimension", float(distance), bound


def resumption(job: Job) -> Iterator[tuple[str, float, float]]:
    """Not bit for bit as on a CPU: some of a GPU's sums have no fixed order."""
    model_config, config = small_model(job).config, RunConfig(
        train_limit=64, epochs=3, flip=True, ema_decay=0.9, device=job.device.type, precision="float32", wandb="off"
    )  # fmt: skip

    class Killed(Exception):
        pass

    def killed(line: dict) -> None:
        if line["epoch"] == 2:
            raise Killed

    with tempfile.TemporaryDirectory() as folder:
        whole = train(model_config, config, Path(folder, "whole"))
        try:
            train(model_config, config, Path(folder, "parts"), on_epoch=killed)
        except Killed:
            train(model_config, config, Path(folder, "parts"), resume=True)
        models = [checkpoints.load_model(Path(folder, name, "last.safetensors")) for name in (whole.name, "parts")]
        weights = [torch.cat([p.flatten() for p in model.parameters()]) for model in models]
        lines = (Path(folder, "parts", "metrics.jsonl")).read_text(encoding="utf-8").splitlines()
    yield "a run killed after 2 of 3 epochs and resumed: relative distance of its weights", relative(*weights), 1e-3
    yield "its lines of metrics more or fewer than 3", abs(len(lines) - 3), 0


def accuracy(job: Job) -> Iterator[tuple[str, float, float]]:
    name, pictures = job.pictures("validation")
    known = json.loads(QUALITY.read_text(encoding="utf-8"))["sections"]["classification"][1]
    if name == "cpen455" and not job.tiny:
        expected, weights = known["accuracy"], known["model"]
    else:
        weights = "cartoons"
        pictures = load_split("cartoons", "validation").subset(4 if job.tiny else 64)
        model = checkpoints.load_model(weights)
        expected = float(
            (class_log_likelihoods(model, pictures.tensors()[0]).argmax(1) == pictures.labels).float().mean()
        )
    x, y = pictures.tensors()
    nats = class_log_likelihoods(checkpoints.load_model(weights, job.device), x).cpu()
    found = float((nats.argmax(1) == y).float().mean())
    what = f"accuracy of {weights} on {len(y)} pictures, {found:.2%}: distance from the CPU's {expected:.2%}"
    yield what, abs(found - expected), 1.5 / len(y)  # a near tie may fall the other way


def galleries(job: Job) -> Iterator[tuple[str, float, float]]:
    """The same seed; a value that rounds otherwise changes what comes after it, so pictures may part, but taken
    together they look alike: means and standard deviations of the colours, by class."""
    labels = torch.arange(4).repeat_interleave(1 if job.tiny else 16)

    def statistics(device: torch.device | str) -> Tensor:
        model = checkpoints.load_model("cartoons", device)
        images = generate(model, labels, generator=torch.Generator().manual_seed(0)).cpu().unflatten(0, (4, -1))
        return torch.stack([images.mean(dim=(1, 3, 4)), images.std(dim=(1, 3, 4))])  # (2, 4, 3)

    distance = (statistics(job.device) - statistics("cpu")).abs().max()
    yield f"{len(labels)} drawn cartoons: largest distance of a class's colour, mean or deviation", float(distance), 0.1
