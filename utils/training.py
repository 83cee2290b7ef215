"""The training loop, its settings and its presets."""

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from . import UsageError, checkpoints, mixture
from .classify import class_log_likelihoods, score
from .data import UNKNOWN, ImageDataset, load_split, to_float
from .layers import data_dependent_init
from .model import ConditionalPixelCNN, ModelConfig
from .runtime import autocast, memory_format, pick_device, pick_precision

RUNS = checkpoints.FOLDER / "runs"


class Diverged(RuntimeError):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained.

    Args:
        dataset: one of `data.DATASETS`.
        data_root: the data set's folder, when it is not where `data.load_split` looks.
        train_limit: use the first so many training pictures; 0 is all.
        epochs, batch_size, seed: as usual.
        lr: Adam's learning rate, at its highest.
        schedule: `step` multiplies it by `lr_decay` after each epoch, `cosine` brings it to 0 at the end.
        lr_decay: for `step`.
        warmup: steps over which the learning rate rises from 0.
        ema_decay: of the averaged weights, per step; 0 keeps the average equal to the weights.
        flip: mirror each training picture with probability 1/2.
        grad_clip: largest norm of the gradient of the loss in bits per dimension; 0 does not clip.
        precision: what autocast computes in; see `runtime.pick_precision`.
        device: `auto`, `cpu`, `cuda`, `mps`.
        compile: train through `torch.compile`: a minute or two of warm-up, then faster steps; on a CPU it needs
            a C++ compiler.
        checkpoint_every: epochs between writings of `last.pt`, from which a run resumes.
        sample_every: epochs between galleries drawn with the averaged weights; 0 draws none.
    """

    dataset: str = "cartoons"
    data_root: str | None = None
    train_limit: int = 0
    epochs: int = 200
    batch_size: int = 16
    lr: float = 2e-4
    schedule: str = "step"
    lr_decay: float = 0.999995
    warmup: int = 0
    ema_decay: float = 0.0
    flip: bool = False
    grad_clip: float = 0.0
    seed: int = 0
    precision: str = "auto"
    device: str = "auto"
    compile: bool = False
    checkpoint_every: int = 5
    sample_every: int = 0

    def __post_init__(self):
        for name in ("epochs", "batch_size", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("train_limit", "warmup", "grad_clip", "sample_every", "seed"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} must not be negative, not {getattr(self, name)}")
        if not 0 < self.lr < math.inf or not 0 < self.lr_decay <= 1:
            raise UsageError(f"lr must be above 0, lr_decay above 0 and at most 1, not {self.lr}, {self.lr_decay}")
        if not 0 <= self.ema_decay < 1:
            raise UsageError(f"ema_decay must be at least 0 and less than 1, not {self.ema_decay}")
        if self.schedule not in ("step", "cosine"):
            raise UsageError(f"unknown schedule {self.schedule!r}: choose from step, cosine")


# What a preset does not name is the default of the two configs: the paper's model and its training.
PRESETS: dict[str, dict] = {
    # the report this kit starts from: 100 filters, 2 resnets, 5 mixtures, Table 1's fusion
    "paper": {},
    # the course's starter settings
    "starter": {"nr_filters": 40, "nr_resnet": 1},
    # small and quick, for a CPU
    "cartoons": {
        "nr_filters": 24,
        "nr_resnet": 1,
        "dropout": 0.0,
        "fusion": "early,middle,blocks",
        "epochs": 4,
        "batch_size": 8,
        "lr": 8e-3,
        "schedule": "cosine",
        "warmup": 100,
        "ema_decay": 0.99,
        "grad_clip": 1.0,
        "checkpoint_every": 1,
    },
    # today's habits on the course's starter size: warm-up and cosine, averaged weights, flips, clipping
    "modern": {
        "nr_filters": 40,
        "nr_resnet": 1,
        "dropout": 0.1,
        "fusion": "film,middle,late",
        "epochs": 40,
        "batch_size": 16,
        "lr": 3e-3,
        "schedule": "cosine",
        "warmup": 500,
        "ema_decay": 0.999,
        "flip": True,
        "grad_clip": 1.0,
        "checkpoint_every": 1,
    },
}


def check_preset(name: str) -> dict:
    """The preset's values. Raises UsageError if there is none of that name."""
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name!r}: choose from {', '.join(PRESETS)}")
    return PRESETS[name]


def configs_for(preset: str, num_classes: int, **overrides) -> tuple[ModelConfig, TrainConfig]:
    """The two configs of a preset, with fields of either replaced. Raises UsageError for an unknown preset."""
    values = check_preset(preset) | overrides
    of_model = {name: values.pop(name) for name in list(values) if name in ModelConfig.__dataclass_fields__}
    return ModelConfig(num_classes, **of_model), TrainConfig(**values)


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, counted from 0: a function of the step alone, so resuming needs no state."""
    rate = config.lr * min(1.0, (step + 1) / max(1, config.warmup))
    if config.schedule == "step":
        return rate * config.lr_decay ** (step // steps_per_epoch)
    return rate * 0.5 * (1 + math.cos(math.pi * step / (config.epochs * steps_per_epoch)))


def train(
    model_config: ModelConfig,
    config: TrainConfig,
    run: str | Path,
    resume: bool = False,
    on_epoch: Callable[[dict], None] | None = None,
) -> Path:
    """Trains, validates each epoch, and leaves everything in the run's folder.

    Args:
        run: a name under checkpoints/runs/, or a folder.
        resume: go on from the folder's `last.pt`.
        on_epoch: called with each line of `metrics.jsonl` as a dict.

    Returns:
        the run's folder: config.json, metrics.jsonl, last.pt, last.safetensors and best.safetensors (averaged
        weights; best by validation bits per dimension), gallery.png when sampled.

    Raises:
        UsageError: bad input, a run that exists already, none to resume.
        Diverged: the loss became NaN or infinite; the checkpoints are those of the last good epoch.
    """
    folder = RUNS / run
    train_set = load_split(config.dataset, "train", config.data_root, model_config.image_size)
    if config.train_limit:
        train_set = train_set.first(config.train_limit)
    validation_set = load_split(config.dataset, "validation", config.data_root, model_config.image_size)
    if len(train_set.classes) != model_config.num_classes:
        raise UsageError(f"{config.dataset} has {len(train_set.classes)} classes, not {model_config.num_classes}")
    if bool((train_set.labels == UNKNOWN).any()):
        raise UsageError(f"the training split of {config.dataset} has pictures without a label")
    device = pick_device(config.device)
    precision = pick_precision(device, config.precision)

    torch.manual_seed(config.seed)
    model = ConditionalPixelCNN(model_config).to(device).to(memory_format=memory_format(device))
    model.class_names = train_set.classes
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    forward = torch.compile(model, dynamic=False) if config.compile else model
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=device.type != "mps")
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    images = train_set.images.to(device)
    labels = train_set.labels.to(device)
    steps_per_epoch = math.ceil(len(labels) / config.batch_size)

    metrics_file = folder / "metrics.jsonl"
    if resume:
        state = checkpoints.load_state(folder / "last.pt")
        start_epoch, best = _restore(state, model, averaged, optimizer, scaler)
        keep = metrics_file.read_text().splitlines()[:start_epoch]
        text = "".join(line + "\n" for line in keep)
        checkpoints.write_atomically(metrics_file, lambda temporary: temporary.write_text(text))
    else:
        if folder.exists():
            raise UsageError(f"run {str(run)!r} exists already: add --resume to go on, or choose another --run")
        start_epoch, best = 0, math.inf
        _initialise(model, images, labels, config.seed)
        averaged.load_state_dict(model.state_dict())
    _write_config(folder, model_config, config)

    for epoch in range(start_epoch, config.epochs):
        started = time.perf_counter()
        train_bpd = _train_epoch(
            epoch, steps_per_epoch, forward, model, averaged, optimizer, scaler, images, labels, config, precision
        )
        seconds = time.perf_counter() - started
        validation_bpd, accuracy = validate(averaged, validation_set, precision)
        if not math.isfinite(validation_bpd):
            raise Diverged(f"validation loss became {validation_bpd} in epoch {epoch + 1}")
        line = {
            "epoch": epoch + 1,
            "step": (epoch + 1) * steps_per_epoch,
            "lr": learning_rate(config, (epoch + 1) * steps_per_epoch - 1, steps_per_epoch),
            "train_bpd": round(train_bpd, 5),
            "validation_bpd": round(validation_bpd, 5),
            "validation_accuracy": round(accuracy, 5),
            "images_per_second": round(len(labels) / seconds, 1),
            "seconds": round(time.perf_counter() - started, 1),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        with open(metrics_file, "a") as file:
            file.write(json.dumps(line) + "\n")
        if validation_bpd < best:
            best = validation_bpd
            checkpoints.save_model(averaged, folder / "best.safetensors")
        if (epoch + 1) % config.checkpoint_every == 0 or epoch + 1 == config.epochs:
            checkpoints.save_model(averaged, folder / "last.safetensors")
            state = _snapshot(epoch + 1, best, model, averaged, optimizer, scaler)
            checkpoints.save_state(state, folder / "last.pt")
        if config.sample_every and (epoch + 1) % config.sample_every == 0:
            draw_gallery(averaged, folder / "gallery.png", config.seed)
        if on_epoch:
            on_epoch(line)
    return folder


def _train_epoch(
    epoch, steps_per_epoch, forward, model, averaged, optimizer, scaler, images, labels, config, precision
) -> float:
    """One pass over the training pictures; -> mean bits per dimension. Order and flips follow from (seed, epoch)."""
    device = images.device
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    order = torch.randperm(len(labels), generator=generator)
    flips = torch.rand(len(labels), generator=generator) < 0.5
    total = torch.zeros((), dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
    model.train()
    bar = tqdm(order.split(config.batch_size), desc=f"epoch {epoch + 1}/{config.epochs}", leave=False, disable=None)
    for i, batch in enumerate(bar):
        step = epoch * steps_per_epoch + i
        index = batch.to(device)
        x, y = to_float(images[index]), labels[index]
        if config.flip:
            x = torch.where(flips[batch].to(device)[:, None, None, None], x.flip(3), x)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step, steps_per_epoch)
        loss = train_step(forward, x, y, optimizer, scaler, precision, config.grad_clip)
        update_average(averaged, model, config.ema_decay, step)

        total += loss * len(y)
        if i % 20 == 0 or i + 1 == steps_per_epoch:  # a look at the number makes a GPU wait
            if not math.isfinite(total):
                raise Diverged(
                    f"the loss became NaN or infinite in epoch {epoch + 1}; the last good checkpoint is kept. "
                    f"Try a smaller --lr or --grad-clip 1"
                )
            bar.set_postfix(bpd=f"{loss.item():.3f}")
    return float(total) / len(labels)


def train_step(
    model: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    precision: torch.dtype,
    grad_clip: float = 0.0,
) -> Tensor:
    """One step of the optimiser on a batch; -> its loss before the step, the mean bits per dimension."""
    x = x.contiguous(memory_format=memory_format(x.device))
    with autocast(x.device, precision):
        params = model(x, y)
    nats = -mixture.log_prob(params, x)  # (B,), in float32 whatever the precision
    loss = mixture.bits_per_dim(nats.mean(), x.shape[-1])
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    if grad_clip:
        scaler.unscale_(optimizer)
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        torch.nn.utils.clip_grad_norm_(weights, grad_clip)
    scaler.step(optimizer)
    scaler.update()
    return loss.detach()


@torch.no_grad()
def update_average(averaged, model, decay: float, step: int) -> None:
    """averaged <- d averaged + (1 - d) weights, where d rises to `decay` so that early weights are forgotten."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)


def validate(
    model: ConditionalPixelCNN, dataset: ImageDataset, precision: torch.dtype = torch.float32
) -> tuple[float, float]:
    """Bits per dimension under the true label and zero-shot accuracy, over all pictures whose label is known."""
    x, y = dataset.tensors()
    x, y = x[y != UNKNOWN], y[y != UNKNOWN]
    log_likelihoods = class_log_likelihoods(model, x, precision=precision).float().cpu()
    nats = -log_likelihoods.gather(1, y[:, None]).mean()
    scores = score(log_likelihoods.argmax(dim=1), y, model.config.num_classes)
    return float(mixture.bits_per_dim(nats, x.shape[-1])), scores.accuracy


def _initialise(model: ConditionalPixelCNN, images: Tensor, labels: Tensor, seed: int) -> None:
    """Data-dependent initialisation on up to 64 training pictures: of every layer, then of the mixture."""
    chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:64].to(images.device)
    x = to_float(images[chosen])
    with data_dependent_init(model.eval()):
        model(x, labels[chosen])
    with torch.no_grad():
        model.head.conv.bias.copy_(mixture.initial_bias(x, model.config.nr_logistic_mix))


def _snapshot(epoch, best, model, averaged, optimizer, scaler) -> dict:
    """All that a run needs to go on as if nothing had happened."""
    state = {
        "epoch": epoch,
        "best": best,
        "model": model.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "rng": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda_rng"] = torch.cuda.get_rng_state_all()
    return state


def _restore(state: dict, model, averaged, optimizer, scaler) -> tuple[int, float]:
    try:
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        if "cuda_rng" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        return state["epoch"], state["best"]
    except (KeyError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"the run's last.pt does not fit its config.json ({reason})") from None


def _write_config(folder: Path, model_config: ModelConfig, config: TrainConfig) -> None:
    text = json.dumps({"model": model_config.to_dict(), "train": asdict(config)}, indent=2) + "\n"
    checkpoints.write_atomically(folder / "config.json", lambda temporary: temporary.write_text(text))


def read_config(run: str | Path) -> tuple[ModelConfig, TrainConfig]:
    """The configs of a run. Raises UsageError if there is no such run or its config.json is damaged."""
    path = RUNS / run / "config.json"
    try:
        values = json.loads(path.read_text())
        return ModelConfig.from_dict(values["model"]), replace(TrainConfig(), **values["train"])
    except FileNotFoundError:
        raise UsageError(f"there is no run {str(run)!r} to resume ({path} is missing)") from None
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise UsageError(f"{path} is damaged: {error}") from None


def draw_gallery(model: ConditionalPixelCNN, path: Path, seed: int, per_class: int = 8) -> None:
    """Draws `per_class` pictures of every class, random by the seed, into a PNG."""
    from .figures import gallery, save_png
    from .sampling import generate

    labels = torch.arange(model.config.num_classes).repeat_interleave(per_class)
    images = generate(model, labels, generator=torch.Generator().manual_seed(seed))
    save_png(gallery(images, labels, model.class_names), path)
