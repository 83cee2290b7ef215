"""Weights & Biases, when there is a key for it; a network that fails costs a line on standard error, never the run."""

import contextlib
import importlib.util
import json
import netrc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from utils import UsageError
from utils.checkpoints import write_atomically
from utils.classify import Scores

MODES = ("auto", "online", "offline", "off")
PROJECT = "pixelcnn-kit"
KEY = "WANDB_API_KEY"
HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")  # under either, `wandb login` files its key: it moved in 2026
START_SECONDS, FINISH_SECONDS = 15.0, 60.0  # the longest that a run waits for W&B at its start and at its end


def wandb_key() -> str | None:
    """The key from $WANDB_API_KEY, netrc, Kaggle's or Colab's secrets; None if there is none.

    wandb itself looks in the first two only, so a secret is put into this process's environment for it.
    """
    if os.environ.get(KEY):
        return os.environ[KEY]
    given, server = os.environ.get("NETRC"), os.environ.get("WANDB_BASE_URL")
    for path in [given] if given else ["~/.netrc", "~/_netrc"]:
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            file = netrc.netrc(os.path.expanduser(path))
            for host in (urlsplit(server).netloc,) if server else HOSTS:
                if found := file.authenticators(host):
                    return found[2]
    for secret in (_kaggle_secret, _colab_secret):
        with contextlib.suppress(Exception):  # not there, not shared with this notebook, no network: all the same
            if key := secret():
                os.environ[KEY] = key
                return key
    return None


def _kaggle_secret() -> str:
    from kaggle_secrets import UserSecretsClient

    return UserSecretsClient().get_secret(KEY)


def _colab_secret() -> str:
    from google.colab import userdata

    return userdata.get(KEY)


def resolve_mode(mode: str) -> str:
    """One of `MODES` -> `online`, `offline` or `off`.

    `auto` does what $WANDB_MODE says when that is `offline` or `disabled`; else it is online if there is a key.
    Raises UsageError for another mode, for `online` without a key, and when wandb is asked for but not installed.
    """
    if mode not in MODES:
        raise UsageError(f"unknown W&B mode {mode!r}: choose from {', '.join(MODES)}")
    asked = mode != "auto"
    if not asked:
        by_environment = {"offline": "offline", "dryrun": "offline", "disabled": "off"}
        mode = by_environment.get(os.environ.get("WANDB_MODE", ""), "online" if wandb_key() else "off")
    if mode == "off":
        return mode
    package = importlib.util.find_spec("wandb")
    if package is None or package.origin is None:  # without an origin it is a folder of runs, not the package
        if asked:
            raise UsageError(f"W&B mode {mode!r} needs a package that is not installed: pip install wandb")
        print("note: no logging to W&B: its package is not installed (pip install wandb)", file=sys.stderr)
        return "off"
    if mode == "online" and not wandb_key():
        raise UsageError(f"W&B mode 'online' needs a key: set {KEY}, run `wandb login`, or choose offline or off")
    return mode


class Tracker:
    """A run at W&B. When W&B fails in any way this says so in one line and does nothing from there on.

    Args:
        mode: one of `MODES`.
        folder: the run's folder. It names the run, wandb writes into it, and its wandb.json holds the run's id at
            W&B, under which a resumed run goes on.
        config: the run's settings, as W&B shows them.
        class_names: of the confusion matrix.

    Raises:
        UsageError: see `resolve_mode`.
    """

    def __init__(self, mode: str, folder: Path, config: dict, class_names: tuple[str, ...] = ()):
        self.folder, self.class_names = folder, class_names
        self.run: Any = None
        mode = resolve_mode(mode)
        if mode != "off":
            with self._out_of_the_way():
                self._start(mode, config)

    def _start(self, mode: str, config: dict) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its reports hold up the exit without a network
        import wandb

        wandb.setup(settings=wandb.Settings(silent=True))
        remembered = self.folder / "wandb.json"
        settings: dict[str, Any] = {
            "silent": True,
            "console": "off",
            "save_code": False,
            "disable_git": True,  # a diff is code too
            "disable_job_creation": True,
            "init_timeout": START_SECONDS,
            "login_timeout": 1.0,  # of a prompt, should wandb not find the key that we found
            "finish_timeout": FINISH_SECONDS,
            "finish_timeout_raises": True,
        }
        known = wandb.Settings()  # releases before 0.27 cannot limit the wait at the end
        self.run = wandb.init(
            mode=mode,  # type: ignore[arg-type]
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=self.folder.name,
            id=json.loads(remembered.read_text())["id"] if remembered.exists() else None,
            resume="allow",
            dir=self.folder,
            config=config,
            settings=wandb.Settings(**{name: value for name, value in settings.items() if hasattr(known, name)}),
        )
        about = json.dumps({"id": self.run.id}) + "\n"
        write_atomically(remembered, lambda temporary: temporary.write_text(about))
        # the axis of all charts; W&B's own step would drop what comes late, as a gallery of an epoch already logged
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")
        where = f"logs to {self.run.url}" if mode == "online" else f"writes here; send it by: {self._sync_command()}"
        print(f"note: W&B {where}", file=sys.stderr)

    def _sync_command(self) -> str:
        return f"wandb sync {os.path.relpath(Path(self.run.dir).parent)}"

    @contextlib.contextmanager
    def _out_of_the_way(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever it is, the training matters more
            reason = " ".join((str(error).splitlines() or [""])[0].split())[:200]
            print(f"warning: logging to W&B has stopped ({type(error).__name__}: {reason})", file=sys.stderr)
            self.run = None

    def log(self, line: dict, scores: Scores | None = None) -> None:
        """A line of metrics.jsonl, with its `step`; the memory a GPU has used at most; the confusion matrix."""
        if not self.run:
            return
        with self._out_of_the_way():
            import wandb

            values = dict(line)
            if torch.cuda.is_available():
                values["gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
            if scores and scores.count:
                counts = scores.confusion.flatten()
                cells = torch.arange(len(counts)).repeat_interleave(counts)  # (count,), one for each picture
                truth, taken_for = cells // len(scores.confusion), cells % len(scores.confusion)
                values["confusion"] = wandb.plot.confusion_matrix(
                    y_true=truth.tolist(),
                    preds=taken_for.tolist(),
                    class_names=list(self.class_names),
                    title="Validation",
                )
            self.run.log(values)

    def gallery(self, path: Path, step: int) -> None:
        """The picture at `path`, drawn after `step` steps."""
        if not self.run:
            return
        with self._out_of_the_way():
            import wandb

            self.run.log({"gallery": wandb.Image(str(path)), "step": step})

    def finish(self, best: Path | None = None) -> None:
        """Uploads the weights at `best`, if they are there, as the model RUN-best, and waits until all has arrived,
        a minute at most; what has not can be sent later from the run's folder."""
        if not self.run:
            return
        with self._out_of_the_way():
            import wandb

            if best and best.is_file():
                name = "".join(c if c.isalnum() or c in "-_." else "-" for c in self.folder.name)
                artifact = wandb.Artifact(f"{name}-best", type="model")
                artifact.add_file(str(best), name="best.safetensors")
                self.run.log_artifact(artifact)
            try:
                self.run.finish()
            except TimeoutError:
                raise TimeoutError(f"not all has arrived; send the rest by: {self._sync_command()}") from None
        self.run = None
