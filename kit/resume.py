"""What a run begins with: weights, rivals; or goes on from: its state, the classes and pictures it has learned from."""

import contextlib
import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from utils import UsageError, checkpoints, listing, note, training
from utils.data import to_float
from utils.model import ConditionalPixelCNN

from . import distributed
from .metrics import read_metrics
from .runs import LOST, RunConfig, load_state, read_values, trained_files


def begin(
    model: ConditionalPixelCNN, given: ConditionalPixelCNN | None, images: Tensor, labels: Tensor, config: RunConfig
) -> None:
    """Weights to begin with: those given, else data-dependent ones."""
    if given:
        turns = training.QUARTERS if config.turn else 1
        fitting = replace(model.config, dropout=given.config.dropout, num_classes=model.config.num_classes // turns)
        if "early" not in fitting.fusion:  # all else is convolutions and channels
            fitting = replace(fitting, image_size=given.config.image_size)
        theirs, ours = given.config.to_dict(), fitting.to_dict()
        if differ := [f"{name} {theirs[name]!r}, not {ours[name]!r}" for name in ours if theirs[name] != ours[name]]:
            raise UsageError(f"--init {config.init} does not fit the run: it has {'; '.join(differ)}")
        state = given.state_dict()
        for name in [name for name in state if name.startswith("fusion.")]:  # every turn begins as upright
            state[name] = state[name].repeat(turns, 1)
        model.load_state_dict(state)
    else:
        training.initialise(model, images, labels, config.seed)


def rivals_of(model: ConditionalPixelCNN, images: Tensor, labels: Tensor, precision: torch.dtype) -> Tensor:
    """For each of the training pictures, uint8 (N, 3, S, S), the wrong label that a network finds likeliest: (N,)."""
    hidden = True if distributed.rank() else None
    with tqdm(total=len(distributed.share(labels)), desc="rivals", leave=False, disable=hidden) as bar:
        how = {"precision": precision, "progress": bar.update}
        return likeliest_wrong(distributed.class_log_likelihoods(model, to_float(images), **how), labels)


def likeliest_wrong(nats: Tensor, labels: Tensor) -> Tensor:
    """The label of the largest log-likelihood in each row (N, C), its own (N,) left out: (N,)."""
    return nats.scatter(1, labels[:, None], -math.inf).argmax(dim=1)


def state_to_go_on_from(folder: Path, run: str | Path, resume: bool) -> dict | None:
    """That of last.pt, or of previous.pt where last.pt is missing or damaged; None for a new run, and for one that was
    killed before it first saved. Raises UsageError rather than let a run begin over one that has been trained."""
    trained = trained_files(folder)
    if not resume:
        if (folder / "config.json").exists():
            raise UsageError(f"run {str(run)!r} exists already: add --resume to go on, or choose another --run")
        if trained:
            left = f"{folder} {LOST.format(listing(trained))}"
            raise UsageError(f"{left} and add --resume, or choose another --run")
        return None
    if not folder.is_dir():
        raise UsageError(f"there is no run {str(run)!r} to resume")
    damages = []
    for name in ("last.pt", "previous.pt"):
        try:
            state = load_state(folder / name)
        except UsageError as damage:
            damages.append(str(damage))
            continue
        if damages:
            note(f"{damages[0]}; going on from {name}, epoch {state['epoch']}")
        return state
    if trained:
        cure = "put one of them back, or begin another --run, with --init for these weights"
        raise UsageError(f"{'; '.join(damages)}; but {folder} holds {listing(trained)}: {cure}")
    return None


def learned_from(folder: Path) -> dict:
    """What a run's config.json says of its "classes", by label, and of how many "pictures" and "validation_pictures"
    it has; without what it does not say. Older runs say their classes in their weights only. Raises UsageError: it is
    damaged."""
    values = read_values(folder) if (folder / "config.json").exists() else {}
    learned = {name: values[name] for name in ("classes", "pictures", "validation_pictures") if name in values}
    for name, value in learned.items():
        names = isinstance(value, list) and all(isinstance(each, str) for each in value)
        if not (names if name == "classes" else type(value) is int):
            raise UsageError(f"{folder / 'config.json'} is damaged: {name} cannot be {value!r}")
    for name in ("last.safetensors", "best.safetensors"):
        if "classes" not in learned:
            with contextlib.suppress(UsageError):
                learned["classes"] = checkpoints.load_model(folder / name).class_names
    return learned


def check_end(run: str | Path, state: dict, epochs: int) -> None:
    """Raises UsageError where a run has learned more than so many epochs."""
    least = state["epoch"] + (state["batch"] > 0)
    if least > epochs:
        done = f"been trained for {least} epochs" if not state["batch"] else f"begun its epoch {least}"
        raise UsageError(f"run {str(run)!r} has {done}, it cannot end at {epochs}: give --epochs {least} or more")


def check_pictures(
    folder: Path, run: str | Path, learned: dict, state: dict, counts: dict[str, int], steps_per_epoch: int
) -> None:
    """Raises UsageError where pictures came or went since a run learned from them: the `counts` are now others, or, of
    a run that does not say its own, the steps of an epoch."""
    cure = "bring them back, or begin another --run, with --init for these weights"
    for name, count in counts.items():
        if learned.get(name, count) != count:
            verb, of = ("learned from", "") if name == "pictures" else ("been validated on", " in that split")
            raise UsageError(f"run {str(run)!r} has {verb} {learned[name]} pictures, now there are {count}{of}: {cure}")
    if "pictures" not in learned:  # an older run
        lines = [line for line in read_metrics(folder / "metrics.jsonl") if line.get("step") and line["epoch"]]
        began = lines[-1]["step"] / lines[-1]["epoch"] if lines else steps_per_epoch
        if state["batch"]:  # it has stopped before the last one
            began = max(began, state["batch"] + 1)
        if began != steps_per_epoch:
            raise UsageError(f"run {str(run)!r} had {began:g} batches an epoch, now it has {steps_per_epoch}: {cure}")
