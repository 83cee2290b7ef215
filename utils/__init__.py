"""The model, as the notebooks build it; each file needs only those above it, and nothing here needs `kit`.

layers, mixture            causal convolutions and the gated block; the discretized mixture of logistics
fusion, model              where a class enters; the network
device, pictures           what to compute with; picture files
cartoons, data             the data sets
sampling, classify         drawing pixel by pixel; Bayes' rule and its scores
muon, training             the optimiser; losses, steps, presets;   checkpoints, figures: weights; pictures
"""

import functools
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence

__version__ = "2026.11.28"  # the day it was published; of several kits, the notebooks' first cell takes the newest


class UsageError(ValueError):
    """An input that the user can correct. Its text is one line: what is wrong and what to do."""


def listing(names: Iterable[str], most: int = 10) -> str:
    """`a, b, c`; of more than `most` names those, and how many more there are."""
    shown = list(names)
    rest = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {rest} more" if rest > 0 else "")


def at_home(path: str | os.PathLike) -> str:
    """The path with the user's folder for `~` at its beginning; `~NAME` is a name like any other."""
    path = os.fspath(path)
    return os.path.expanduser(path) if path == "~" or path.startswith(("~/", "~\\")) else path


def composed(text: str) -> str:
    """The text in one spelling (Unicode's NFC): a Mac writes é as e and an accent, others as one letter."""
    return unicodedata.normalize("NFC", text)


def by_torchrun() -> bool:
    """Whether this is one of several processes: `torchrun` sets all of these, a cluster's shell may hold a few."""
    needed = "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"
    return all(map(os.environ.get, needed)) and os.environ["WORLD_SIZE"] != "1"


def first_process() -> bool:
    """Whether this is the one that speaks and writes for all, alone or as the first of several."""
    return not by_torchrun() or os.environ["RANK"] == "0"


@functools.cache  # so that nothing is said twice
def note(text: str) -> None:
    """One line on standard error, from the first of several processes."""
    if first_process():
        print(f"note: {text}", file=sys.stderr)


def class_order(wanted: Sequence[str], names: Sequence[str], who: str, whose: str) -> list[int]:
    """Classes meet by name: where each of `wanted`, the classes of `who`, stands among `names`, those of `whose`.
    Raises UsageError, which shows both lists, of long ones what differs, unless they are the same in any order."""
    if sorted(wanted) != sorted(names):
        lists = [list(wanted), list(names)]
        if max(map(len, lists)) > 10:
            lists = [
                [name for name in one if name not in other] or ["all of these"] for one, other in (lists, lists[::-1])
            ]
            raise UsageError(f"{who} and {whose} have other classes: {listing(lists[0])}; {listing(lists[1])}")
        raise UsageError(f"{who} has the classes {listing(wanted)}; {whose} has others: {listing(names)}")
    return [list(names).index(name) for name in wanted]
