"""Several processes, one run: `torchrun` starts them and they join here. Without it every function is that of one."""

import contextlib
import datetime
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from utils import UsageError, by_torchrun, classify, sampling
from utils.model import ConditionalPixelCNN

from .console import MAIN

TIMEOUT = datetime.timedelta(minutes=10)  # the first step of a compiled model takes minutes
# `-m torch.distributed.run` would look into the current folder first, which may hold a random.py of the user's.
# torchrun takes --run for an abbreviation of its own --run-path: what comes after `--` is left alone
STARTED = "import sys; sys.path[:] = filter(None, sys.path); from torch.distributed.run import main; main()"
TORCHRUN = [sys.executable, "-c", STARTED]


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """While open, the processes that `torchrun` started can talk to each other; it does nothing for a single one."""
    if not by_torchrun() or dist.is_initialized():
        yield
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    # DistributedDataParallel imports this module, whose functions keep today's group as their default: imported while
    # a group is open it holds that group beyond the destruction below, and gloo's threads then abort Python's exit
    from torch.distributed.nn import functional  # noqa: F401

    dist.init_process_group(backend, timeout=TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """This process's number, from 0; 0 is the one that writes and prints."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(rows: Tensor) -> Tensor:
    """This process's rows: every `size()`-th, from `rank()` on."""
    return rows[rank() :: size()]


def gather(rows: Tensor, count: int) -> Tensor:
    """The inverse of `share`: all `count` rows, in their order, in every process."""
    if size() == 1:
        return rows
    longest = -(-count // size())
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(size())]
    dist.all_gather(parts, padded)
    return torch.stack(parts, dim=1).flatten(0, 1)[:count]


def total(value: Tensor) -> Tensor:
    """The sum over the processes."""
    if size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def anywhere(flag: bool) -> bool:
    """Whether it is so in any process: all get the same answer."""
    return bool(total(torch.tensor(float(flag))))


def wait() -> None:
    """Until every process has come here."""
    anywhere(False)


def class_log_likelihoods(model: ConditionalPixelCNN, x: Tensor, *args, **kwargs) -> Tensor:
    """As `classify.class_log_likelihoods`: the processes share the pictures, and all get all rows."""
    return gather(classify.class_log_likelihoods(model, share(x), *args, **kwargs), len(x))


@torch.inference_mode()
def generate(
    model: ConditionalPixelCNN,
    labels: Tensor,
    seed: int,
    temperature: float = 1.0,
    on_row: Callable | None = None,
    guidance: float = 0.0,
) -> Tensor:
    """As `sampling.generate` with a generator of this seed: the processes share the pictures, all get all of them.
    Raises UsageError for fewer pictures than processes."""
    if len(labels) < size():
        raise UsageError(f"more processes ({size()}) than pictures ({len(labels)}): draw more, or start fewer")
    generator = torch.Generator().manual_seed(seed)
    if size() == 1:
        return sampling.generate(
            model, labels, generator=generator, temperature=temperature, on_row=on_row, guidance=guidance
        )
    own = share(torch.arange(len(labels)))
    images, _ = sampling.blank_pictures(model, labels[own], temperature, None, guidance)
    labels = labels.to(images.device)
    told = sampling.labels_told(model, labels[own], guidance)
    each = len(told) // len(own)  # how often the network sees a picture: once, or under each label
    seen = images.repeat(each, 1, 1, 1)
    params_of_all = images.new_zeros(each, len(labels), model.head.conv.out_channels)
    for i, j, params in sampling.walk(model, seen, told):
        params_of_all[:, own] = params.view(each, len(own), -1)
        everybodys = params_of_all.flatten(0, 1)  # drawn with everybody's random numbers
        images[:, :, i, j] = sampling.draw_pixels(everybodys, labels, generator, temperature, guidance)[own]
        seen[:, :, i, j] = images[:, :, i, j].repeat(each, 1)
        if on_row and j == images.shape[3] - 1:
            on_row(i, images)
    return gather(images, len(labels))


def say(text: str) -> None:
    """Prints once, however many processes there are."""
    if rank() == 0:
        print(text, flush=True)


def launch(arguments: list[str], processes: int | None = None) -> None:
    """From a notebook: runs `python -m kit ARGUMENTS`, `["train", "--run", "mine"]` say, in so many processes, one for
    each GPU if None, and shows what they print. Raises UsageError if the command fails.

    They run in the notebook's own folder, so that relative paths mean the same in both, and are started by the kit's
    path, so that nothing in that folder is taken for a part of the kit.
    Interrupting the cell asks them to stop, as Ctrl-C does in a terminal: a training run saves first.
    """
    processes = processes or max(1, torch.cuda.device_count())
    several = [*TORCHRUN, "--standalone", f"--nproc_per_node={processes}", "--"]
    command = [*(several if processes > 1 else [sys.executable]), MAIN, *map(str, arguments)]
    alike = os.environ | {"PYTHONIOENCODING": "utf-8"}  # Windows' own encoding lacks most letters
    pipe: dict = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8", "errors": "replace"}
    process = subprocess.Popen(command, env=alike, **pipe)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            print(line, end="", flush=True)
    except KeyboardInterrupt:
        process.terminate()
        print(process.stdout.read(), end="", flush=True)
        raise
    finally:
        status = process.wait()
    if status:
        raise UsageError(f"kit {' '.join(map(str, arguments))} ended with status {status}; its last lines say why")
