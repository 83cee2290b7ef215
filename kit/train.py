"""The loop that fills a run's folder: it learns, validates, saves, draws, and stops when it is asked to."""

import contextlib
import copy
import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from utils import UsageError, checkpoints, listing, training
from utils.classify import Scores
from utils.data import UNKNOWN, ImageDataset, shifted, to_float, turned
from utils.device import check_compile, pick_device, pick_precision
from utils.model import ConditionalPixelCNN, ModelConfig

from . import distributed, fid, metrics, runs, wandb_log
from .minutes import epochs_before
from .platforms import check_name, find_run, load_model, load_pictures
from .resume import begin, check_end, check_pictures, learned_from, rivals_of, state_to_go_on_from
from .runs import RunConfig, RunState, Stopped, StopRequest
from .samples import draw_gallery


class Diverged(RuntimeError):
    """The loss became NaN or infinite."""


def train(
    model_config: ModelConfig,
    config: RunConfig,
    run: str | Path,
    resume: bool = False,
    on_epoch: Callable[[dict], None] | None = None,
    minutes: float = 0,
) -> Path:
    """Trains, validates, and leaves everything in the run's folder.

    Args:
        run: a name under checkpoints/runs/, or a folder.
        resume: go on from the folder's `last.pt`, or from `previous.pt` where that is lost.
        on_epoch: called with each line of `metrics.jsonl` as a dict.
        minutes: if not 0, a new run gets as many epochs, instead of the config's, as end within so many minutes.

    Returns:
        the run's folder: config.json, metrics.jsonl, last.pt, last.safetensors and best.safetensors (averaged
        weights; best by validation bits per dimension, of the epochs that were validated), gallery.png when sampled.

    Raises:
        UsageError: bad input, a run that exists already, none to resume, one whose state is lost, one that another
            process trains, other classes than the run's or those of `init`, too few minutes for an epoch.
        Diverged: the loss became NaN or infinite; the checkpoints are those of the last good epoch.
        Stopped: Ctrl-C, SIGTERM or the time limit; last.pt holds the very batch it stopped at.
    """
    begun = time.perf_counter()
    check_name(run)
    first = distributed.rank() == 0  # the process that writes
    if first:
        find_run(run)  # copies it where it must
    distributed.wait()
    folder = find_run(run)
    state = state_to_go_on_from(folder, run, resume)
    if state:
        check_end(run, state, config.epochs)
    begin_with = load_model(config.init) if config.init and not state else None
    learned = learned_from(folder) if state else {}
    names, who = learned.get("classes"), f"run {str(run)!r}"
    if begin_with:
        names, who = begin_with.class_names, f"--init {config.init}"
    train_set, validation_set, validated = _pictures(model_config, config, names, who, new=not state)
    counts = {"pictures": len(train_set), "validation_pictures": len(validation_set)}
    steps_per_epoch = math.ceil(len(train_set) / config.batch_size)
    if state:
        check_pictures(folder, run, learned, state, counts, steps_per_epoch)
    device = pick_device(config.device)
    precision = pick_precision(device, config.precision)
    if config.compile:
        check_compile(device)
    mode = wandb_log.resolve_mode(config.wandb) if first else "off"

    torch.manual_seed(config.seed)
    model = ConditionalPixelCNN(training.told_of_turns(model_config, config))
    model = model.to(device)
    model.class_names = train_set.classes
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = training.build_optimizer(model, config)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    run_state = RunState(model, averaged, optimizer, scaler)
    images, labels = train_set.images.to(device), train_set.labels.to(device)
    if state:
        run_state.load_state_dict(state)
        if "best.safetensors" not in runs.trained_files(folder):
            run_state.best = math.inf  # else it might never be written again
        del state  # as large as the run's own
    else:  # a new run, or one that was killed before it first saved
        begin(model, begin_with, images, labels, config)
        averaged.load_state_dict(model.state_dict())
    judged = training.upright(averaged, model_config.num_classes) if config.turn else averaged
    forward: Callable = torch.nn.parallel.DistributedDataParallel(model) if distributed.size() > 1 else model
    if config.compile:
        forward = torch.compile(forward, dynamic=False)

    rest_of_epoch = functools.partial(_train_epoch, run_state, forward, images, labels, precision)
    log_likelihoods = distributed.class_log_likelihoods
    validate = functools.partial(training.validate, judged, precision=precision, log_likelihoods=log_likelihoods)
    if config.hybrid and run_state.rivals is None:
        run_state.rivals = rivals_of(judged, images, labels, precision)
    distributed.wait()  # all have read before one writes
    with contextlib.ExitStack() as at_the_end:
        if first:
            at_the_end.enter_context(runs.sole_writer(folder))
            for left_over in folder.glob(".*.tmp"):  # of a process that was killed while it saved
                left_over.unlink()
            metrics.keep_metrics(folder, run_state.epoch)
        stop = at_the_end.enter_context(StopRequest(runs.seconds_of(config.time_limit)))
        if minutes and not resume:
            draw = functools.partial(draw_gallery, judged, seed=config.seed)
            parts = (rest_of_epoch, steps_per_epoch, validate, validated, draw, run_state, config, folder)
            config = replace(config, epochs=epochs_before(begun + 60 * minutes, *parts))
        values = {"model": model_config.to_dict(), "train": asdict(config)}
        if run_state.epoch == config.epochs:
            _complete(run_state, judged, folder, functools.partial(validate, validated))
        if first:
            runs.write_config(folder, values | {"classes": train_set.classes} | counts)
            # from here on a run without it has lost it; a damaged one is not to become previous.pt
            runs.save_state(run_state.state_dict(), folder / "last.pt")
        tracker = wandb_log.Tracker(mode, folder, values, train_set.classes)
        at_the_end.callback(tracker.finish, folder / "best.safetensors")
        while run_state.epoch < config.epochs:
            started = time.perf_counter()
            first_batch = run_state.batch
            train_bpd = rest_of_epoch(config, stop, folder)
            seconds = time.perf_counter() - started
            skipped, run_state.skipped = run_state.skipped, 0
            run_state.epoch, run_state.batch, run_state.total = run_state.epoch + 1, 0, 0.0
            last, scores = run_state.epoch == config.epochs, None
            validation: dict = {}
            if last or run_state.epoch % config.validate_every == 0:
                validation, scores = _validation(run_state, *validate(validated))
            elif not all(bool(weights.isfinite().all()) for weights in averaged.parameters()):
                raise Diverged(f"weights became NaN or infinite in epoch {run_state.epoch}")
            step = run_state.epoch * steps_per_epoch
            line = {
                "epoch": run_state.epoch,
                "step": step,
                "lr": training.learning_rate(config, step - 1, steps_per_epoch),
                "skipped_steps": skipped,  # their gradients overflowed in float16
                "train_bpd": round(train_bpd, 5),
                **validation,
                "images_per_second": round((len(labels) - first_batch * config.batch_size) / seconds, 1),
                "seconds": round(time.perf_counter() - started, 1),
                "seconds_saving": round(run_state.seconds_saving, 2),  # what the save before this line took
                "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            }
            if config.fid_every and run_state.epoch % config.fid_every == 0:
                line |= fid.rough_fid(judged, validation_set.images, config.seed)
            drawing = config.sample_every and run_state.epoch % config.sample_every == 0
            if drawing:  # before the line, so that who has read the last one need not wait for a gallery
                draw_gallery(judged, folder / "gallery.png", config.seed)
            stopping = distributed.anywhere(bool(stop.reason())) and not last
            if first:
                metrics.add_metrics(folder, line)
                if validation.get("best"):
                    checkpoints.save_model(judged, folder / "best.safetensors")
                if run_state.epoch % config.checkpoint_every == 0 or last or stopping:
                    checkpoints.save_model(judged, folder / "last.safetensors")
                    run_state.save(folder)
                tracker.log(line, scores)
                if drawing:
                    tracker.gallery(folder / "gallery.png", step)
            if on_epoch and first:
                on_epoch(line)
            if stopping:
                raise Stopped(f"{stop.reason() or 'another process was asked'} after epoch {run_state.epoch}")
    return folder


def _validation(run_state: RunState, bpd: float, scores: Scores) -> tuple[dict, Scores]:
    """What a line of metrics.jsonl says of a validation, and its scores; the state remembers the best one."""
    if not math.isfinite(bpd):
        raise Diverged(f"validation loss became {bpd} in epoch {run_state.epoch}")
    better, run_state.best = bpd < run_state.best, min(bpd, run_state.best)
    said = {"validation_bpd": round(bpd, 5), "validation_accuracy": round(scores.accuracy, 5), "best": better}
    return said, scores


def _complete(run_state: RunState, judged: ConditionalPixelCNN, folder: Path, validate: Callable) -> None:
    """Gives a run that has no more to learn what it lacks: weights that were lost, its last epoch's validation."""
    lines = metrics.read_metrics(folder / "metrics.jsonl")
    line = next((line for line in lines if line["epoch"] == run_state.epoch), {"epoch": run_state.epoch})
    validation: dict = {}
    if run_state.best == math.inf or not metrics.validated([line]):
        validation, _ = _validation(run_state, *validate())
    if distributed.rank():
        return
    if validation:
        metrics.add_metrics(folder, line | validation)
    for name, missing in ("best", validation.get("best")), ("last", not (folder / "last.safetensors").exists()):
        if missing:
            checkpoints.save_model(judged, folder / f"{name}.safetensors")


def _train_epoch(run_state, forward, images, labels, precision, config, stop, folder) -> float:
    """The rest of an epoch; -> mean bits per dimension over all of it. Flips, shifts, ... follow from (seed, epoch)."""
    device, epoch = images.device, run_state.epoch
    generator = torch.Generator().manual_seed((config.seed * 1_000_003 + epoch) % 2**64)
    order = torch.randperm(len(labels), generator=generator)
    flips = torch.rand(len(labels), generator=generator) < 0.5
    shifts = torch.randint(-config.shift, config.shift + 1, (2, len(labels)), generator=generator)
    ways = torch.tensor([1 - config.turn, *[config.turn / 3] * 3])  # upright, and three turns
    quarters = ways.multinomial(len(labels), replacement=True, generator=generator).to(device)
    batches = order.split(config.batch_size)
    rank, nr_processes = distributed.rank(), distributed.size()
    sums = torch.float32 if device.type == "mps" else torch.float64
    total = torch.tensor(0.0 if rank else run_state.total, dtype=sums, device=device)  # of this process's pictures
    loss_of = training.generative_loss
    num_classes = run_state.model.config.num_classes // (training.QUARTERS if config.turn else 1)
    labels = labels + num_classes * quarters
    if config.hybrid:
        loss_of = functools.partial(training.hybrid_loss, weight=config.hybrid)
        labels = torch.stack([labels, run_state.rivals.to(device) + num_classes * quarters], dim=1)  # (N, 2)
    run_state.model.train()
    scaler, scale = run_state.scaler, run_state.scaler.get_scale()
    where = {"desc": f"epoch {epoch + 1}/{config.epochs}", "initial": run_state.batch, "total": len(batches)}
    bar = tqdm(range(run_state.batch, len(batches)), **where, leave=False, disable=True if rank else None)
    for i in bar:
        step = epoch * len(batches) + i
        own = distributed.share(batches[i])  # of a short last batch it may be none, which all of the step bears
        index = own.to(device)
        x, y = to_float(images[index]), labels[index]
        if config.flip:
            x = torch.where(flips[own].to(device)[:, None, None, None], x.flip(3), x)
        if config.shift:
            x = shifted(x, *shifts[:, own].to(device))
        if config.turn:
            x = turned(x, quarters[index])
        lr = training.learning_rate(config, step, len(batches))
        for group in run_state.optimizer.param_groups:
            group["lr"] = lr * group.get("relative_lr", 1.0)
        runs.seed_step(config.seed, step, rank)
        count = len(batches[i]) / nr_processes  # gradients are averaged over the processes
        bits = training.train_step(
            forward, x, y, run_state.optimizer, scaler, precision, config.grad_clip, loss_of, count
        )
        before, scale = scale, scaler.get_scale()  # a GPU is waited for, in float16 only
        if scale < before:  # the gradient overflowed: the scaler has skipped the step
            run_state.skipped += 1
        else:
            training.update_average(run_state.averaged, run_state.model, config.ema_decay, step)

        total += bits * count
        run_state.batch = i + 1
        last = run_state.batch == len(batches)
        stopping = distributed.anywhere(bool(stop.reason())) and not last
        if i % 20 == 0 or last or stopping:  # a look at the number makes a GPU wait
            total_of_all = float(distributed.total(total))
            if not math.isfinite(total_of_all):
                cure = "the last good checkpoint is kept. Try a smaller --lr or --adam-lr, or --grad-clip 1"
                raise Diverged(f"the loss became NaN or infinite in epoch {epoch + 1}; {cure}")
            bar.set_postfix(bpd=f"{bits.item():.3f}", **({"skipped": run_state.skipped} if run_state.skipped else {}))
        if stopping:
            run_state.total = total_of_all
            if not rank:
                run_state.save(folder)
            reason = stop.reason() or "another process was asked"
            raise Stopped(f"{reason} in epoch {epoch + 1}, after {run_state.batch} of {len(batches)} batches")
    return total_of_all / len(labels)


def _pictures(
    model_config: ModelConfig, config: RunConfig, names: Sequence[str] | None, who: str, new: bool
) -> tuple[ImageDataset, ImageDataset, ImageDataset]:
    """Those to learn from, the validation split, and what is used of it. Their labels count along `names`, the classes
    of `who`, if there are such names. Raises UsageError: other classes, labels that are missing."""
    how = (config.data_root, model_config.image_size)
    train_set = load_pictures(config.dataset, "train", *how, names, who)
    validation_set = load_pictures(config.dataset, "validation", *how, train_set.classes, "its training split")
    if len(train_set.classes) != model_config.num_classes:
        has = f"{config.dataset} has {len(train_set.classes)} classes ({listing(train_set.classes)})"
        raise UsageError(f"{has}, the network is made for {model_config.num_classes}")
    if config.train_limit:
        before, train_set = train_set.absent(), train_set.subset(config.train_limit)
        if new and (absent := [name for name in train_set.absent() if name not in before]):
            limit = f"--train-limit {config.train_limit} leaves no picture of {listing(absent)}"
            raise UsageError(f"{limit} to learn from: give a larger one")
    if bool((train_set.labels == UNKNOWN).any()):
        raise UsageError(f"the training split of {config.dataset} has pictures without a label")
    validated = validation_set.subset(config.validate_limit) if config.validate_limit else validation_set
    if bool((validated.labels == UNKNOWN).all()):
        raise UsageError(f"none of the {len(validated)} validation pictures of {config.dataset} has a label")
    return train_set, validation_set, validated
