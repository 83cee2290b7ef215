"""Rows: one step of training, and the loss alone."""

import copy
import json
import resource
import subprocess
import sys
from pathlib import Path

import torch
import torch._inductor.config

from utils import mixture
from utils.device import pick_precision
from utils.training import TrainConfig, build_optimizer, configs_for, train_step, update_average

from . import plain
from .common import Row, Setting, forward_flops, matmul_rate, seconds

CPU = torch.device("cpu")
REPORT = TrainConfig()


def batch_for(model, batch: int, device: torch.device):
    size = model.config.image_size
    x = torch.randint(0, 256, (batch, 3, size, size), device=device) / 127.5 - 1
    return x, torch.arange(batch, device=device) % 4


def plain_step(model, batch: int):
    """Float32, blocks and loss by the book, Adam and averaged weights one tensor after the other."""
    model = plain.textbook(model).train()
    averaged = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4, foreach=False)
    x, y = batch_for(model, batch, CPU)

    def step():
        loss = -plain.log_prob(model(x, y), x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for average, weight in zip(averaged.parameters(), model.parameters(), strict=True):
                average.mul_(0.999).add_(weight, alpha=0.001)

    return step


def tuned_step(model, batch: int, device=CPU, precision=None, compiled=False, config: TrainConfig = REPORT):
    """What `kit.train.train` does with a batch."""
    precision = precision or pick_precision(device)
    model = model.to(device).train()
    averaged = copy.deepcopy(model)
    optimizer = build_optimizer(model, config)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    x, y = batch_for(model, batch, device)
    forward = torch.compile(model, dynamic=False) if compiled else model

    def step():
        train_step(forward, x, y, optimizer, scaler, precision, config.grad_clip)
        update_average(averaged, model, 0.999, 10**6)

    return step


def peak_memory(path: str, setting: Setting, batch: int) -> float:
    """MiB that a fresh process needs at most for three steps, above what it needs before the first."""
    command = [sys.executable, "-m", "benchmarks.training", path, str(int(setting.tiny)), str(batch)]
    return json.loads(subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout)


def rows(setting: Setting):
    yield loss_row(setting)
    batch, repeats = 2 if setting.tiny else 16, setting.repeats
    precision = pick_precision(CPU)
    rate, note = matmul_rate(precision, CPU), str(precision).removeprefix("torch.")
    for what, model, size, config in (
        (f"training step, batch {batch}, report's model", setting.model, batch, REPORT),
        (f"training step, batch {batch // 2}, preset best", setting.best, batch // 2, configs_for("best", 4)[1]),
    ):
        floor = 3 * size * forward_flops(model()) / rate
        before = seconds(plain_step(model(), size), repeats, warmup=2)
        after = seconds(tuned_step(model(), size, config=config), repeats, warmup=2)
        yield Row(what, before, after, floor, note)
        if config is REPORT:
            yield compiled_row(f"{what}, compiled", model(), before, floor, note, size, repeats)
    before, after = (peak_memory(path, setting, batch) for path in ("plain", "tuned"))
    note = f"plain {before:.0f} MiB, this kit {after:.0f} MiB"
    yield Row("peak memory of the report's step", None, None, None, note)


def compiled_row(what: str, model, before: float, floor: float, note: str, batch: int, repeats: int) -> Row:
    compiled = tuned_step(model, batch, compiled=True)
    try:
        with torch._inductor.config.patch(force_disable_caches=True):  # as on a machine that sees it first
            warmup = seconds(compiled, 1, warmup=0)
    except RuntimeError as error:  # no C++ compiler, say
        return Row(what, None, None, None, f"not measured: {str(error).splitlines()[0]}")
    return Row(what, before, seconds(compiled, repeats, 2), floor, f"{note}; the first step takes {warmup:.0f} s")


def loss_row(setting: Setting) -> Row:
    model = setting.model()
    batch = 2 if setting.tiny else 16
    x, _ = batch_for(model, batch, CPU)
    torch.manual_seed(0)
    params = torch.randn(batch, 10 * model.config.nr_logistic_mix, *x.shape[2:])

    def gradient(log_prob, dtype=torch.float32):
        p = params.to(dtype).requires_grad_()
        return torch.autograd.grad(log_prob(p, x.to(dtype)).sum(), p)[0]

    exact = gradient(mixture.log_prob, torch.float64)  # what the tests hold against 60 digits
    errors = [((gradient(f) - exact).norm() / exact.norm()).item() for f in (plain.log_prob, mixture.log_prob)]
    return Row(
        "mixture log-likelihood, forward and backward",
        seconds(lambda: gradient(plain.log_prob), 1 if setting.tiny else 15, 3),
        seconds(lambda: gradient(mixture.log_prob), 1 if setting.tiny else 15, 3),
        None,
        "gradient against float64: plain off by {:.0e}, this kit by {:.0e} of its norm".format(*errors),
    )


def peak_mib() -> float:
    """The most memory this process has held. Linux counts a parent's peak in `getrusage`, hence its own file first."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if "VmHWM" in line).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    which, tiny, batch = sys.argv[1:]
    setting = Setting(tiny == "1")
    step = plain_step(setting.model(), int(batch)) if which == "plain" else tuned_step(setting.model(), int(batch))
    start = peak_mib()
    for _ in range(3):
        step()
    print(peak_mib() - start)
