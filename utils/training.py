"""How a network is trained: the settings and their presets, the losses, a step, the average, validation."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from . import UsageError, mixture
from .classify import Scores, class_log_likelihoods, score
from .data import UNKNOWN, ImageDataset, to_float
from .device import autocast, memory_format
from .layers import data_dependent_init
from .model import ConditionalPixelCNN, ModelConfig
from .muon import Muon

CHOICES = {"optimizer": ("adam", "muon"), "schedule": ("step", "cosine")}
SOFTNESS = 20.0  # nats; divides log-likelihoods in `hybrid_loss`: sums over thousands of pixels are far too sure


@dataclass(frozen=True)
class TrainConfig:
    """What a network learns from and how. Every field changes what is learned.

    Args:
        dataset: `cartoons`, `cartoons-hard`, `cpen455`, `cifar10` or `folder`.
        train_limit: use this many of the training pictures, chosen at random, every class in its proportion; 0 is all.
        epochs: how often every training picture is seen.
        batch_size: pictures in a step.
        optimizer: `adam` for all parameters; `muon` for the convolutions' kernels and Adam for the others.
        lr: the optimiser's learning rate, at its highest.
        adam_lr: with `muon`, Adam's learning rate for the others, at its highest.
        weight_decay: with `muon`, a step shortens the kernels by lr * weight_decay of their length.
        schedule: `step` multiplies both rates by `lr_decay` after each epoch, `cosine` brings them to 0 at the end.
        lr_decay: for `step`.
        warmup: steps over which both rates rise from 0.
        ema_decay: of the averaged weights, per step; 0 keeps the average equal to the weights.
        flip: mirror each training picture with probability 1/2.
        shift: shift it by up to this many pixels in each direction, repeating its edge.
        turn: with this probability turn it by one to three quarters, and tell the network by how many: each turn has
            rows of its own in the class's tables. It learns from more pictures, and is judged upright (Jun et al. 2020,
            "Distribution Augmentation").
        grad_clip: largest norm of the gradient of the loss in bits per dimension; 0 does not clip.
        init: weights to begin with, by name or path, of the same architecture (but for dropout and, without the
            `early` site, image_size).
        hybrid: weight of the cross-entropy in the loss, of the label against the wrong one that the run's first weights
            find likeliest; 0 is purely generative.
        seed: fixes the first weights, the order of the pictures, flips, shifts and dropout.
        precision: what autocast computes in: `auto`, `float32`, `bfloat16` or `float16`.

    Raises:
        UsageError: a value is out of range.
    """

    dataset: str = "cartoons"
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
    turn: float = 0.0
    grad_clip: float = 0.0
    init: str = ""
    hybrid: float = 0.0
    seed: int = 0
    precision: str = "auto"

    def __post_init__(self):
        check_at_least(self, 1, "epochs", "batch_size")
        check_at_least(self, 0, "train_limit", "warmup", "shift", "grad_clip", "hybrid")
        check_seed(self.seed)
        if not 0 <= self.turn <= 1:
            raise UsageError(f"turn must be a probability, 0 to 1, not {self.turn}")
        if not 0 < self.lr < math.inf or not 0 < self.lr_decay <= 1:
            raise UsageError(f"lr must be above 0, lr_decay above 0 and at most 1, not {self.lr}, {self.lr_decay}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(f"unknown {name} {getattr(self, name)!r}: choose from {', '.join(choices)}")
        if not 0 < self.adam_lr < math.inf or not 0 <= self.weight_decay * self.lr < 1:
            given = f"{self.adam_lr}, {self.weight_decay}"
            raise UsageError(f"adam_lr must be above 0, weight_decay at least 0 and below 1 / lr, not {given}")
        if self.weight_decay and self.optimizer != "muon":
            raise UsageError("weight_decay goes with Muon: add --optimizer muon")
        if not 0 <= self.ema_decay < 1:
            raise UsageError(f"ema_decay must be at least 0 and less than 1, not {self.ema_decay}")


def check_seed(seed: int) -> None:
    """Raises UsageError for a seed that PyTorch's generators do not take."""
    if not 0 <= seed < 2**64:
        raise UsageError(f"seed must be 0 to {2**64 - 1}, not {seed}")


def check_at_least(config: object, least: int, *names: str) -> None:
    """Raises UsageError if one of the fields is smaller, or infinite."""
    for name in names:
        value = getattr(config, name)
        if not least <= value < math.inf:
            rule = f"at least {least}{' and finite' if value == math.inf else ''}"
            raise UsageError(f"{name} must be {rule}, not {value}")


_WITH_MUON = dict(optimizer="muon", lr=0.02, schedule="cosine", grad_clip=1.0)
# What a preset does not name is the default of the two configs: the report's model and its training.
PRESETS: dict[str, dict] = {
    # the report this kit starts from: 100 filters, 2 resnets, 5 mixtures, Table 1's fusion
    "report": {},
    # the course's starter settings
    "starter": dict(nr_filters=40, nr_resnet=1),
    # size, conditioning and rates of the original code, whose 0.999995 a step is 0.9987 in an epoch of 260 steps
    "original": dict(
        nr_filters=160, nr_resnet=5, nr_logistic_mix=10, fusion="blocks", lr=1e-3, lr_decay=0.9987, ema_decay=0.9995
    ),
    # small and quick, for a CPU
    "cartoons": _WITH_MUON | dict(
        nr_filters=24, nr_resnet=1, dropout=0.0, fusion="early,middle,blocks",
        epochs=2, batch_size=8, warmup=100, ema_decay=0.99,
    ),
    # today's habits on the course's starter size: Muon, warm-up and cosine, averaged weights, flips, clipping
    "modern": _WITH_MUON | dict(
        nr_filters=40, nr_resnet=1, dropout=0.1, fusion="film,middle,late",
        epochs=40, warmup=500, ema_decay=0.999, flip=True,
    ),
}  # fmt: skip
# the shipped cpen455: what RESULTS.md found to pay, told of turns (a quarter, a half, three quarters) as well
PRESETS["best"] = PRESETS["modern"] | dict(
    nr_filters=96, nr_logistic_mix=10, fusion="upstream,middle,late,film", turn=0.5, epochs=60, batch_size=8
)
# at the size of the course's files; convolutions have no size, so it begins with what was learned at 32x32
PRESETS["best64"] = PRESETS["best"] | dict(image_size=64, init="cpen455", lr=5e-3, adam_lr=1e-3, warmup=100, epochs=20)


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
    return torch.optim.Adam(model.parameters(), lr=config.lr, fused=next(model.parameters()).device.type != "mps")


@torch.no_grad()
def initialise(model: ConditionalPixelCNN, images: Tensor, labels: Tensor, seed: int) -> None:
    """Data-dependent weights to begin with, every layer's, then the mixture's, from up to 64 of the training pictures,
    uint8 (N, 3, S, S), and their labels (N,), which the seed chooses."""
    chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:64].to(images.device)
    x = to_float(images[chosen])
    with data_dependent_init(model.eval()):
        model(x, labels[chosen])
    model.head.conv.bias.copy_(mixture.initial_bias(x, model.config.nr_logistic_mix))


QUARTERS = 4


def told_of_turns(model_config: ModelConfig, config: TrainConfig) -> ModelConfig:
    """That of the network in training. With `turn` label y + C q is class y, turned by q quarters."""
    return replace(model_config, num_classes=model_config.num_classes * (QUARTERS if config.turn else 1))


def upright(model: ConditionalPixelCNN, num_classes: int) -> ConditionalPixelCNN:
    """What a network that is told of turns is for upright pictures: the same weights, in the same memory, and the first
    rows of the class's tables."""
    same = copy.deepcopy(model)
    same.config = replace(model.config, num_classes=num_classes)
    for ours, theirs in zip(same.parameters(), model.parameters(), strict=True):
        ours.data = theirs.data
    for rows in same.fusion.parameters():
        rows.data = rows.data[:num_classes]  # (C, size)
    return same


def generative_loss(model: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """-> what is minimised and the bits per dimension, which are the same here: (B,) each."""
    bits = mixture.bits_per_dim(-mixture.log_prob(model(x, y), x), x.shape[-1])  # float32 whatever the precision
    return bits, bits


def hybrid_loss(
    model: Callable[[Tensor, Tensor], Tensor], x: Tensor, labels: Tensor, weight: float
) -> tuple[Tensor, Tensor]:
    """Generative and discriminative at once: bits per dimension + weight * cross-entropy of Bayes' rule, softmax over
    `labels`, int64 (B, L), of log p(x | label) / `SOFTNESS` (Lasserre, Bishop, Minka 2006). The first is the picture's
    own; each costs a forward pass. -> what is minimised and the bits per dimension: (B,) each
    """
    pictures = x.repeat_interleave(labels.shape[1], dim=0)  # (B L, 3, H, W)
    nats = mixture.log_prob(model(pictures, labels.flatten()), pictures).view(labels.shape)
    bits = mixture.bits_per_dim(-nats[:, 0], x.shape[-1])
    return bits - weight * F.log_softmax(nats / SOFTNESS, dim=1)[:, 0], bits


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
    model: ConditionalPixelCNN, dataset: ImageDataset, precision=torch.float32, log_likelihoods=class_log_likelihoods
) -> tuple[float, Scores]:
    """Bits per dimension under the true label, and the scores of the generative classifier, over all pictures whose
    label is known. `log_likelihoods` is `class_log_likelihoods` or does the same, in several processes say."""
    x, y = dataset.tensors()
    x, y = x[y != UNKNOWN], y[y != UNKNOWN]
    nats = log_likelihoods(model, x, precision=precision).float().cpu()  # (N, C)
    bits = mixture.bits_per_dim(-nats.gather(1, y[:, None]).mean(), x.shape[-1])
    return float(bits), score(nats.argmax(dim=1), y, model.config.num_classes)
