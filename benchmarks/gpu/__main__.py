"""`python -m benchmarks.gpu --minutes 10 --out DIR`: is it right on this GPU, how fast is it, and weights to keep.

Three parts, each a process of its own that gets so much time and no more, each writing its lines into DIR/results.json
as they come: an interruption or a crash loses no line that was printed.

    right   the same numbers, pictures and labels as a CPU's     a quarter of the time, a minute at most
    fast    images a second, memory, samples, classification     a quarter of the time, a minute and a half at most
    train   the flagship, on what is left; typed again, with `--parts train`, it goes on with the hybrid phase
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from kit.platforms import machine
from utils import UsageError
from utils.checkpoints import write_atomically
from utils.device import pick_device

from .common import Job

MOST_SECONDS = {"right": 60.0, "fast": 90.0}
GRACE = 20.0  # seconds; for a part that cannot look at the clock, inside a compilation say


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="for all parts together; default 3")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--parts", default="right,fast,train", help="some of right,fast,train; default all")
    parser.add_argument(
        "--dataset", default="auto", help="to train on; default: cpen455 where it is found, else cartoons"
    )
    parser.add_argument("--device", default="auto", help="cpu tries the script itself")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)  # of one part, in a process of its own
    args = parser.parse_args(arguments)
    try:
        return one_part(args) if args.seconds else all_parts(args)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def all_parts(args: argparse.Namespace) -> int:
    parts = args.parts.split(",")
    if unknown := set(parts) - {"right", "fast", "train"}:
        raise UsageError(f"unknown part {min(unknown)!r}: choose from right, fast, train")
    if not 0 < args.minutes < 24 * 60:
        raise UsageError(f"--minutes must be above 0, not {args.minutes}")
    device = pick_device(args.device)
    if args.device == "auto" and device.type != "cuda":
        raise UsageError("no NVIDIA GPU works here; --device cpu --tiny tries the script itself")
    end = time.monotonic() + 60 * args.minutes
    about = {"machine": machine(device), "date": time.strftime("%Y-%m-%d"), "minutes": args.minutes, "tiny": args.tiny}
    print(about["machine"], flush=True)
    keep(args.out, about)
    failed = []
    for part in parts:
        left = end - time.monotonic()
        seconds = min(MOST_SECONDS.get(part, left), left if part == "train" else 15 * args.minutes)
        print(f"\n{part}, {seconds:.0f} s", flush=True)
        command = [sys.executable, "-m", "benchmarks.gpu", "--parts", part, "--seconds", f"{max(seconds, 1):.0f}"]
        command += ["--out", str(args.out), "--dataset", args.dataset, "--device", device.type, *["--tiny"] * args.tiny]
        try:
            status = subprocess.run(command, timeout=max(seconds, 1) + GRACE).returncode
        except subprocess.TimeoutExpired:
            status = "out of time"
        if status:
            failed.append(f"{part} ended early ({status}); its lines so far are kept")
    print("\n".join([f"\nin {args.out}:", *sorted(path.name for path in args.out.iterdir()), *failed]))
    return 1 if failed else 0


def one_part(args: argparse.Namespace) -> int:
    from . import fast, right, train

    job = Job(pick_device(args.device), args.tiny, time.monotonic() + args.seconds, args.dataset, args.out)
    lines: Iterator[dict] = {"right": right.lines, "fast": fast.lines, "train": train.lines}[args.parts](job)
    found: list[dict] = []
    for line in lines:
        found.append(line)
        values = [f"{v:.5g}" if isinstance(v, float) else str(v) for v in line.values() if not isinstance(v, dict)]
        print("  ".join(values), flush=True)
        keep(args.out, {args.parts: found})
    return 0


def keep(folder: Path, values: dict) -> None:
    """Adds to results.json."""
    path = folder / "results.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    text = json.dumps(known | values, indent=2) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text))


if __name__ == "__main__":
    sys.exit(main())
