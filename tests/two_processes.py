"""Started by torchrun from test_distributed.py: `python -m kit` as it is, with a look at what each step says.

    two_processes.py FILE ARGUMENTS...     the first process writes the loss of each step to FILE, one a line

With $DIE_AT_STEP the last process kills itself at that step. A thread of gloo's that outlives the group is an error: it
may abort the process while Python shuts down, after all is done (Linux names them).
"""

import os
import signal
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kit import distributed  # noqa: E402
from kit.__main__ import main  # noqa: E402
from utils import training  # noqa: E402

step = training.train_step
losses: list[float] = []


def train_step(*args):
    bits = step(*args)
    losses.append(float(distributed.total(bits)) / distributed.size())
    if len(losses) == int(os.environ.get("DIE_AT_STEP", "0")) and distributed.rank() == distributed.size() - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if distributed.rank() == 0:
        Path(sys.argv[1]).write_text("".join(f"{loss!r}\n" for loss in losses))
    return bits


training.train_step = train_step
if __name__ == "__main__":
    status = main(sys.argv[2:])
    names = [thread.read_text().strip() for thread in Path("/proc/self/task").glob("*/comm")]
    sys.exit(status or ", ".join(name for name in names if "gloo" in name) or 0)
