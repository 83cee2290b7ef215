"""What the rows share: the two models, timing, the machine's arithmetic limits."""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from kit.platforms import machine, synchronise
from utils.checkpoints import write_atomically
from utils.model import ConditionalPixelCNN, ModelConfig


@dataclass(frozen=True)
class Setting:
    """How large the work is: the report's sizes, or tiny ones that only show that everything runs."""

    tiny: bool = False

    def model(self, image_size: int = 32) -> ConditionalPixelCNN:
        """The report's model with weights drawn at random: their values do not change the time."""
        torch.manual_seed(0)
        size = {"nr_filters": 4, "nr_resnet": 1, "nr_logistic_mix": 2} if self.tiny else {}
        return ConditionalPixelCNN(ModelConfig(4, image_size=image_size // 4 if self.tiny else image_size, **size))


@dataclass(frozen=True)
class Row:
    """One line of the table: seconds of the plain and of the tuned path; `floor` is the tuned path's FLOPs (counted)
    over the machine's matrix product rate in that precision (measured)."""

    what: str
    plain: float | None
    tuned: float | None
    floor: float | None = None
    note: str = ""


def seconds(work: Callable[[], object], repeats: int, warmup: int = 1) -> float:
    """The median time of `work`, in seconds."""
    for _ in range(warmup):
        work()
    times = []
    for _ in range(repeats):
        synchronise()
        started = time.perf_counter()
        work()
        synchronise()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def forward_flops(model: ConditionalPixelCNN, batch: int = 1) -> int:
    """FLOPs of one forward pass, a multiplication and an addition counted as two."""
    size = model.config.image_size
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(batch, 3, size, size), torch.zeros(batch, dtype=torch.long))
    return counter.get_total_flops()


def matmul_rate(precision: torch.dtype, device: torch.device, size: int = 2048) -> float:
    """FLOP/s of a large square matrix product: what arithmetic costs at best here."""
    a, b = torch.randn(2, size, size, device=device).to(precision)
    return 2 * size**3 / seconds(lambda: a @ b, repeats=7, warmup=2)


class Kept(dict):
    """What a script of many runs has made so far, by name, read from its file; `keep` prints and adds one."""

    def __init__(self, path: Path):
        super().__init__(json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {})
        self.path = path

    def keep(self, name: str, run: dict) -> None:
        print(name, json.dumps(run, ensure_ascii=False), flush=True)
        self[name] = run | {"machine": machine(torch.device("cpu")), "date": time.strftime("%Y-%m-%d")}
        text = json.dumps(self, indent=1, ensure_ascii=False) + "\n"
        write_atomically(self.path, lambda path: path.write_text(text, encoding="utf-8"))


def spread(values: list[float], digits: int) -> str:
    """The mean, and where there are several the standard deviation."""
    around = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{around}"


def table(rows: list[dict], left: int = 1) -> str:
    """Markdown, with so many columns of words and the others of numbers."""

    def cell(value) -> str:
        return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * left + "|---:" * (len(rows[0]) - left) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(cell, row.values())) + " |" for row in rows])
