"""A process for what a student has written, `kit.grade_worker`: kept from the network and from this machine's files
where the system can do that, watched from outside, and ended with all that it has started."""

import contextlib
import json
import os
import queue
import secrets
import shutil
import signal
import site
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from utils import UsageError

from .console import KIT, typed

START = 300  # seconds until a worker begins: to load PyTorch from a cold disk takes an old laptop a minute
POLL = 0.2  # seconds between two looks at what a worker does
PROCESSES = 64  # of a worker with all that it has started: a data loader's few are far below
PYTORCH = 2**28  # bytes of each process that do not count as the answer's: what is loaded, which forks share
DISK = 2**30  # bytes that the answers of a notebook may leave on the disk; each file is also limited by the worker
FORKS = sys.platform == "linux"  # an answer is examined in a fork of its worker; elsewhere that breaks libraries
CHANNEL = 2**20  # bytes that a worker may say: of an exercise it says less than 2,000
PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "SYSTEMROOT", "LD_LIBRARY_PATH")  # of this process's environment


def bubblewrap(folder: Path) -> list[str]:
    """Of this machine's files the worker sees the system's, Python's and the kit's, to read; its own folder is /tmp."""
    seen = [Path("/", name) for name in ("usr", "bin", "lib", "lib32", "lib64", "nix", "sys/devices/system")]
    seen += [Path("/etc", name) for name in ("ld.so.cache", "alternatives", "fonts")]
    seen += [Path(sys.executable).resolve().parents[1], Path(sys.prefix), Path(sys.base_prefix)]
    seen += [Path(each) for each in (*site.getsitepackages(), site.getusersitepackages())]
    seen += [KIT / "kit", KIT / "utils", *(KIT / "checkpoints").glob("*.safetensors")]
    binds = [word for place in map(str, dict.fromkeys(seen)) for word in ("--ro-bind-try", place, place)]
    (folder / "shared").mkdir()
    return [  # /tmp before the rest, of which some may lie in this machine's /tmp
        "bwrap", "--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--proc", "/proc", "--dev", "/dev",
        "--bind", f"{folder}", "/tmp", *binds, "--bind", f"{folder}/shared", "/dev/shm", "--remount-ro", "/dev",
        "--remount-ro", "/", "--chdir", "/tmp", "--",
    ]  # fmt: skip


def unshare(folder: Path) -> list[str]:
    return ["unshare", "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]


@dataclass(frozen=True)
class Way:
    """How a worker is started: by which program, with what before its command, and what that withholds."""

    program: str
    prefix: Callable[[Path], list[str]]
    text: str
    home: str = ""  # the worker's folder, where it sees it elsewhere


WAYS = (
    Way("bwrap", bubblewrap, "kept apart by bubblewrap: no network, no files but Python's and the kit's", "/tmp"),
    Way("unshare", unshare, "the network is withheld (by unshare), but this machine's files are not protected"),
    Way("", lambda folder: [], "the network is not withheld here and files are not protected"),
)


@dataclass
class Terms:
    """Under which the answers run."""

    way: Way = WAYS[-1]
    seconds: float = 60  # of an exercise
    memory: float = 4  # GB beyond what PyTorch takes itself
    stop: threading.Event = field(default_factory=threading.Event)


def best_way() -> Way:
    """The first way in which a worker starts here. Raises UsageError if there is none."""
    for way in WAYS:
        there = not way.program or shutil.which(way.program)
        if there and any("ready" in said for said in conversation(Terms(way), "quickstart", [], [])):
            return way
    raise UsageError(f"a process for the answers does not start here: see `{typed('doctor')}`")


def environment(home: str) -> dict[str, str]:
    """A worker's: nothing secret, no GPU, one thread, so that workers do not disturb each other; no pieces of mine."""
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    places = dict.fromkeys(("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP", "IPYTHONDIR", "MPLCONFIGDIR"), home)
    return passed_on | places | {
        "USER": "student", "PYTHONPATH": str(KIT), "PYTHONDONTWRITEBYTECODE": "1", "PIXELCNN_RUNS": f"{home}/runs",
        "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "WANDB_MODE": "disabled",
    }  # fmt: skip


def conversation(terms: Terms, module: str, cells: list[str], exercises: list[str]) -> Iterator[dict]:
    """Starts a worker and yields what it says, as it says it, and at last `{"over": why}` if it had to be ended."""
    token = secrets.token_hex(16)
    job = {"token": token, "module": module, "cells": cells, "exercises": exercises, "forks": FORKS}
    running = sum(each.info["num_threads"] or 0 for each in psutil.process_iter(["num_threads"]))
    job |= {"memory": int(terms.memory * 2**30), "processes": running + 4 * PROCESSES}  # the system counts a user's all
    with (
        contextlib.suppress(RecursionError),  # folders in folders, thousands deep, are not cleared away
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
    ):
        given.write(json.dumps(job).encode())
        given.seek(0)
        process = subprocess.Popen(
            [*terms.way.prefix(Path(folder)), sys.executable, "-m", "kit.grade_worker"],
            stdin=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, cwd=folder,
            env=environment(terms.way.home or folder),
        )  # fmt: skip
        watch = Watch(process, Path(folder), terms)
        waiting = list(exercises)
        try:
            lines = said_on(process.stdout, token.encode())
            begun, limit = time.monotonic(), float(START)
            while not terms.stop.is_set():
                with contextlib.suppress(queue.Empty):
                    said = lines.get(timeout=POLL)
                    if said is None:
                        return
                    if "begins" in said:
                        if said["begins"] not in waiting:  # an answer that speaks for its worker gains no time
                            continue
                        waiting.remove(said["begins"])
                        begun, limit = time.monotonic(), terms.seconds
                    yield said
                if over := watch.beyond() or (time.monotonic() - begun > limit and f"it took over {limit:g} s"):
                    yield {"over": over}
                    return
        finally:
            watch.end()


def said_on(stream: IO[bytes] | None, token: bytes) -> queue.Queue:
    """What comes on a stream after the token, as it comes, and None at its end; nothing else that is written there."""
    said: queue.Queue = queue.Queue()

    def listen() -> None:
        assert stream
        left = CHANNEL
        with stream:
            while left > 0 and (line := stream.readline(4096)):
                left -= len(line)
                _, found, text = line.partition(token)
                with contextlib.suppress(ValueError, RecursionError):
                    if found and is_news(news := json.loads(text)):
                        said.put(news)
        said.put(None)

    threading.Thread(target=listen, daemon=True).start()
    return said


def is_news(said: object) -> bool:
    """Whether it is what `kit.grade_worker` says: an answer that has found the token could say anything."""
    kinds: dict = {"ready": bool, "begins": str, "ended": str, "status": int, "exercise": str, "right": int}
    kinds |= {"problem": str | None, "as_the_kit": bool}
    shapes = ({"ready"}, {"begins"}, {"ended", "status"}, {"exercise", "right", "problem"})
    return (
        isinstance(said, dict)
        and said.keys() - {"as_the_kit"} in shapes
        and all(isinstance(value, kinds[key]) for key, value in said.items())
    )


class Watch:
    """Looks at a process and all that it has started, and ends them."""

    def __init__(self, process: subprocess.Popen, folder: Path, terms: Terms):
        self.process, self.folder, self.terms = process, folder, terms
        self.root = psutil.Process(process.pid)
        self.seen = {self.root}  # also what has lost its parent since

    def family(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            return [self.root, *self.root.children(recursive=True)]
        return []

    def beyond(self) -> str | None:
        """Which limit is passed, in a sentence, else None."""
        family = self.family()
        self.seen.update(family)
        if len(family) > PROCESSES:
            return f"it started more than {PROCESSES} processes"
        if sum(map(memory_of, family)) > self.terms.memory * 2**30:
            return f"it used more than {self.terms.memory:g} GB of memory"
        written = size(self.folder) + unseen(family)
        return f"it wrote more than {DISK >> 30} GB to the disk" if written > DISK else None

    def end(self) -> None:
        """Returns when nothing of it runs any more."""
        if self.terms.way.program:
            self.process.kill()  # with it the system ends all, however fast that starts more
        with contextlib.suppress(psutil.Error):
            self.root.suspend()  # it stays the parent of what it has started, and starts nothing more
        for _ in range(100):  # they may go on forking while they are ended
            running = [each for each in {*self.seen, *self.family()} - {self.root} if is_running(each)]
            if not running:
                break
            for each in running:
                with contextlib.suppress(psutil.Error):
                    each.kill()
            psutil.wait_procs(running, timeout=0.05)
        if hasattr(os, "killpg"):
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()


def is_running(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def memory_of(process: psutil.Process) -> int:
    """Bytes."""
    with contextlib.suppress(psutil.Error):
        return max(process.memory_info().rss - PYTORCH, 0)
    return 0


def unseen(family: list[psutil.Process]) -> int:
    """Bytes of the files that processes hold open though no folder has them: deleted ones, and those in memory alone
    (Linux)."""
    files = {}
    for process in family:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{process.pid}/fd"):
                with contextlib.suppress(OSError):
                    found = os.stat(f"/proc/{process.pid}/fd/{name}")
                    if stat.S_ISREG(found.st_mode) and not found.st_nlink:
                        files[found.st_dev, found.st_ino] = found.st_size
    return sum(files.values())


def size(folder: Path) -> int:
    """Bytes on the disk of what lies in a folder, about; no more is looked at than is needed to say that it is much."""
    total = 0
    with contextlib.suppress(RecursionError):
        for place, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError):
                    total += os.lstat(os.path.join(place, name)).st_size + 4096
            if total > DISK:
                return total
        return total
    return DISK + 1  # folders in folders, thousands deep
