"""Rows: what a reader waits for before anything is computed."""

import json
import subprocess
import sys
import time
from pathlib import Path

from .common import Median, Row, Setting, seconds

ROOT = Path(__file__).parents[1]


def rows(setting: Setting):
    def run(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=True)

    repeats = setting.repeats
    yield Row("`import utils`", None, seconds(lambda: run("-c", "import utils"), repeats))
    yield Row("`python -m kit --help`", None, seconds(lambda: run("-m", "kit", "--help"), repeats))
    cell = Median([first_cell() for _ in range(1 + repeats)][1:])
    yield Row("the first cell of a notebook", None, cell, None, "which finds the kit; the kernel has started")


def first_cell() -> float:
    """Seconds, in a kernel of its own."""
    from jupyter_client.manager import start_new_kernel

    notebook = json.loads((ROOT / "notebooks/00_quickstart.ipynb").read_text(encoding="utf-8"))
    cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(ROOT / "notebooks"))
    try:
        started = time.perf_counter()
        reply = client.execute_interactive("".join(cell["source"]), output_hook=lambda _message: None)
        assert reply["content"]["status"] == "ok", reply["content"]
        return time.perf_counter() - started
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
