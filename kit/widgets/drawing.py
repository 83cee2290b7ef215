"""A panel whose picture grows while the reader watches, and can be saved."""

import contextlib
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image

from utils import UsageError
from utils.checkpoints import write_atomically
from utils.figures import shortened
from utils.model import ConditionalPixelCNN

from .base import Panel, options_of, seed_control, threads_are_shown, to_png

SAMPLES = Path("samples")  # where pictures are saved, seen from the notebook
PAUSE = 0.05  # seconds between two states that are shown: to send each row takes longer than to draw it


class Interrupted(Exception):
    """A newer setting has come; the drawing under way is given up."""


@contextlib.contextmanager
def on_one_core() -> Iterator[None]:
    """Outside the main thread a few pictures take 1.4 to 4 times as long when PyTorch computes on two cores. In the
    main thread too: sums over several cores round differently, and a setting gives one picture."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Drawing(Panel):
    """A panel whose picture grows in a thread; a newer setting interrupts it. A button saves what was drawn.

    On Colab no thread is used: the picture grows while the control's message is handled, then comes the next message.

    Args:
        draw: called with `progress` and the controls' values; `progress(picture)` shows what `picture()` makes, a PIL
            picture, unless another was shown just before; or raises Interrupted.
        controls: one of them is the `label`.
        class_names: by label, for the names of files.
    """

    def __init__(self, draw: Callable, controls: dict, class_names: tuple[str, ...]):
        import ipywidgets

        self.class_names = class_names
        self.latest: object = None  # the request that may draw; older ones give up when they see a newer
        self.drawing = threading.RLock()
        self.save = ipywidgets.Button(description="save as PNG", disabled=True)
        self.save.on_click(self._on_save)
        if not threads_are_shown():
            for control in controls.values():
                control.continuous_update = False  # each position on the way would be drawn to its end
        super().__init__(draw, controls, [*controls.values(), self.save])

    def redraw(self) -> None:
        self.latest = request = object()
        self._grow(request, self.values())

    def _on_change(self, _change) -> None:
        self.latest = request = object()
        if threads_are_shown():
            threading.Thread(target=self._grow, args=(request, self.values()), daemon=True).start()
        else:
            # A callback that moves a control meanwhile comes here again: the older drawing gives up after the newer.
            # What the page sends meanwhile cannot be seen: the kernel handles it when this is done.
            self._grow(request, self.values())

    def _grow(self, request: object, values: dict) -> None:
        waiting: Callable[[], Image.Image] | None = None  # what is not shown yet
        shown_at = -math.inf

        def progress(picture: Callable[[], Image.Image], is_last: bool = False) -> None:
            nonlocal waiting, shown_at
            waiting = picture
            if request is self.latest and (is_last or time.monotonic() - shown_at > PAUSE):
                self.picture.value, waiting = to_png(picture()), None
                shown_at = time.monotonic()
            if request is not self.latest:  # perhaps only since the picture was shown
                raise Interrupted

        with self.drawing, on_one_core(), contextlib.suppress(Interrupted):  # an older drawing gives up at its next row
            self.save.disabled = True
            self.say("")
            self.draw(progress, **values)
            if waiting:
                progress(waiting, is_last=True)
            self.drawn = values
            self.save.disabled = False

    def _on_save(self, _button) -> None:
        values, png = dict(self.drawn), self.picture.value
        label = values.pop("label")  # in the file's name too: of two names that may hold anything one file could come
        parts = [str(label), shortened(self.class_names[label]), *(f"{key}{value}" for key, value in values.items())]
        path = SAMPLES / (re.sub(r"[^\w.-]", "-", "_".join(parts)) + ".png")
        try:
            write_atomically(path, lambda temporary: temporary.write_bytes(png))
        except UsageError as error:
            self.say(str(error))
        else:
            self.say(f"saved as {path}")


def drawing_controls(model: ConditionalPixelCNN, count: int, label: int = 0) -> dict:
    from ipywidgets import FloatSlider, IntSlider, SelectionSlider

    return {
        "label": SelectionSlider(options=options_of(model), value=label, description="class"),
        "temperature": FloatSlider(1.0, min=0.0, max=1.5, step=0.05),
        "seed": seed_control(),
        "count": IntSlider(count, min=1, max=8, description="pictures"),
    }
