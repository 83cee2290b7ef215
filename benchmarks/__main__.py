"""`python -m benchmarks`: times every row, prints one table, writes benchmarks/results.json."""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

import torch
from tqdm.auto import tqdm

from kit.console import any_letter
from kit.platforms import machine
from utils.device import pick_device

from .common import Row, Setting, table_of_times

GROUPS = ("starting", "sampling", "training", "classification")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=GROUPS)
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--peer", type=Path, metavar="DIR", help="a checkout of the course's starter code")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.json"))
    any_letter()
    args = parser.parse_args()
    if args.peer and not (args.peer / "model.py").is_file():
        print(f"error: {args.peer} holds no model.py of the course's starter code", file=sys.stderr)
        return 2

    device, setting = pick_device(), Setting(args.tiny)
    about: dict = {"machine": machine(device), "date": time.strftime("%Y-%m-%d"), "tiny": args.tiny}
    rows = []
    torch.manual_seed(0)
    for group in tqdm([*args.groups, *(["peer"] if args.peer else [])], desc="benchmarks", disable=None):
        module = importlib.import_module(f".{group}", __package__)
        rows += module.rows(setting, args.peer) if group == "peer" else module.rows(setting)
    rows.append(Row("GPU: training, sampling, classification", None, None, None, "not measured: `make gpu`"))
    about["rows"] = [row.to_dict() for row in rows]
    args.out.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    tiny = ", tiny sizes" if args.tiny else ""
    print(f"{about['machine']}, {about['date']}{tiny}\n\n{table_of_times(about['rows'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
