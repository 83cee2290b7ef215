"""What moves under the reader's hands: thin over ipywidgets, each with a picture for readers without a kernel."""

import base64
import contextlib
import html
import io
import re
import threading
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from utils import UsageError
from utils.checkpoints import write_atomically
from utils.data import ImageDataset
from utils.model import ConditionalPixelCNN

SAMPLES = Path("samples")  # where pictures are saved, seen from the notebook


def show(widget, png: bytes, update: bool = False) -> None:
    """Displays a widget where a kernel runs, and the picture where none does; `update` replaces that picture."""
    from IPython.display import display

    view = {"model_id": widget.model_id, "version_major": 2, "version_minor": 0}
    picture = base64.b64encode(png).decode()
    display(
        {"application/vnd.jupyter.widget-view+json": view, "image/png": picture, "text/plain": "an interactive figure"},
        raw=True,
        display_id=widget.model_id,
        update=update,
    )


def to_png(picture) -> bytes:
    """A PIL picture or a matplotlib figure, on white whatever the theme."""
    buffer = io.BytesIO()
    if isinstance(picture, Image.Image):
        picture.save(buffer, format="PNG")
    else:
        picture.savefig(buffer, format="png", bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


class Panel:
    """Controls, and below them a sentence and a picture that follows the controls.

    Args:
        draw: called with the controls' values by name; returns a matplotlib figure.
        controls: ipywidgets by name, each with a value.
        rows: how the controls lie, if not one below the other.
    """

    def __init__(self, draw: Callable, controls: dict, rows: list | None = None):
        import ipywidgets

        self.draw, self.controls = draw, controls
        for name, control in controls.items():
            control.description = control.description or name.replace("_", " ")
            control.style.description_width = "initial"  # else long ones are cut off
            control.layout.width = control.layout.width or "400px"
            control.layout.margin = "2px 24px 2px 2px"  # keeps what it shows at its right off its neighbour
            control.observe(self._on_change, names="value")
        self.note = ipywidgets.HTML()
        self.picture = ipywidgets.Image(format="png", layout={"align_self": "flex-start"})  # else it is stretched
        self.redraw()
        show(ipywidgets.VBox([*(rows or controls.values()), self.note, self.picture]), self.picture.value)

    def values(self) -> dict:
        return {name: control.value for name, control in self.controls.items()}

    def say(self, sentence: str) -> None:
        self.note.value = html.escape(sentence)

    def redraw(self) -> None:
        import matplotlib.pyplot as plt

        figure = self.draw(**self.values())
        self.picture.value = to_png(figure)
        plt.close(figure)  # else the notebook shows it once more

    def _on_change(self, _change) -> None:
        self.redraw()


def explore(draw: Callable, **controls) -> None:
    """Redraws a figure when a control moves.

    draw: as for `Panel`; controls: ipywidgets, each with a value, `IntSlider(3, 0, 9)` say.
    """
    Panel(draw, controls)


class Interrupted(Exception):
    """A newer setting has come; the drawing under way is given up."""


class Drawing(Panel):
    """A panel whose picture grows in a thread; a newer setting interrupts it. A button saves what was drawn.

    Args:
        draw: called with `progress` and the controls' values; `progress(picture)` shows a PIL picture, or raises
            Interrupted.
        controls: one of them is the `label`.
        class_names: by label, for the names of files.
    """

    def __init__(self, draw: Callable, controls: dict, class_names: tuple[str, ...]):
        import ipywidgets

        self.class_names = class_names
        self.latest: object = None  # the request that may draw; older ones give up when they see a newer
        self.drawing = threading.Lock()
        self.save = ipywidgets.Button(description="save as PNG", disabled=True)
        self.save.on_click(self._on_save)
        super().__init__(draw, controls, [*controls.values(), self.save])

    def redraw(self) -> None:
        self.latest = request = object()
        self._draw(request, self.values())

    def _on_change(self, _change) -> None:
        self.latest = request = object()
        threading.Thread(target=self._draw, args=(request, self.values()), daemon=True).start()

    def _draw(self, request: object, values: dict) -> None:
        def progress(picture: Image.Image) -> None:
            if request is not self.latest:
                raise Interrupted
            self.picture.value = to_png(picture)

        with self.drawing, contextlib.suppress(Interrupted):  # an older drawing gives up at its next row
            self.save.disabled = True
            self.say("")
            self.draw(progress, **values)
            self.drawn = values
            self.save.disabled = False

    def _on_save(self, _button) -> None:
        values, png = dict(self.drawn), self.picture.value
        name = "_".join([self.class_names[values.pop("label")], *(f"{key}{value}" for key, value in values.items())])
        path = SAMPLES / (re.sub(r"[^\w.-]", "-", name) + ".png")  # a class's name may hold anything
        try:
            write_atomically(path, lambda temporary: temporary.write_bytes(png))
        except UsageError as error:
            self.say(str(error))
        else:
            self.say(f"saved as {path}")


def options_of(model: ConditionalPixelCNN) -> list[tuple[str, int]]:
    return [(name, label) for label, name in enumerate(model.class_names)]


def drawing_controls(model: ConditionalPixelCNN, count: int, label: int = 0) -> dict:
    from ipywidgets import BoundedIntText, FloatSlider, IntSlider, SelectionSlider

    return {
        "label": SelectionSlider(options=options_of(model), value=label, description="class"),
        "temperature": FloatSlider(1.0, min=0.0, max=1.5, step=0.05),
        "seed": BoundedIntText(0, min=0, max=2**31 - 1, layout={"width": "200px"}),
        "count": IntSlider(count, min=1, max=8, description="pictures"),
    }


def check_sizes(model: ConditionalPixelCNN, dataset: ImageDataset) -> None:
    size, found = model.config.image_size, dataset.images.shape[-1]
    if found != size:
        raise UsageError(f"the model reads {size}x{size} pictures, not {found}x{found}: choose image_size={size}")
