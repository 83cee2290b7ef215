"""What moves under the reader's hands: thin over ipywidgets, each with a picture for readers without a kernel."""

import base64
import contextlib
import io
import threading
from collections.abc import Callable

import torch
from PIL import Image

from .figures import gallery
from .model import ConditionalPixelCNN
from .sampling import generate


def show(widget, png: bytes) -> None:
    """Displays a widget where a kernel runs, and the picture where none does."""
    from IPython.display import display

    view = {"model_id": widget.model_id, "version_major": 2, "version_minor": 0}
    picture = base64.b64encode(png).decode()
    display(
        {"application/vnd.jupyter.widget-view+json": view, "image/png": picture, "text/plain": "an interactive figure"},
        raw=True,
    )


def explore(draw: Callable, **controls) -> None:
    """Redraws a figure when a control moves.

    Args:
        draw: called with the controls' values by name; returns a matplotlib figure.
        controls: ipywidgets, each with a value, `IntSlider(3, 0, 9)` say.
    """
    import ipywidgets
    import matplotlib.pyplot as plt

    def png(values) -> bytes:
        figure, buffer = draw(**values), io.BytesIO()
        figure.savefig(buffer, format="png", bbox_inches="tight")
        plt.close(figure)  # else the notebook shows it once more
        return buffer.getvalue()

    def redraw(_change=None):
        picture.value = png({name: control.value for name, control in controls.items()})

    for name, control in controls.items():
        control.description = control.description or name.replace("_", " ")
        control.observe(redraw, names="value")
    picture = ipywidgets.Image(format="png")
    redraw()
    show(ipywidgets.VBox([*controls.values(), picture]), picture.value)


class Interrupted(Exception):
    """A newer setting has come; the drawing under way is given up."""


class ClassSlider:
    """Pictures that grow row by row; moving a control interrupts the drawing and begins the new one.

    Args:
        model: whose classes are offered, by name.
        zoom: screen pixels for one of the picture's.
    """

    def __init__(self, model: ConditionalPixelCNN, zoom: int = 5):
        import ipywidgets

        self.model, self.zoom = model, zoom
        names = [(name, label) for label, name in enumerate(model.class_names)]
        self.controls = {
            "label": ipywidgets.SelectionSlider(options=names, description="class"),
            "temperature": ipywidgets.FloatSlider(1.0, min=0.0, max=1.5, step=0.05, description="temperature"),
            "seed": ipywidgets.BoundedIntText(0, min=0, max=2**31 - 1, description="seed"),
            "count": ipywidgets.IntSlider(4, min=1, max=8, description="pictures"),
        }
        for control in self.controls.values():
            control.observe(self._on_change, names="value")
        self.picture = ipywidgets.Image(format="png")
        self.latest: object = None  # the request that may draw; older ones give up when they see a newer
        self.drawing = threading.Lock()
        self._draw(self._new_request(), self.values())
        show(ipywidgets.VBox([*self.controls.values(), self.picture]), self.picture.value)

    def values(self) -> dict:
        return {name: control.value for name, control in self.controls.items()}

    def _new_request(self) -> object:
        self.latest = object()
        return self.latest

    def _on_change(self, _change) -> None:
        threading.Thread(target=self._draw, args=(self._new_request(), self.values()), daemon=True).start()

    def _draw(self, request: object, values: dict) -> None:
        def on_row(_row: int, images: torch.Tensor) -> None:
            if request is not self.latest:
                raise Interrupted
            self.picture.value = self._png(images, labels)

        labels = torch.full((values["count"],), values["label"])
        generator = torch.Generator().manual_seed(values["seed"])
        with self.drawing, contextlib.suppress(Interrupted):  # an older drawing gives up at its next row
            generate(self.model, labels, generator=generator, temperature=values["temperature"], on_row=on_row)

    def _png(self, images: torch.Tensor, labels: torch.Tensor) -> bytes:
        buffer = io.BytesIO()
        picture: Image.Image = gallery(
            images, torch.zeros_like(labels), (self.model.class_names[labels[0]],), self.zoom
        )
        picture.save(buffer, format="PNG")
        return buffer.getvalue()
