"""The flagship, trained for so many minutes on this GPU: as large as the minutes allow."""

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch

from kit.metrics import best_epoch, read_metrics
from kit.platforms import machine
from kit.runs import RunConfig, Stopped, read_config, run_configs
from kit.samples import draw_gallery
from kit.train import train
from utils import UsageError, checkpoints
from utils.device import pick_precision
from utils.model import ConditionalPixelCNN, ModelConfig

from ..common import seconds
from ..training import tuned_step
from .common import Job

# the recipe of the preset `best`, its dropout, flips, turns and averages too, with the original's filters
FLAGSHIP = dict(preset="best", nr_filters=160, batch_size=64)
SMALLER = (128, 100, 64, 40, 24)  # filters, where the minutes do not allow more
SIZE = ("nr_resnet", "nr_filters", "nr_logistic_mix", "image_size", "fusion")
HYBRID_RECIPE = dict(
    preset="modern", optimizer="adam", lr=5e-4, warmup=50, dropout=0.0, ema_decay=0.99, hybrid=0.5, seed=6
)
EPOCHS = 30  # as few as are worth it: below, a smaller network gets further
RUN, HYBRID = "gpu", "gpu-hybrid"
PIECE = 15 * 2**20  # bytes of a file of weights
EXPORT_EVERY = 45.0  # seconds; an interruption loses no more


def lines(job: Job) -> Iterator[dict]:
    """One dict for the run: the flagship's first, or what is left of it, and once it is finished its hybrid phase, with
    the cross-entropy of the label in the loss."""
    started, (dataset, pictures) = time.monotonic(), job.pictures("train")
    common = dict(dataset=dataset, device=job.device.type, wandb="off", train_limit=len(pictures) if job.tiny else 0)
    runs = job.out / ("tiny-runs" if job.tiny else "runs")
    folder = runs / RUN
    if is_finished(folder):
        export(folder / "best.safetensors", job.out)  # perhaps the time was over before
        folder = runs / HYBRID
    if is_finished(folder):
        raise UsageError(f"{runs} holds a flagship and its hybrid phase, both finished: choose another --out")
    run, resume = folder.name, (folder / "config.json").is_file()
    seconds_after = min(25, job.seconds_left() / 8)  # for the export and the gallery
    if resume:
        model_config, config = read_config(folder)
        if config.dataset != dataset:
            raise UsageError(f"{folder} learns {config.dataset}, not {dataset}: choose another --out")
        config = replace(config, time_limit=f"{max(1, int(job.seconds_left() - seconds_after))}s")
    elif run == HYBRID:
        size = {name: getattr(read_config(runs / RUN)[0], name) for name in SIZE}
        init = str(runs / RUN / "best.safetensors")
        model_config, config = run_configs(num_classes=4, init=init, **HYBRID_RECIPE | size | common)
    else:
        model_config, config = flagship(job, len(pictures), **common)
    last_export = time.monotonic()

    def on_epoch(line: dict) -> None:
        nonlocal last_export
        print(json.dumps(line), flush=True)
        shutil.copyfile(folder / "metrics.jsonl", job.out / f"{run}.jsonl")
        if time.monotonic() - last_export > EXPORT_EVERY:
            export(folder / "best.safetensors", job.out)
            last_export = time.monotonic()

    minutes = 0 if resume else (job.seconds_left() - seconds_after) / 60
    with contextlib.suppress(Stopped):
        train(model_config, config, folder, resume, on_epoch, minutes)
    if not (folder / "best.safetensors").is_file():
        raise UsageError("stopped before an epoch was done; the same command goes on from there")
    model = checkpoints.load_model(folder / "best.safetensors", job.device)
    export(folder / "best.safetensors", job.out)
    draw_gallery(model, job.out / f"{run}.png", seed=0)
    best, (model_config, config) = best_epoch(folder), read_config(folder)
    seen = len(pictures) * len(read_metrics(folder / "metrics.jsonl"))
    yield {
        "run": run, "machine": machine(job.device), "minutes": round((time.monotonic() - started) / 60, 2),
        "pictures seen": seen, "best epoch": best["epoch"],
        "validation bits per dimension": best["validation_bpd"], "validation accuracy": best["validation_accuracy"],
        "images/s": best["images_per_second"], "model": model_config.to_dict(), "train": asdict(config),
    }  # fmt: skip


def is_finished(folder: Path) -> bool:
    lines = read_metrics(folder / "metrics.jsonl")
    return bool(lines) and lines[-1]["epoch"] == read_config(folder)[1].epochs


def flagship(job: Job, nr_pictures: int, **common) -> tuple[ModelConfig, RunConfig]:
    """The largest network of which `EPOCHS` epochs fit, by a few measured steps."""
    for nr_filters in (FLAGSHIP["nr_filters"], *SMALLER):
        size = {"nr_filters": nr_filters} | ({"nr_filters": 4, "image_size": 8, "batch_size": 8} if job.tiny else {})
        model_config, config = run_configs(num_classes=4, **FLAGSHIP | size | common)
        torch.manual_seed(0)
        step = tuned_step(
            ConditionalPixelCNN(model_config), config.batch_size, job.device, pick_precision(job.device), config=config
        )
        taken = seconds(step, 5, warmup=3)
        epoch = taken * nr_pictures / config.batch_size
        print(
            f"{size['nr_filters']} filters: {config.batch_size / taken:.0f} images/s, {epoch:.1f} s an epoch",
            flush=True,
        )
        if EPOCHS * epoch < job.seconds_left() or job.tiny:
            break
    steps = job.seconds_left() / taken
    return run_configs(num_classes=4, **FLAGSHIP | size | common | {"warmup": max(1, min(500, int(steps / 10)))})


def export(weights: Path, out: Path) -> None:
    """The weights in half precision, cut into files of at most `PIECE` bytes, which `cat gpu.safetensors.*` joins."""
    whole = out / f"{weights.parent.name}.safetensors"
    checkpoints.save_model(checkpoints.load_model(weights), whole, torch.float16)
    data = whole.read_bytes()
    for piece in out.glob(f"{whole.name}.*"):  # of a larger network, perhaps
        piece.unlink()
    for number, start in enumerate(range(0, len(data), PIECE), 1):
        piece = data[start : start + PIECE]
        checkpoints.write_atomically(f"{whole}.{number}", lambda path, piece=piece: path.write_bytes(piece))
    whole.unlink()
