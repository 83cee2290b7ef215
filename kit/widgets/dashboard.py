"""Follows a training run by its files, wherever it runs: another cell, another terminal, another machine's disk."""

import contextlib
import io
import math
import statistics
import threading
from pathlib import Path

from PIL import Image, ImageOps

from utils import UsageError
from utils.figures import PALETTE, style

from ..metrics import read_metrics, validated, whole
from ..platforms import runs_folder
from ..runs import read_values
from .base import Shown, threads_are_shown, to_png

ON_COLAB = " On Colab this moves only while a cell calls follow() or look()."


class TrainingDashboard(Shown):
    """Loss and accuracy of a run, its speed, the time left and its latest gallery, while it goes on.

    A thread looks at the run's files until the run is finished or the widget is closed; nothing is written. On Colab
    there is no thread: it moves only while a cell calls `follow()`, or `look()`, in `on_epoch` of `train` say.

    Args:
        run: a name under checkpoints/runs/, or a folder; it need not exist yet.
        interval: seconds from look to look.
    """

    def __init__(self, run: str | Path, interval: float = 1.0):
        style()
        super().__init__()
        self.folder, self.interval = runs_folder() / run, interval
        self.seen: object = None
        self.looking = threading.Lock()  # a cell may look while the thread does
        self.closed = threading.Event()
        self.box.observe(lambda _change: self.closed.set(), names="comm")  # closing a widget takes its comm away
        self.look()
        self.show()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        if threads_are_shown():
            self.thread.start()

    def close(self) -> None:
        """Takes the widget away and ends the thread."""
        self.box.close()

    def follow(self) -> None:
        """Looks from this cell until the run is finished, the widget is closed or the cell is interrupted; the static
        picture is then the last one."""
        with contextlib.suppress(KeyboardInterrupt):
            self._follow()
        if not self.closed.is_set():
            self.show(update=True)

    def _watch(self) -> None:
        try:
            self._follow()
        except Exception as error:  # else nobody would see it
            self.say(f"The dashboard has stopped: {type(error).__name__}: {error}")

    def _follow(self) -> None:
        while not self.look() and not self.closed.wait(self.interval):
            pass

    def look(self) -> bool:
        """Reads the files, redraws if they have changed; -> the run is finished: the last epoch's line is written, and
        before it the last gallery was."""
        with self.looking:
            config: dict = {}
            drawn, self.lines = b"", []
            with contextlib.suppress(UsageError):  # not there yet, or damaged
                given = read_values(self.folder)["train"]
                numbers = [given.get("epochs"), given.get("validate_every", 1)]
                config = given if all(type(number) is int for number in numbers) else {}
            with contextlib.suppress(UsageError):
                self.lines = whole(read_metrics(self.folder / "metrics.jsonl"))
            with contextlib.suppress(OSError):
                drawn = (self.folder / "gallery.png").read_bytes()
            finished = bool(self.lines) and self.lines[-1]["epoch"] >= config.get("epochs", math.inf)
            if self.seen != (found := (config, self.lines, drawn, finished)):
                self.say(self._sentence(config) + ("" if finished or threads_are_shown() else ON_COLAB))
                self.put(self._png(config, drawn))
                self.seen = found
            return finished

    def _sentence(self, config: dict) -> str:
        name = self.folder.name
        if not config and self.lines:
            done = f"Run {name!r} has done epoch {self.lines[-1]['epoch']}"
            return f"{done}; its config.json is missing or damaged, so how many it is to have is not known."
        if not config:
            return f"There is no run {name!r} yet; its curves will appear here when it begins."
        if not self.lines:
            return f"Run {name!r} has begun; its first epoch is under way."
        last, scored, epochs = self.lines[-1], validated(self.lines)[-1:], config["epochs"]
        skipped = sum(line.get("skipped_steps", 0) for line in self.lines)  # older runs do not count them
        recent = self.lines[-max(5, config.get("validate_every", 1)) :]  # epochs that are validated take longer
        left = max(0, epochs - last["epoch"]) * statistics.mean(line["seconds"] for line in recent)
        validation = " bits per dimension, not validated yet"
        if scored:
            of = "" if scored[0] is last else f" of epoch {scored[0]['epoch']}"
            validation = f", validation{of} {scored[0]['validation_bpd']:.3f} bits per dimension, accuracy"
            validation += f" {scored[0]['validation_accuracy']:.1%}"
        return (
            f"Run {name!r}: epoch {last['epoch']} of {epochs}, {last['images_per_second']:.0f} images/s, "
            + (f"about {left / 60:.1f} min left" if left else "finished")
            + f". Training {last['train_bpd']:.3f}{validation}; written {last.get('time', 'at an unknown time')}."
            + (f" {skipped} steps were skipped, since float16 overflowed." if skipped else "")
        )

    def _png(self, config: dict, gallery: bytes) -> bytes:
        from matplotlib.figure import Figure  # not pyplot, whose state belongs to the main thread

        scored = validated(self.lines)
        epochs, train = ([line[name] for line in self.lines] for name in ("epoch", "train_bpd"))
        of, bits, accuracy = (
            [line[name] for line in scored] for name in ("epoch", "validation_bpd", "validation_accuracy")
        )
        figure = Figure(figsize=(9, 3), dpi=100, layout="constrained")
        left, right = figure.subplots(1, 2)
        for axis in (left, right):
            axis.set(xlabel="epoch", xlim=(0.5, config.get("epochs", 1) + 0.5))
            axis.xaxis.get_major_locator().set_params(integer=True)
        left.plot(epochs, train, "o-", ms=4, label="training")
        left.plot(of, bits, "s--", ms=4, label="validation")
        left.set(ylabel="bits per dimension")
        left.legend(frameon=False)
        right.plot(of, [100 * share for share in accuracy], "s--", ms=4, color=PALETTE[1])
        right.set(ylabel="validation accuracy, %", ylim=(0, 105))
        curves = Image.open(io.BytesIO(to_png(figure, scale=2)))
        drawn = Image.new("RGB", (1, 1))
        with contextlib.suppress(OSError):  # there is none, or it is damaged
            drawn = ImageOps.scale(Image.open(io.BytesIO(gallery)).convert("RGB"), 2, Image.Resampling.NEAREST)
        sheet = Image.new("RGB", (max(curves.width, drawn.width), curves.height + drawn.height), "white")
        sheet.paste(curves.convert("RGB"), (0, 0))
        sheet.paste(drawn, (0, curves.height))
        return to_png(sheet, scale=2)
