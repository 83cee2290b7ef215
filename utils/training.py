"""The training loop, its settings and its presets."""

import copy
import json
import math
import os
import re
import signal
import threading
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


class Stopped(Exception):
    """The run was asked to stop; it has saved where it is, and goes on with `resume`."""


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
        time_limit: `11h30m`, say: save and stop when so much time has passed, before a platform's own limit.
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
    time_limit: str = ""

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
        seconds_of(self.time_limit)


def seconds_of(text: str) -> float:
    """`11h30m`, `90m` or `45s` -> seconds; no text is no limit. Raises UsageError for anything else."""
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not parts:
        raise UsageError(f"a time limit is written like 11h30m, 90m or 45s, not {text!r}")
    hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    return 3600 * hours + 60 * minutes + seconds if text else math.inf


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
        Stopped: Ctrl-C, SIGTERM or the time limit; last.pt holds the very batch it stopped at.
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
    run_state = RunState(model, averaged, optimizer, scaler)
    images = train_set.images.to(device)
    labels = train_set.labels.to(device)
    steps_per_epoch = math.ceil(len(labels) / config.batch_size)

    metrics_file = folder / "metrics.jsonl"
    if not resume and (folder / "config.json").exists():
        raise UsageError(f"run {str(run)!r} exists already: add --resume to go on, or choose another --run")
    if resume and not folder.is_dir():
        raise UsageError(f"there is no run {str(run)!r} to resume")
    for left_over in folder.glob(".*.tmp"):  # of a process that was killed while it saved
        left_over.unlink()
    if resume and (folder / "last.pt").exists():
        run_state.load(folder)
    else:  # a new run, or one that was killed before it first saved
        _initialise(model, images, labels, config.seed)
        averaged.load_state_dict(model.state_dict())
    if metrics_file.exists():  # lines of epochs that were not saved will be written again
        lines = metrics_file.read_text().splitlines(keepends=True)[: run_state.epoch]
        checkpoints.write_atomically(metrics_file, lambda temporary: temporary.write_text("".join(lines)))
    _write_config(folder, model_config, config)

    with StopRequest(seconds_of(config.time_limit)) as stop:
        while run_state.epoch < config.epochs:
            started = time.perf_counter()
            first_batch = run_state.batch
            train_bpd = _train_epoch(run_state, forward, images, labels, config, precision, stop, folder)
            seconds = time.perf_counter() - started
            validation_bpd, accuracy = validate(averaged, validation_set, precision)
            if not math.isfinite(validation_bpd):
                raise Diverged(f"validation loss became {validation_bpd} in epoch {run_state.epoch + 1}")
            run_state.epoch, run_state.batch, run_state.total = run_state.epoch + 1, 0, 0.0
            step = run_state.epoch * steps_per_epoch
            line = {
                "epoch": run_state.epoch,
                "step": step,
                "lr": learning_rate(config, step - 1, steps_per_epoch),
                "train_bpd": round(train_bpd, 5),
                "validation_bpd": round(validation_bpd, 5),
                "validation_accuracy": round(accuracy, 5),
                "images_per_second": round((len(labels) - first_batch * config.batch_size) / seconds, 1),
                "seconds": round(time.perf_counter() - started, 1),
                "seconds_saving": round(run_state.seconds_saving, 2),  # what the save before this line took
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
            with open(metrics_file, "a") as file:
                file.write(json.dumps(line) + "\n")
            if validation_bpd < run_state.best:
                run_state.best = validation_bpd
                checkpoints.save_model(averaged, folder / "best.safetensors")
            last = run_state.epoch == config.epochs
            stopping = bool(stop.reason()) and not last
            if run_state.epoch % config.checkpoint_every == 0 or last or stopping:
                checkpoints.save_model(averaged, folder / "last.safetensors")
                run_state.save(folder)
            if config.sample_every and run_state.epoch % config.sample_every == 0:
                draw_gallery(averaged, folder / "gallery.png", config.seed)
            if on_epoch:
                on_epoch(line)
            if stopping:
                raise Stopped(f"{stop.reason()} after epoch {run_state.epoch}")
    return folder


class StopRequest:
    """While open, Ctrl-C and SIGTERM are wishes to stop soon, not interruptions; so is a limit in seconds."""

    def __init__(self, limit: float):
        self.end = time.monotonic() + limit
        self.signal = ""

    def reason(self) -> str:
        """Why to stop; empty while there is no reason."""
        return self.signal or ("the time limit was reached" if time.monotonic() > self.end else "")

    def _on_signal(self, number, _frame) -> None:
        if self.signal:  # asked twice: at once
            raise KeyboardInterrupt
        self.signal = f"{signal.Signals(number).name} came"

    def __enter__(self) -> "StopRequest":
        self.old = {}
        if threading.current_thread() is threading.main_thread():  # others may not change what signals do
            self.old = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_error) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)


def _train_epoch(run_state, forward, images, labels, config, precision, stop, folder) -> float:
    """The rest of an epoch; -> mean bits per dimension over all of it. Order and flips follow from (seed, epoch)."""
    device, epoch = images.device, run_state.epoch
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    order = torch.randperm(len(labels), generator=generator)
    flips = torch.rand(len(labels), generator=generator) < 0.5
    batches = order.split(config.batch_size)
    total = torch.tensor(run_state.total, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    run_state.model.train()
    bar = tqdm(
        range(run_state.batch, len(batches)),
        desc=f"epoch {epoch + 1}/{config.epochs}",
        leave=False,
        disable=None,
        initial=run_state.batch,
        total=len(batches),
    )
    for i in bar:
        step = epoch * len(batches) + i
        index = batches[i].to(device)
        x, y = to_float(images[index]), labels[index]
        if config.flip:
            x = torch.where(flips[batches[i]].to(device)[:, None, None, None], x.flip(3), x)
        for group in run_state.optimizer.param_groups:
            group["lr"] = learning_rate(config, step, len(batches))
        loss = train_step(forward, x, y, run_state.optimizer, run_state.scaler, precision, config.grad_clip)
        update_average(run_state.averaged, run_state.model, config.ema_decay, step)

        total += loss * len(y)
        run_state.batch = i + 1
        last = run_state.batch == len(batches)
        stopping = bool(stop.reason()) and not last
        if i % 20 == 0 or last or stopping:  # a look at the number makes a GPU wait
            if not math.isfinite(total):
                raise Diverged(
                    f"the loss became NaN or infinite in epoch {epoch + 1}; the last good checkpoint is kept. "
                    f"Try a smaller --lr or --grad-clip 1"
                )
            bar.set_postfix(bpd=f"{loss.item():.3f}")
        if stopping:
            run_state.total = float(total)
            run_state.save(folder)
            raise Stopped(f"{stop.reason()} in epoch {epoch + 1}, after {run_state.batch} of {len(batches)} batches")
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


class RunState:
    """All that a run needs to go on as if nothing had happened, at any batch of any epoch."""

    def __init__(self, model, averaged, optimizer, scaler):
        self.model, self.averaged, self.optimizer, self.scaler = model, averaged, optimizer, scaler
        self.epoch, self.batch = 0, 0  # done so far; batches in the epoch under way
        self.total = 0.0  # the loss of those batches, summed over pictures
        self.best = math.inf
        self.seconds_saving = 0.0

    def save(self, folder: Path) -> None:
        """Writes last.pt; the one before stays as previous.pt."""
        started = time.perf_counter()
        state = {name: getattr(self, name) for name in ("epoch", "batch", "total", "best")}
        for name in ("model", "averaged", "optimizer", "scaler"):
            state[name] = getattr(self, name).state_dict()
        state["rng"] = torch.get_rng_state()
        if torch.cuda.is_available():
            state["cuda_rng"] = torch.cuda.get_rng_state_all()
        if (folder / "last.pt").exists():
            checkpoints.write_atomically(folder / "previous.pt", lambda link: os.link(folder / "last.pt", link))
        checkpoints.save_state(state, folder / "last.pt")
        self.seconds_saving = time.perf_counter() - started

    def load(self, folder: Path) -> None:
        """Reads last.pt. Raises UsageError if it is missing, damaged or of another architecture."""
        state = checkpoints.load_state(folder / "last.pt")
        try:
            for name in ("model", "averaged", "optimizer", "scaler"):
                getattr(self, name).load_state_dict(state[name])
            torch.set_rng_state(state["rng"])
            if "cuda_rng" in state and torch.cuda.is_available():
                torch.cuda.set_rng_state_all(state["cuda_rng"])
            self.epoch, self.batch, self.total, self.best = (state[n] for n in ("epoch", "batch", "total", "best"))
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
