"""How fast is it? The most telling lines first; what does not fit the time is said to be not measured."""

import functools
import gc
from collections.abc import Iterator

import torch

from utils.classify import class_log_likelihoods
from utils.device import PRECISIONS, pick_precision
from utils.model import ConditionalPixelCNN
from utils.sampling import generate, generate_by_graphs
from utils.training import configs_for

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


def model_of(job: Job, preset: str, **overrides) -> ConditionalPixelCNN:
    tiny = {"nr_filters": 4, "nr_resnet": 1, "nr_logistic_mix": 2, "image_size": 8} if job.tiny else {}
    model_config, _ = configs_for(preset, 4, **overrides | tiny)
    torch.manual_seed(0)
    return ConditionalPixelCNN(model_config)


def name_of(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")


def not_measured(what: str, why: str) -> dict:
    return {"what": what, "value": None, "unit": "", "note": f"not measured: {why}"}


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
                if job.seconds_left() <= 0:
                    yield not_measured(what, "out of time")
                    continue
                try:
                    yield step_line(job, limits, what, config, batch, precision, compiled)
                except RuntimeError as error:  # too little memory, no compiler
                    yield not_measured(what, str(error).splitlines()[0])


def step_line(job: Job, limits: Limits, what: str, preset: dict, batch, precision, compiled) -> dict:
    on_gpu = job.device.type == "cuda"
    gc.collect()  # a model is a circle of references: the one before would be counted, too
    model, (_, config) = model_of(job, **preset), configs_for(num_classes=4, **preset)
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
    return {"what": what, "value": batch / taken, "unit": "images/s", "note": ", ".join(notes)}


def samples(job: Job, limits: Limits) -> Iterator[dict]:
    model = model_of(job, "report").eval()
    flops = forward_flops(model)
    model.to(job.device)
    ways = {"cached": generate} | ({"CUDA graphs": generate_by_graphs} if job.device.type == "cuda" else {})
    for count in (1, 25, 100):
        for way, draw in ways.items():
            what = f"{count} samples of report, {way}"
            if job.seconds_left() <= 0:
                yield not_measured(what, "out of time")
                continue
            try:
                work = functools.partial(draw, model, torch.arange(count) % 4)
                taken, floor = seconds(work, 1, warmup=count == 1), limits.floor(count * flops, torch.float32)
                yield {"what": what, "value": taken, "unit": "s", "note": floor}
            except RuntimeError as error:
                yield not_measured(what, str(error).splitlines()[0])


def classification(job: Job) -> Iterator[dict]:
    model = model_of(job, "report").to(job.device).eval()
    size = model.config.image_size
    x = torch.randint(0, 256, (4 if job.tiny else COUNT, 3, size, size)) / 127.5 - 1
    for precision in (pick_precision(job.device), torch.float32):
        what = f"classifying {len(x)} x 4 labels, report, {name_of(precision)}"
        if job.seconds_left() <= 0:
            yield not_measured(what, "out of time")
            continue
        taken = seconds(lambda precision=precision: class_log_likelihoods(model, x, 128, precision), 1, warmup=0)
        note = "random weights: close labels are all computed twice" if precision != torch.float32 else ""
        yield {"what": what, "value": taken, "unit": "s", "note": note}
