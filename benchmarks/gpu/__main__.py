"""`python -m benchmarks.gpu --minutes 10 --out DIR`: is it right on this GPU, how fast is it, and weights to keep.

Three parts, each a process of its own with its share of the time and 20 seconds of grace, each writing its lines into
DIR/results.json as they come: an interruption or a crash loses no line that was printed.

    right   the same numbers, pictures and labels as a CPU's     a quarter of the time, a minute at most
    fast    images a second, memory, samples, classification     a quarter of the time, a minute and a half at most
    train   the flagship, on what is left; typed again, with `--parts train`, it goes on, at last with a hybrid phase
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from kit.console import any_letter
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
        "--dataset", choices=["auto", "cpen455", "cartoons"], default="auto",
        help="to train on; default: cpen455 where it is found, else cartoons",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="cpu tries the script itself")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)  # of one part, in a process of its own
    any_letter()
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
    print(machine(device), flush=True)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write in {args.out}: {error.strerror}") from None
    notes = []
    for part in parts:
        left = end - time.monotonic()
        seconds = max(1.0, left if part == "train" else min(left, MOST_SECONDS[part], 15 * args.minutes))
        print(f"\n{part}, {seconds:.0f} s", flush=True)
        command = [sys.executable, "-m", "benchmarks.gpu", "--parts", part, "--seconds", f"{seconds:.0f}"]
        command += ["--out", str(args.out), "--dataset", args.dataset, "--device", device.type, *["--tiny"] * args.tiny]
        process = subprocess.Popen(command)
        try:
            if status := process.wait(seconds + GRACE):
                notes.append(f"{part} ended with status {status}; its lines so far are kept")
        except subprocess.TimeoutExpired:
            notes.append(f"{part} was out of time; its lines so far are kept")
        except KeyboardInterrupt:  # the part has heard it too, and saves what it has
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                process.wait(GRACE)
            print(f"\ninterrupted; {args.out} has what was printed", file=sys.stderr)
            return 130
        finally:
            process.kill()
    checks = read_results(args.out).get("right", {}).get("lines", []) if "right" in parts else []
    failed = sum(check["passed"].startswith("NO") for check in checks)
    notes += [f"{failed} of {len(checks)} checks failed"] if failed else []
    print("\n".join([f"\nin {args.out}:", *sorted(path.name for path in args.out.iterdir() if path.is_file()), *notes]))
    return 1 if notes else 0


def one_part(args: argparse.Namespace) -> int:
    """Runs a part in this process; its lines are kept under its name, those of `train` under the run's."""
    from . import fast, right, train

    device = pick_device(args.device)
    job = Job(device, args.tiny, time.monotonic() + args.seconds, args.dataset, args.out)
    about = {"machine": machine(device), "date": time.strftime("%Y-%m-%d"), "seconds": args.seconds, "tiny": args.tiny}
    found: list[dict] = []
    try:
        for line in {"right": right.lines, "fast": fast.lines, "train": train.lines}[args.parts](job):
            found.append(line)
            values = [f"{v:.5g}" if isinstance(v, float) else str(v) for v in line.values() if not isinstance(v, dict)]
            print("  ".join(values), flush=True)
            results = read_results(args.out) | {line.get("run", args.parts): about | {"lines": found}}
            text = json.dumps(results, indent=2) + "\n"
            write_atomically(args.out / "results.json", partial(Path.write_text, data=text, encoding="utf-8"))
    except KeyboardInterrupt:
        return 130
    return 0


def read_results(folder: Path) -> dict:
    path = folder / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


if __name__ == "__main__":
    sys.exit(main())
