"""Weights & Biases, when there is a key for it; if W&B fails you get one warning line, and training goes on."""

import functools
import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from utils import UsageError
from utils.checkpoints import write_atomically
from utils.classify import Scores

from .console import install, python, quoted, shown
from .platforms import password_in_netrc, secret

MODES = ("auto", "online", "offline", "off")
KEY = "WANDB_API_KEY"
HOSTS = ["api.wandb.ai", "api.forge.coreweave.com"]  # W&B moved in 2026; keys are filed under either
START_SECONDS, FINISH_SECONDS = 15.0, 60.0  # the longest that a run waits for W&B at its start and at its end
# a diff is code too
QUIET = {"silent": True, "console": "off", "save_code": False, "disable_git": True, "disable_job_creation": True}


def wandb_key() -> str | None:
    """The key from $WANDB_API_KEY, netrc, Kaggle's or Colab's secrets; None if there is none. wandb itself looks in the
    first two only, so a secret is put into this process's environment for it."""
    if os.environ.get(KEY):
        return os.environ[KEY]
    own_server = os.environ.get("WANDB_BASE_URL")  # a key is filed under its host and port
    if found := password_in_netrc([urlsplit(own_server).netloc] if own_server else HOSTS):
        return found
    if found := secret(KEY):
        os.environ[KEY] = found
    return found


def resolve_mode(mode: str) -> str:
    """One of `MODES` -> `online`, `offline` or `off`. `auto` does what $WANDB_MODE says, else it is online if there is
    a key. Raises UsageError for another mode, `online` without a key, and when wandb is asked for but not installed."""
    if mode not in MODES:
        raise UsageError(f"unknown W&B mode {mode!r}: choose from {', '.join(MODES)}")
    asked = mode != "auto"
    if not asked:
        by_environment = {"offline": "offline", "dryrun": "offline", "disabled": "off"}
        mode = by_environment.get(os.environ.get("WANDB_MODE", ""), "online" if wandb_key() else "off")
    package = importlib.util.find_spec("wandb")
    if mode != "off" and (package is None or package.origin is None):  # without an origin it is a folder of runs
        if asked:
            raise UsageError(f"W&B mode {mode!r} needs a package that is not installed: {install('wandb')}")
        print(f"note: no logging to W&B: its package is not installed ({install('wandb')})", file=sys.stderr)
        return "off"
    if mode == "online" and not wandb_key():
        login = quoted(python(), "-m", "wandb", "login")
        raise UsageError(f"W&B mode 'online' needs a key: set {KEY}, run `{login}`, or choose offline or off")
    return mode


def _never_fatal(method: Callable[..., None]) -> Callable[..., None]:
    """Only while logging is on; whatever fails turns it off and costs one line, because the training matters more."""

    @functools.wraps(method)
    def guarded(self, *args) -> None:
        try:
            if self.on:
                method(self, *args)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            print(f"warning: logging to W&B has stopped ({type(error).__name__}: {reason})", file=sys.stderr)
            self.on = False

    return guarded


class Tracker:
    """A run at W&B, named after `folder`, whose wandb.json keeps the id under which a resumed run goes on there. It
    shows `config` as settings, and a confusion matrix of `class_names`. Raises UsageError: see `resolve_mode`."""

    def __init__(self, mode: str, folder: Path, config: dict, class_names: tuple[str, ...] = ()):
        self.folder, self.class_names = folder, class_names
        mode = resolve_mode(mode)
        self.on = mode != "off"
        self._start(mode, config)

    @_never_fatal
    def _start(self, mode: str, config: dict) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its reports hold up the exit without a network
        import wandb

        self.wandb: Any = wandb
        settings: dict[str, Any] = QUIET | {"init_timeout": START_SECONDS}
        settings["login_timeout"] = 1.0  # of a prompt, should wandb not find the key that we found
        if hasattr(wandb.Settings(), "finish_timeout"):  # releases before 0.27 cannot limit the wait at the end
            settings |= {"finish_timeout": FINISH_SECONDS, "finish_timeout_raises": True}
        remembered = self.folder / "wandb.json"
        wandb.setup(settings=wandb.Settings(silent=True))  # else it says where it has the key from
        which: dict[str, Any] = {"project": os.environ.get("WANDB_PROJECT") or "pixelcnn-kit", "name": self.folder.name}
        which["id"] = json.loads(remembered.read_text(encoding="utf-8"))["id"] if remembered.exists() else None
        where = {"mode": mode, "dir": self.folder, "settings": wandb.Settings(**settings)}
        self.run = self.wandb.init(**which, **where, resume="allow", config=config)
        write_atomically(
            remembered, lambda file: file.write_text(json.dumps({"id": self.run.id}) + "\n", encoding="utf-8")
        )
        # the axis of all charts; W&B's own step would drop what comes late, as a gallery of an epoch already logged
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")
        self.sync = quoted(python(), "-m", "wandb", "sync", shown(Path(self.run.dir).parent))
        said = f"logs to {self.run.url}" if mode == "online" else f"writes here; send it by: {self.sync}"
        print(f"note: W&B {said}", file=sys.stderr)

    @_never_fatal
    def log(self, line: dict, scores: Scores | None = None) -> None:
        """A line of metrics.jsonl, with its `step`, and the confusion matrix."""
        if scores and scores.count:
            cells, counts = scores.confusion.nonzero(), scores.confusion[scores.confusion > 0]
            both = cells.repeat_interleave(counts, dim=0).T.tolist()  # truth and what it was taken for, (count,) each
            chart = self.wandb.plot.confusion_matrix(None, *both, [*self.class_names], title="Validation")
            line = line | {"confusion": chart}
        self.run.log(line)

    @_never_fatal
    def gallery(self, path: Path, step: int) -> None:
        """The picture at `path`, drawn after `step` steps."""
        self.run.log({"gallery": self.wandb.Image(str(path)), "step": step})

    @_never_fatal
    def finish(self, best: Path | None = None) -> None:
        """Uploads the weights at `best`, if they are there, as the model RUN-best, and waits until all has arrived,
        a minute at most; what has not can be sent later from the run's folder."""
        if best and best.is_file():
            self.run.log_model(best, name=re.sub(r"[^\w.-]", "-", self.folder.name) + "-best")
        try:
            self.run.finish()
        except TimeoutError:
            raise TimeoutError(f"not all has arrived; send the rest by: {self.sync}") from None
        self.on = False
