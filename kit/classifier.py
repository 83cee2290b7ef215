"""Weights as a classifier, as `evaluate`, `classify` and `submit` are told to use them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from utils import UsageError, classify, listing
from utils.checkpoints import with_classes
from utils.data import ImageDataset
from utils.device import pick_device, pick_precision
from utils.model import ConditionalPixelCNN

from . import distributed
from .platforms import load_model, load_pictures


@dataclass(frozen=True)
class Classifier:
    """Which weights, and how they are to classify.

    Args:
        checkpoint: shipped weights (`cartoons`, `cpen455`, ...: see checkpoints/README.md), a run's name, or a
            .safetensors file.
        device: `auto`, `cpu`, `cuda` or `mps`.
        prior: a weight for each class, `koala=2,pizza=1` say, 1 for those not named, or `1,1,2,1` in the model's order;
            all the same if not given.
        batch_size: pictures in one forward pass.
        precision: `float32`, `bfloat16`, `float16`, or `auto` for what is fast here.
        mirror: average with the log-likelihoods of the mirrored picture.
        ensemble: average with the log-likelihoods of these weights too; may be given several times.
    """

    checkpoint: str
    device: str = "auto"
    prior: str | None = None
    batch_size: int = 32
    precision: str = "float32"
    mirror: bool = False
    ensemble: tuple[str, ...] = ()

    def load(self, calibrate: int = 0) -> list[ConditionalPixelCNN]:
        """`checkpoint` and what is averaged with it, when all that shapes a classification is known to be good."""
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {self.batch_size}")
        if calibrate < 0:
            raise UsageError(f"--calibrate must not be negative, not {calibrate}")
        device = pick_device(self.device)
        models = [load_model(name, device) for name in (self.checkpoint, *self.ensemble)]
        own, class_names = models[0].config.image_size, models[0].class_names
        for n, name in enumerate(self.ensemble, 1):
            if (size := models[n].config.image_size) != own:
                raise UsageError(f"--ensemble {name} reads {size}x{size} pictures, {self.checkpoint} {own}x{own}")
            models[n] = with_classes(models[n], class_names, f"--ensemble {name}", self.checkpoint)
        self.prior_of(class_names)
        return models

    def pictures(self, models: list[ConditionalPixelCNN], dataset: str, split: str, root: str | None) -> ImageDataset:
        """The split at the models' size, with their labels; UsageError where it has other classes than they."""
        size, names = models[0].config.image_size, models[0].class_names
        return load_pictures(dataset, split, root, size, names, self.checkpoint)

    def calibration_pictures(
        self, models: list[ConditionalPixelCNN], dataset: str, root: str | None, count: int
    ) -> ImageDataset | None:
        """So many training pictures that a run with a `train_limit` has left out. UsageError if a class is missing."""
        if not count:
            return None
        chosen = self.pictures(models, dataset, "train", root).held_out(count)
        if absent := chosen.absent():
            raise UsageError(f"--calibrate {count}: these {len(chosen)} pictures show no {listing(absent)}: give more")
        return chosen

    def prior_of(self, class_names: tuple[str, ...]) -> Tensor | None:
        """-> (C,), None for a uniform one. Raises UsageError for anything but weights of classes."""
        if self.prior is None:
            return None
        parts, count = self.prior.split(","), len(class_names)
        named = dict(part.rsplit("=", 1) for part in parts) if all("=" in part for part in parts) else None
        try:
            weights = [float(weight) for weight in (parts if named is None else named.values())]
        except ValueError:
            how = f"{count} numbers joined by commas, or NAME=NUMBER for some classes"
            raise UsageError(f"--prior must be {how}, not {self.prior!r}") from None
        prior = torch.tensor(weights)
        if named is not None:
            if unknown := [name for name in named if name not in class_names]:
                raise UsageError(f"--prior names {listing(unknown)}; {self.checkpoint} knows {listing(class_names)}")
            prior = torch.ones(count)
            prior[[class_names.index(name) for name in named]] = torch.tensor(weights)
        classify.log_posterior(torch.zeros(1, count), prior)
        return prior

    def log_likelihoods(self, models: list[ConditionalPixelCNN], x: Tensor) -> Tensor:
        """log p(x | y) by every model of the pictures and, with `mirror`, of their mirror images, with one progress
        bar: (M V, N, C) in float64 on the CPU, the first model's of the pictures as they are first."""
        from tqdm.auto import tqdm

        views = [x, x.flip(3)] if self.mirror else [x]
        precision = pick_precision(next(models[0].parameters()).device, self.precision)
        total = len(models) * len(views) * len(x)
        with tqdm(total=total, leave=False, disable=True if distributed.rank() else None) as bar:
            how = (self.batch_size, precision, bar.update)
            every = [distributed.class_log_likelihoods(model, view, *how) for model in models for view in views]
        return torch.stack(every).cpu().double()

    def judge(self, models: list[ConditionalPixelCNN], nats: Tensor, fitted: ImageDataset | None) -> tuple[Tensor, str]:
        """What `log_likelihoods` came to -> log p(y | x) (N, C), and in words how. A temperature and class biases are
        fitted on `calibration_pictures`, if given; the biases change labels, not confidence alone."""
        precision = pick_precision(next(models[0].parameters()).device, self.precision)
        how = f"{', '.join([self.checkpoint, *self.ensemble])}, computed in {str(precision).removeprefix('torch.')}"
        if self.mirror:
            how += ", averaged with the mirrored pictures"
        logits = nats.mean(dim=0)
        if fitted:
            x, y = fitted.tensors()
            temperature, bias = classify.fit_calibration(self.log_likelihoods(models, x).mean(dim=0), y)
            logits = logits / temperature + bias
            few = len(bias) <= 10
            biases = ", ".join(f"{b:+.2f}" for b in bias.tolist()) if few else f"{bias.min():+.2f} to {bias.max():+.2f}"
            how += f", temperature {temperature:.3g}, class biases {biases}: fitted on {len(y)} training pictures"
        prior = self.prior_of(models[0].class_names)
        if prior is not None:
            weights = zip(models[0].class_names, prior.tolist(), strict=True)
            how += f", prior {listing(f'{name} {weight:g}' for name, weight in weights)}"
        return classify.log_posterior(logits, prior), how
