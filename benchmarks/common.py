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
from utils.training import configs_for, told_of_turns


@dataclass(frozen=True)
class Setting:
    """How large the work is: the report's sizes, or tiny ones that only show that everything runs."""

    tiny: bool = False

    @property
    def repeats(self) -> int:
        """Of which a time is the median."""
        return 1 if self.tiny else 5

    def model(self, image_size: int = 32) -> ConditionalPixelCNN:
        """The report's model with weights drawn at random: their values do not change the time."""
        torch.manual_seed(0)
        size = {"nr_filters": 4, "nr_resnet": 1, "nr_logistic_mix": 2} if self.tiny else {}
        return ConditionalPixelCNN(ModelConfig(4, image_size=image_size // 4 if self.tiny else image_size, **size))

    def best(self) -> ConditionalPixelCNN:
        """The same of the preset `best`, which is told of turns."""
        torch.manual_seed(0)
        size = {"nr_filters": 4, "nr_logistic_mix": 2, "image_size": 8} if self.tiny else {}
        return ConditionalPixelCNN(told_of_turns(*configs_for("best", 4, **size)))


class Median(float):
    """The median of times in seconds; `spread` is the shortest and the longest."""

    def __new__(cls, times: list[float]):
        self = super().__new__(cls, statistics.median(times))
        self.spread = (min(times), max(times))
        return self

    def times(self, factor: float) -> "Median":
        return Median([time * factor for time in (self.spread[0], self, self.spread[1])])


@dataclass(frozen=True)
class Row:
    """One line of the table: seconds of the plain and of the tuned path; `floor` is the tuned path's FLOPs (counted)
    over the machine's matrix product rate in that precision (measured)."""

    what: str
    plain: float | None
    tuned: float | None
    floor: float | None = None
    note: str = ""

    def to_dict(self) -> dict:
        spreads = {f"{name} spread": getattr(getattr(self, name), "spread", None) for name in ("plain", "tuned")}
        return vars(self) | {name: spread for name, spread in spreads.items() if spread}


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.5 else f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"


def table_of_times(rows: list[dict]) -> str:
    """Markdown, of what `Row.to_dict` gives."""

    def timed(row: dict, name: str) -> str:
        spread = row.get(f"{name} spread")
        return duration(row[name]) + (f" ({duration(spread[0])} to {duration(spread[1])})" if spread else "")

    lines = ["| what | plain | this kit | ratio | arithmetic alone | note |", "|---|---:|---:|---:|---:|---|"]
    for row in rows:
        ratio = f"{row['plain'] / row['tuned']:.1f}x" if row["plain"] and row["tuned"] else ""
        cells = [row["what"], timed(row, "plain"), timed(row, "tuned"), ratio, duration(row["floor"]), row["note"]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def seconds(work: Callable[[], object], repeats: int, warmup: int = 1) -> Median:
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
    return Median(times)


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
