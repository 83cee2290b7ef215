"""How fast is it? The most telling lines first; what does not fit the time is said to be not measured."""

import gc
from collections.abc import Callable, Iterator
from functools import partial

import torch

from kit.cuda_graphs import generate_by_graphs
from utils.classify import class_log_likelihoods
from utils.device import PRECISIONS, pick_precision
from utils.model import ConditionalPixelCNN
from utils.sampling import generate
from utils.training import TrainConfig, configs_for

from ..common import forward_flops, matmul_rate, seconds
from ..training import tuned_step
from .common import Job, bytes_moved
from .train import FLAGSHIP

BATCHES = (64, 16, 256)
PRESETS = ("report", "best", "original")
COUNT = 519  # the course's validation split


def lines(job: Job) -> Iterator[dict]:
    """One dict for each measurement: what, value, unit, note."""
    own = pick_precision(job.device)
    others = [precision for precision in PRECISIONS.values() if precision != own]
    flagship, presets = {"flagship": FLAGSHIP}, {preset: {"preset": preset} for preset in PRESETS}
    limits = Limits(job)
    yield from limits.lines()
    yield from steps(job, limits, flagship, [64], [own])
    yield from samples(job, limits)
    yield from classification(job)
    yield from steps(job, limits, presets, BATCHES, [own])
    yield from steps(job, limits, presets, BATCHES, others)
    yield from steps(job, limits, flagship | presets, BATCHES, [own], compiled=True)  # minutes each, hence last


def model_of(job: Job, preset: str, **overrides) -> tuple[ConditionalPixelCNN, TrainConfig]:
    tiny = {"nr_filters": 4, "nr_resnet": 1, "nr_logistic_mix": 2, "image_size": 8} if job.tiny else {}
    model_config, config = configs_for(preset, 4, **overrides | tiny)
    torch.manual_seed(0)
    return ConditionalPixelCNN(model_config), config


def name_of(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")


def measured(job: Job, what: str, measure: Callable[[], tuple[float, str, str]]) -> dict:
    """The line of what `measure` gives, value, unit and note, or of why it gives nothing."""
    if job.seconds_left() <= 0:
        value, unit, note = None, "", "not measured: out of time"
    else:
        try:
            value, unit, note = measure()
        except RuntimeError as error:  # too little memory, no compiler
            value, unit, note = None, "", f"not measured: {str(error).splitlines()[0]}"
    return {"what": what, "value": value, "unit": unit, "note": note}


class Limits:
    """What the machine's arithmetic and memory do at best, measured."""

    def __init__(self, job: Job):
        size = 128 if job.tiny else 8192
        self.flops = {precision: matmul_rate(precision, job.device, size) for precision in PRECISIONS.values()}
        a = torch.zeros(2**10 if job.tiny else 2**28, device=job.device)
        self.bandwidth = 2 * a.numel() * a.element_size() / seconds(lambda: a.clone(), 5)

    def lines(self) -> Iterator[dict]:
        for precision, rate in self.flops.items():
            yield {"what": f"matrix product, {name_of(precision)}", "value": rate / 1e12, "unit": "TFLOP/s", "note": ""}
        yield {"what": "memory, a copy's reads and writes", "value": self.bandwidth / 1e9, "unit": "GB/s", "note": ""}

    def floor(self, flops: float, precision: torch.dtype, moved: int | None = None) -> str:
        """The least time for the counted work; bytes are counted as if no operation were fused with the next."""
        text = f"at least {1000 * flops / self.flops[precision]:.2f} ms for {flops / 1e9:.1f} GFLOP"
        return text + (f", {1000 * moved / self.bandwidth:.2f} ms for {moved / 1e9:.2f} GB" if moved else "")


def steps(job: Job, limits: Limits, presets: dict[str, dict], batches, precisions, compiled=False) -> Iterator[dict]:
    for precision in precisions:
        for name, config in presets.items():
            for batch in [2] if job.tiny else batches:
                what = f"training {name}, batch {batch}, {name_of(precision)}{', compiled' if compiled else ''}"
                yield measured(job, what, partial(time_step, job, limits, config, batch, precision, compiled))


def time_step(job: Job, limits: Limits, preset: dict, batch, precision, compiled) -> tuple[float, str, str]:
    on_gpu = job.device.type == "cuda"
    gc.collect()  # a model is a circle of references: the one before would be counted, too
    model, config = model_of(job, **preset)
    flops = 3 * batch * forward_flops(model)
    if compiled:
        torch.compiler.reset()
    step = tuned_step(model, batch, job.device, precision, compiled, config)
    first = seconds(step, 1, warmup=0)
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    roughly = seconds(step, 1, warmup=0)
    taken = seconds(step, max(1, min(10, int(2 / roughly))), warmup=0)  # in two seconds or so
    notes = [f"{1000 * taken:.1f} ms a step", f"the first {first:.1f} s"]
    if on_gpu:
        notes.append(f"{torch.cuda.max_memory_allocated() / 2**20:.0f} MiB at most")
    notes.append(limits.floor(flops, precision, None if compiled else bytes_moved(step)))
    return batch / taken, "images/s", ", ".join(notes)


def samples(job: Job, limits: Limits) -> Iterator[dict]:
    model = model_of(job, "report")[0].eval()
    flops = forward_flops(model)
    model.to(job.device)
    ways = {"cached": generate} | ({"CUDA graphs": generate_by_graphs} if job.device.type == "cuda" else {})
    for count in (1, 25, 100):
        for way, draw in ways.items():
            work, floor = partial(draw, model, torch.arange(count) % 4), limits.floor(count * flops, torch.float32)
            yield measured(job, f"{count} samples of report, {way}", partial(time_once, work, floor, warmup=count == 1))


def time_once(work: Callable, note: str, warmup: bool = False) -> tuple[float, str, str]:
    return seconds(work, 1, warmup), "s", note


def classification(job: Job) -> Iterator[dict]:
    model = model_of(job, "report")[0].to(job.device).eval()
    size = model.config.image_size
    x = torch.randint(0, 256, (4 if job.tiny else COUNT, 3, size, size)) / 127.5 - 1
    for precision in (pick_precision(job.device), torch.float32):
        note = "random weights: close labels are all computed twice" if precision != torch.float32 else ""
        work = partial(time_once, partial(class_log_likelihoods, model, x, 128, precision), note)
        yield measured(job, f"classifying {len(x)} x 4 labels, report, {name_of(precision)}", work)
