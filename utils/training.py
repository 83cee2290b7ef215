"""The training loop, its settings and its presets."""

import contextlib
import copy
import functools
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from . import UsageError, checkpoints, distributed, mixture, tracking
from .classify import Scores, class_log_likelihoods, score
from .data import UNKNOWN, ImageDataset, load_split, shifted, to_bytes, to_float
from .layers import data_dependent_init
from .model import ConditionalPixelCNN, ModelConfig
from .muon import Muon
from .runs import (
    RunState,
    Stopped,
    StopRequest,
    find_run,
    keep_metrics,
    seconds_of,
    seed_step,
    sole_writer,
    write_config,
)
from .runtime import autocast, memory_format, pick_device, pick_precision

OPTIMIZERS = ("adam", "muon")
SOFTNESS = 20.0  # nats; divides log-likelihoods in `hybrid_loss`: sums over thousands of pixels are far too sure


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
        optimizer: one of `OPTIMIZERS`: `adam` for all parameters; `muon` for the convolutions' kernels and Adam for
            the others, see `muon.Muon`.
        lr: the optimiser's learning rate, at its highest.
        adam_lr: with `muon`, Adam's learning rate for the others, at its highest.
        weight_decay: with `muon`, a step shortens the kernels by lr * weight_decay of their length.
        schedule: `step` multiplies both rates by `lr_decay` after each epoch, `cosine` brings them to 0 at the end.
        lr_decay: for `step`.
        warmup: steps over which both rates rise from 0.
        ema_decay: of the averaged weights, per step; 0 keeps the average equal to the weights.
        flip: mirror each training picture with probability 1/2.
        shift: move it by up to so many pixels in each direction, its edge repeated.
        init: weights to begin with, by name or path, of the same architecture (but for dropout and, without the
            `early` site, image_size).
        hybrid: weight of the cross-entropy of the label given the picture in the loss; see `hybrid_loss`.
        grad_clip: largest norm of the gradient of the loss in bits per dimension; 0 does not clip.
        precision: what autocast computes in; see `runtime.pick_precision`.
        device: `auto`, `cpu`, `cuda`, `mps`.
        compile: train through `torch.compile`: a minute or two of warm-up, then faster steps; on a CPU it needs
            a C++ compiler.
        checkpoint_every: epochs between writings of `last.pt`, from which a run resumes.
        sample_every: epochs between galleries drawn with the averaged weights; 0 draws none.
        fid_every: epochs between rough FIDs, 25 samples of each class at 192 dims against the validation pictures,
            both at the model's size: for watching one run, not for comparing with others; 0 computes none.
        wandb: Weights & Biases: one of `tracking.MODES`.
        time_limit: `11h30m`, say: save and stop when so much time has passed, before a platform's own limit.
    """

    dataset: str = "cartoons"
    data_root: str | None = None
    train_limit: int = 0
    epochs: int = 200
    batch_size: int = 16
    optimizer: str = "adam"
    lr: float = 2e-4
    adam_lr: float = 5e-3
    weight_decay: float = 0.0
    schedule: str = "step"
    lr_decay: float = 0.999995
    warmup: int = 0
    ema_decay: float = 0.0
    flip: bool = False
    shift: int = 0
    grad_clip: float = 0.0
    init: str = ""
    hybrid: float = 0.0
    seed: int = 0
    precision: str = "auto"
    device: str = "auto"
    compile: bool = False
    checkpoint_every: int = 5
    sample_every: int = 0
    fid_every: int = 0
    time_limit: str = ""
    wandb: str = "auto"

    def __post_init__(self):
        for name in ("epochs", "batch_size", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("train_limit", "warmup", "shift", "grad_clip", "hybrid", "sample_every", "fid_every", "seed"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} must not be negative, not {getattr(self, name)}")
        if not 0 < self.lr < math.inf or not 0 < self.lr_decay <= 1:
            raise UsageError(f"lr must be above 0, lr_decay above 0 and at most 1, not {self.lr}, {self.lr_decay}")
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"unknown optimizer {self.optimizer!r}: choose from {', '.join(OPTIMIZERS)}")
        if not 0 < self.adam_lr < math.inf or not 0 <= self.weight_decay * self.lr < 1:
            raise UsageError(
                f"adam_lr must be above 0, weight_decay at least 0 and below 1 / lr, "
                f"not {self.adam_lr}, {self.weight_decay}"
            )
        if self.weight_decay and self.optimizer != "muon":
            raise UsageError("weight_decay goes with Muon: add --optimizer muon")
        if not 0 <= self.ema_decay < 1:
            raise UsageError(f"ema_decay must be at least 0 and less than 1, not {self.ema_decay}")
        if self.schedule not in ("step", "cosine"):
            raise UsageError(f"unknown schedule {self.schedule!r}: choose from step, cosine")
        if self.wandb not in tracking.MODES:
            raise UsageError(f"unknown wandb mode {self.wandb!r}: choose from {', '.join(tracking.MODES)}")
        seconds_of(self.time_limit)


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
        "epochs": 2,
        "batch_size": 8,
        "optimizer": "muon",
        "lr": 0.02,
        "schedule": "cosine",
        "warmup": 100,
        "ema_decay": 0.99,
        "grad_clip": 1.0,
        "checkpoint_every": 1,
    },
    # today's habits on the course's starter size: Muon, warm-up and cosine, averaged weights, flips, clipping
    "modern": {
        "nr_filters": 40,
        "nr_resnet": 1,
        "dropout": 0.1,
        "fusion": "film,middle,late",
        "epochs": 40,
        "batch_size": 16,
        "optimizer": "muon",
        "lr": 0.02,
        "schedule": "cosine",
        "warmup": 500,
        "ema_decay": 0.999,
        "flip": True,
        "grad_clip": 1.0,
        "checkpoint_every": 1,
    },
}
# what sweeps/README.md found, at the size of the shipped cpen455
PRESETS["best"] = PRESETS["modern"] | {"nr_filters": 64, "fusion": "all", "epochs": 60, "batch_size": 8}
# at the size of the course's files; convolutions do not care, so it begins with what was learnt at 32x32
PRESETS["best64"] = PRESETS["best"] | {
    "fusion": PRESETS["modern"]["fusion"],
    "image_size": 64,
    "init": "cpen455",
    "lr": 5e-3,
    "adam_lr": 1e-3,
    "warmup": 100,
    "epochs": 20,
}


def check_preset(name: str) -> dict:
    """The preset's values. Raises UsageError if there is none of that name."""
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name!r}: choose from {', '.join(PRESETS)}")
    return PRESETS[name]


def configs_for(preset: str, num_classes: int, **overrides) -> tuple[ModelConfig, TrainConfig]:
    """The two configs of a preset, with fields of either replaced.

    Raises:
        UsageError: an unknown preset, a value out of range, another optimiser without a learning rate for it.
    """
    of_preset = check_preset(preset)
    values = of_preset | overrides
    of_model = {name: values.pop(name) for name in list(values) if name in ModelConfig.__dataclass_fields__}
    config = TrainConfig(**values)
    if config.optimizer != of_preset.get("optimizer", TrainConfig.optimizer) and "lr" not in overrides:
        raise UsageError(f"the learning rate of preset {preset!r} is not one for {config.optimizer}: give --lr too")
    if "adam_lr" in overrides and config.optimizer != "muon":
        raise UsageError("adam_lr goes with Muon: add --optimizer muon, or set --lr")
    return ModelConfig(num_classes, **of_model), config


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, counted from 0: a function of the step alone, so resuming needs no state."""
    rate = config.lr * min(1.0, (step + 1) / max(1, config.warmup))
    if config.schedule == "step":
        return rate * config.lr_decay ** (step // steps_per_epoch)
    return rate * 0.5 * (1 + math.cos(math.pi * step / (config.epochs * steps_per_epoch)))


def build_optimizer(model: ConditionalPixelCNN, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser that `config` names."""
    if config.optimizer == "muon":
        return Muon(model, config.lr, config.adam_lr, weight_decay=config.weight_decay)
    on_mps = next(model.parameters()).device.type == "mps"
    return torch.optim.Adam(model.parameters(), lr=config.lr, fused=not on_mps)


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
        UsageError: bad input, a run that exists already, none to resume, one that another process trains.
        Diverged: the loss became NaN or infinite; the checkpoints are those of the last good epoch.
        Stopped: Ctrl-C, SIGTERM or the time limit; last.pt holds the very batch it stopped at.
    """
    first = distributed.rank() == 0  # the process that writes
    if first:
        find_run(run)  # copies it where it must
    distributed.wait()
    folder = find_run(run)
    train_set = load_split(config.dataset, "train", config.data_root, model_config.image_size)
    if config.train_limit:
        train_set = train_set.first(config.train_limit)
    validation_set = load_split(config.dataset, "validation", config.data_root, model_config.image_size)
    if len(train_set.classes) != model_config.num_classes:
        raise UsageError(f"{config.dataset} has {len(train_set.classes)} classes, not {model_config.num_classes}")
    if bool((train_set.labels == UNKNOWN).any()):
        raise UsageError(f"the training split of {config.dataset} has pictures without a label")
    if not resume and (folder / "config.json").exists():
        raise UsageError(f"run {str(run)!r} exists already: add --resume to go on, or choose another --run")
    if resume and not folder.is_dir():
        raise UsageError(f"there is no run {str(run)!r} to resume")
    device = pick_device(config.device)
    precision = pick_precision(device, config.precision)
    mode = tracking.resolve_mode(config.wandb) if first else "off"

    torch.manual_seed(config.seed)
    model = ConditionalPixelCNN(model_config).to(device).to(memory_format=memory_format(device))
    model.class_names = train_set.classes
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = build_optimizer(model, config)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    run_state = RunState(model, averaged, optimizer, scaler)
    images = train_set.images.to(device)
    labels = train_set.labels.to(device)
    if resume and (folder / "last.pt").exists():
        run_state.load(folder)
    else:  # a new run, or one that was killed before it first saved
        _initialise(model, images, labels, config)
        averaged.load_state_dict(model.state_dict())
    forward: Callable[[Tensor, Tensor], Tensor] = model
    if distributed.size() > 1:
        forward = torch.nn.parallel.DistributedDataParallel(model)
    if config.compile:
        forward = torch.compile(forward, dynamic=False)

    values = {"model": model_config.to_dict(), "train": asdict(config)}
    steps_per_epoch = math.ceil(len(labels) / config.batch_size)
    distributed.wait()  # all have read before one writes
    with contextlib.ExitStack() as at_the_end:
        if first:
            at_the_end.enter_context(sole_writer(folder))
            for left_over in folder.glob(".*.tmp"):  # of a process that was killed while it saved
                left_over.unlink()
            keep_metrics(folder, run_state.epoch)
            write_config(folder, values)
        tracker = tracking.Tracker(mode, folder, values, train_set.classes)
        stop = at_the_end.enter_context(StopRequest(seconds_of(config.time_limit)))
        at_the_end.callback(tracker.finish, folder / "best.safetensors")
        while run_state.epoch < config.epochs:
            started = time.perf_counter()
            first_batch = run_state.batch
            train_bpd = _train_epoch(run_state, forward, images, labels, config, precision, stop, folder)
            seconds = time.perf_counter() - started
            validation_bpd, scores = validate(averaged, validation_set, precision)
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
                "validation_accuracy": round(scores.accuracy, 5),
                "images_per_second": round((len(labels) - first_batch * config.batch_size) / seconds, 1),
                "seconds": round(time.perf_counter() - started, 1),
                "seconds_saving": round(run_state.seconds_saving, 2),  # what the save before this line took
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
            if config.fid_every and run_state.epoch % config.fid_every == 0:
                line |= _rough_fid(averaged, validation_set, config.seed)
            better = validation_bpd < run_state.best
            run_state.best = min(validation_bpd, run_state.best)
            last = run_state.epoch == config.epochs
            stopping = distributed.anywhere(bool(stop.reason())) and not last
            if first:
                with open(folder / "metrics.jsonl", "a") as file:
                    file.write(json.dumps(line) + "\n")
                if better:
                    checkpoints.save_model(averaged, folder / "best.safetensors")
                if run_state.epoch % config.checkpoint_every == 0 or last or stopping:
                    checkpoints.save_model(averaged, folder / "last.safetensors")
                    run_state.save(folder)
                tracker.log(line, scores)
            if config.sample_every and run_state.epoch % config.sample_every == 0:
                draw_gallery(averaged, folder / "gallery.png", config.seed)
                tracker.gallery(folder / "gallery.png", step)
            if on_epoch and first:
                on_epoch(line)
            if stopping:
                raise Stopped(f"{stop.reason() or 'another process was asked'} after epoch {run_state.epoch}")
    return folder


def _train_epoch(run_state, forward, images, labels, config, precision, stop, folder) -> float:
    """The rest of an epoch; -> mean bits per dimension over all of it. Order, flips and shifts follow from
    (seed, epoch)."""
    device, epoch = images.device, run_state.epoch
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    order = torch.randperm(len(labels), generator=generator)
    flips = torch.rand(len(labels), generator=generator) < 0.5
    shifts = torch.randint(-config.shift, config.shift + 1, (2, len(labels)), generator=generator)
    batches = order.split(config.batch_size)
    rank, nr_processes = distributed.rank(), distributed.size()
    sums = torch.float32 if device.type == "mps" else torch.float64
    total = torch.tensor(0.0 if rank else run_state.total, dtype=sums, device=device)  # of this process's pictures
    loss_of = generative_loss
    if config.hybrid:
        num_classes = run_state.model.config.num_classes
        loss_of = functools.partial(hybrid_loss, num_classes=num_classes, weight=config.hybrid)
    run_state.model.train()
    bar = tqdm(
        range(run_state.batch, len(batches)),
        desc=f"epoch {epoch + 1}/{config.epochs}",
        leave=False,
        disable=True if rank else None,
        initial=run_state.batch,
        total=len(batches),
    )
    for i in bar:
        step = epoch * len(batches) + i
        own = distributed.share(batches[i])  # of a short last batch it may be none, which all of the step bears
        index = own.to(device)
        x, y = to_float(images[index]), labels[index]
        if config.flip:
            x = torch.where(flips[own].to(device)[:, None, None, None], x.flip(3), x)
        if config.shift:
            x = shifted(x, *shifts[:, own].to(device))
        lr = learning_rate(config, step, len(batches))
        for group in run_state.optimizer.param_groups:
            group["lr"] = lr * group.get("relative_lr", 1.0)
        seed_step(config.seed, step, rank)
        count = len(batches[i]) / nr_processes  # gradients are averaged over the processes
        scaler = run_state.scaler
        bits = train_step(forward, x, y, run_state.optimizer, scaler, precision, config.grad_clip, loss_of, count)
        update_average(run_state.averaged, run_state.model, config.ema_decay, step)

        total += bits * count
        run_state.batch = i + 1
        last = run_state.batch == len(batches)
        stopping = distributed.anywhere(bool(stop.reason())) and not last
        if i % 20 == 0 or last or stopping:  # a look at the number makes a GPU wait
            total_of_all = float(distributed.total(total))
            if not math.isfinite(total_of_all):
                raise Diverged(
                    f"the loss became NaN or infinite in epoch {epoch + 1}; the last good checkpoint is kept. "
                    f"Try a smaller --lr or --adam-lr, or --grad-clip 1"
                )
            bar.set_postfix(bpd=f"{bits.item():.3f}")
        if stopping:
            run_state.total = total_of_all
            if not rank:
                run_state.save(folder)
            reason = stop.reason() or "another process was asked"
            raise Stopped(f"{reason} in epoch {epoch + 1}, after {run_state.batch} of {len(batches)} batches")
    return total_of_all / len(labels)


def generative_loss(model: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """-> what is minimised and the bits per dimension, which are the same here: (B,) each."""
    bits = mixture.bits_per_dim(-mixture.log_prob(model(x, y), x), x.shape[-1])  # float32 whatever the precision
    return bits, bits


def hybrid_loss(
    model: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, num_classes: int, weight: float
) -> tuple[Tensor, Tensor]:
    """Generative and discriminative at once: bits per dimension + weight * cross-entropy of Bayes' rule,
    softmax over the labels of log p(x | label) / `SOFTNESS` (Lasserre, Bishop, Minka 2006). It costs a forward pass
    for each label. -> what is minimised and the bits per dimension: (B,) each
    """
    labels = torch.arange(num_classes, device=x.device).repeat(len(x))
    pictures = x.repeat_interleave(num_classes, dim=0)  # (B C, 3, H, W)
    nats = mixture.log_prob(model(pictures, labels), pictures).view(len(x), num_classes)
    bits = mixture.bits_per_dim(-nats.gather(1, y[:, None])[:, 0], x.shape[-1])
    return bits + weight * F.cross_entropy(nats / SOFTNESS, y, reduction="none"), bits


def train_step(
    model: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    precision: torch.dtype,
    grad_clip: float = 0.0,
    loss_of: Callable = generative_loss,
    count: float | None = None,
) -> Tensor:
    """One step of the optimiser on a batch; -> its bits per dimension before the step, summed and divided by `count`,
    the number of its pictures if None."""
    x = x.contiguous(memory_format=memory_format(x.device))
    with autocast(x.device, precision):
        losses, bits = loss_of(model, x, y)  # (B,) each
    count = count or len(x)
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(losses.sum() / count).backward()
    if grad_clip:
        scaler.unscale_(optimizer)
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        torch.nn.utils.clip_grad_norm_(weights, grad_clip)
    scaler.step(optimizer)
    scaler.update()
    return bits.detach().sum() / count


@torch.no_grad()
def update_average(averaged, model, decay: float, step: int) -> None:
    """averaged <- d averaged + (1 - d) weights, where d rises to `decay` so that early weights are forgotten."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)


def validate(
    model: ConditionalPixelCNN, dataset: ImageDataset, precision: torch.dtype = torch.float32
) -> tuple[float, Scores]:
    """Bits per dimension under the true label, and how good zero-shot classification is, over all pictures whose
    label is known."""
    x, y = dataset.tensors()
    x, y = x[y != UNKNOWN], y[y != UNKNOWN]
    log_likelihoods = class_log_likelihoods(model, x, precision=precision).float().cpu()
    nats = -log_likelihoods.gather(1, y[:, None]).mean()
    scores = score(log_likelihoods.argmax(dim=1), y, model.config.num_classes)
    return float(mixture.bits_per_dim(nats, x.shape[-1])), scores


def _rough_fid(model: ConditionalPixelCNN, validation_set: ImageDataset, seed: int, per_class: int = 25) -> dict:
    """Entries for a line of metrics; none, and a warning, when the FID cannot be had. All processes must call it."""
    from . import fid
    from .sampling import generate_shared

    labels = torch.arange(model.config.num_classes).repeat_interleave(per_class)
    images = generate_shared(model, labels, generator=torch.Generator().manual_seed(seed))
    if distributed.rank():
        return {}
    try:
        value = fid.fid_of_images(to_bytes(images.cpu()), validation_set.images, fid.COURSE_DIMS, images.device)
    except Exception as error:  # a missing package or file, too little memory: the training matters more
        reason = (str(error) or type(error).__name__).splitlines()[0]
        print(f"warning: no FID in this epoch: {reason}", file=sys.stderr)
        return {}
    return {"fid": round(value, 3), "fid_dims": fid.COURSE_DIMS, "fid_counts": [len(labels), len(validation_set)]}


def _initialise(model: ConditionalPixelCNN, images: Tensor, labels: Tensor, config: TrainConfig) -> None:
    """Weights to begin with: those given, else data-dependent ones from up to 64 training pictures: every layer's,
    then the mixture's."""
    if config.init:
        given = checkpoints.load_model(config.init)
        fitting = replace(model.config, dropout=given.config.dropout)
        if "early" not in fitting.fusion:  # all else is convolutions and channels
            fitting = replace(fitting, image_size=given.config.image_size)
        if given.config != fitting:
            raise UsageError(f"--init {config.init} holds {given.config}, the run is to have {model.config}")
        model.load_state_dict(given.state_dict())
        return
    generator = torch.Generator().manual_seed(config.seed)
    chosen = torch.randperm(len(labels), generator=generator)[:64].to(images.device)
    x = to_float(images[chosen])
    with data_dependent_init(model.eval()):
        model(x, labels[chosen])
    with torch.no_grad():
        model.head.conv.bias.copy_(mixture.initial_bias(x, model.config.nr_logistic_mix))


def read_config(run: str | Path) -> tuple[ModelConfig, TrainConfig]:
    """The configs of a run. Raises UsageError if there is no such run or its config.json is damaged."""
    path = find_run(run) / "config.json"
    try:
        values = json.loads(path.read_text())
        return ModelConfig.from_dict(values["model"]), replace(TrainConfig(), **values["train"])
    except FileNotFoundError:
        raise UsageError(f"there is no run {str(run)!r} to resume ({path} is missing)") from None
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise UsageError(f"{path} is damaged: {error}") from None


def draw_gallery(model: ConditionalPixelCNN, path: Path, seed: int, per_class: int = 8) -> None:
    """Draws `per_class` pictures of every class, random by the seed, into a PNG. All processes must call it."""
    from .figures import gallery, save_png
    from .sampling import generate_shared

    labels = torch.arange(model.config.num_classes).repeat_interleave(per_class)
    images = generate_shared(model, labels, generator=torch.Generator().manual_seed(seed))
    if distributed.rank() == 0:
        save_png(gallery(images, labels, model.class_names), path)
