"""What the parts share: their time, their pictures, and counted work."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kit.platforms import find_root
from utils import UsageError, data


@dataclass(frozen=True)
class Job:
    """One part's work. `end` is a `time.monotonic()`, after which it begins nothing new."""

    device: torch.device
    tiny: bool
    end: float
    dataset: str
    out: Path

    def seconds_left(self) -> float:
        return self.end - time.monotonic()

    def pictures(self, split: str) -> tuple[str, data.ImageDataset]:
        """The data set to train and to judge on, and its name: the photographs where they are found."""
        name = self.dataset
        if name == "auto":
            try:
                data.find_cpen455(find_root("cpen455"))
                name = "cpen455"
            except UsageError:
                name = "cartoons"
        found = data.load_split(name, split, find_root(name), 8 if self.tiny else 32)
        return name, found.subset(16) if self.tiny else found


class BytesMoved(TorchDispatchMode):
    """While open, counts the bytes that operations read and write: what memory must carry at least if none is fused."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = [each for each in tree_leaves((args, kwargs or {})) if isinstance(each, torch.Tensor)]
        made = [each for each in tree_leaves(result) if isinstance(each, torch.Tensor)]
        known = {each.untyped_storage().data_ptr() for each in given}
        new = [each for each in made if each.untyped_storage().data_ptr() not in known]  # a view moves nothing
        if new or function._schema.is_mutable:
            self.total += sum(each.numel() * each.element_size() for each in [*given, *new])
        return result


def bytes_moved(work: Callable[[], object]) -> int:
    with BytesMoved() as moved:
        work()
    return moved.total
