"""How many epochs fit the time there is: `train --minutes`."""

import contextlib
import copy
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from utils import UsageError
from utils.data import ImageDataset

from . import distributed
from .platforms import synchronise
from .runs import RunConfig, RunState, Stopped


class Stopwatch:
    """In the place of a `StopRequest`: times batches of the loop itself, and stops it when it has seen enough."""

    WARM_UP, ENOUGH = 3, 20  # batches: in the first ones kernels are loaded, chosen, compiled

    def __init__(self):
        self.times = [time.perf_counter()]

    def reason(self) -> str:
        synchronise()
        self.times.append(time.perf_counter())
        warm = self.times[self.WARM_UP :]
        return "measured" if len(warm) > self.ENOUGH or (len(warm) > 4 and warm[-1] - warm[0] > 10) else ""

    def seconds_a_batch(self) -> float:
        warm = self.times[self.WARM_UP :] if len(self.times) > self.WARM_UP + 1 else self.times
        return statistics.median(after - before for before, after in itertools.pairwise(warm))


def epochs_before(
    end: float, rest_of_epoch: Callable, steps: int, validate: Callable, validation_set: ImageDataset,
    draw: Callable[[Path], None], run_state: RunState, config: RunConfig, folder: Path,
) -> int:  # fmt: skip
    """How many epochs end by that `time.perf_counter()`, validation, saving and galleries included. It trains for a
    moment to know, and leaves the run as it was. Raises UsageError when not even one does."""
    before, watch = copy.deepcopy(run_state.state_dict()), Stopwatch()

    def timed(work: Callable, *args) -> float:
        started = time.perf_counter()
        work(*args)
        return time.perf_counter() - started

    folder.parent.mkdir(parents=True, exist_ok=True)  # on the disk that the run is kept on, but not in its folder
    with tempfile.TemporaryDirectory(prefix=".measuring-", dir=folder.parent) as aside:
        with contextlib.suppress(Stopped):
            rest_of_epoch(config, watch, Path(aside))
        run_state.load_state_dict(before)
        few = validation_set.subset(32 * distributed.size())
        validate(few.subset(distributed.size()))  # warms up
        validating = timed(validate, few) * len(validation_set) / len(few)
        epoch = watch.seconds_a_batch() * steps + validating / config.validate_every
        once = validating if config.validate_every > 1 else 0.0  # of the last epoch, whichever it is
        if config.sample_every:
            epoch += timed(draw, Path(aside, "a.png")) / config.sample_every
        if not distributed.rank():
            saving = timed(run_state.save, Path(aside))
            epoch += 1.5 * saving / config.checkpoint_every  # and the averaged weights
            once += saving  # before the first epoch
    fitting = (0.95 * (end - time.perf_counter()) - once) / epoch
    fitting = int(distributed.total(torch.tensor(0.0 if distributed.rank() else min(fitting, 1e6))))
    if fitting < 1:
        raise UsageError(f"an epoch takes about {epoch / 60:.2f} minutes: give more --minutes, or a --train-limit")
    distributed.say(f"an epoch takes about {epoch / 60:.2f} minutes here: {fitting} fit")
    return fitting
