"""What moves under the reader's hands: thin over ipywidgets, each with a picture for readers without a kernel."""

import base64
import html
import io
from collections.abc import Callable, Iterable

from PIL import Image, ImageDraw
from torch import Tensor

from utils import UsageError
from utils.data import UNKNOWN, ImageDataset
from utils.figures import lettering, to_picture
from utils.model import ConditionalPixelCNN

from ..platforms import platform_name


def threads_are_shown() -> bool:
    """Whether the page shows what a thread changes. On Colab it stands still (googlecolab/colabtools issue 3373)."""
    return platform_name() != "colab"


def show(widget, png: bytes, update: bool = False) -> None:
    """Displays a widget where a kernel runs, and the picture where none does; `update` replaces that picture."""
    from IPython.display import display

    view = {"model_id": widget.model_id, "version_major": 2, "version_minor": 0}
    picture = base64.b64encode(png).decode()
    width = shown_width(png)
    display(
        {"application/vnd.jupyter.widget-view+json": view, "image/png": picture, "text/plain": "an interactive figure"},
        raw=True,
        metadata={"image/png": {"width": width}} if width else None,
        display_id=widget.model_id,
        update=update,
    )


def to_png(picture, scale: int = 1) -> bytes:
    """A PIL picture, or a matplotlib figure, on white whatever the theme, in which `scale` dots stand for one."""
    buffer = io.BytesIO()
    if isinstance(picture, Image.Image):
        picture.save(buffer, format="PNG", dpi=(100 * scale, 100 * scale))
    else:
        picture.savefig(buffer, format="png", bbox_inches="tight", facecolor="white", dpi=scale * picture.dpi)
    return buffer.getvalue()


def shown_width(png: bytes) -> int | None:
    """How wide a sharp figure is shown, in the page's pixels; None for a picture that is shown pixel by pixel."""
    with Image.open(io.BytesIO(png)) as picture:
        return picture.width // 2 if picture.info.get("dpi", (0, 0))[0] > 150 else None


class Shown:
    """A sentence and a picture, below whatever else there is.

    Args:
        above: ipywidgets, one below the other.
    """

    def __init__(self, above: Iterable = ()):
        import ipywidgets

        self.note = ipywidgets.HTML()
        fit = {"align_self": "flex-start", "max_width": "100%"}  # else it is stretched, or cut off
        self.picture = ipywidgets.Image(format="png", layout=fit)
        self.box = ipywidgets.VBox([*above, self.note, self.picture])

    def say(self, sentence: str) -> None:
        self.note.value = html.escape(sentence)

    def put(self, png: bytes) -> None:
        self.picture.value, self.picture.width = png, str(shown_width(png) or "")

    def show(self, update: bool = False) -> None:
        show(self.box, self.picture.value, update)


class Panel(Shown):
    """Controls, and below them a sentence and a picture that follows the controls.

    Args:
        draw: called with the controls' values by name; returns a matplotlib figure.
        controls: ipywidgets by name, each with a value.
        rows: how the controls lie, if not one below the other.
    """

    def __init__(self, draw: Callable, controls: dict, rows: list | None = None):
        self.draw, self.controls = draw, controls
        for name, control in controls.items():
            control.description = control.description or name.replace("_", " ")
            control.style.description_width = "initial"  # else long ones are cut off
            control.layout.width = control.layout.width or "400px"
            control.layout.margin = "2px 24px 2px 2px"  # keeps what it shows at its right off its neighbour
            control.observe(self._on_change, names="value")
        super().__init__(rows or controls.values())
        self.redraw()
        self.show()

    def values(self) -> dict:
        return {name: control.value for name, control in self.controls.items()}

    def redraw(self) -> None:
        import matplotlib.pyplot as plt

        figure = self.draw(**self.values())
        self.put(to_png(figure, scale=2))  # sharp, as the notebooks' other figures are
        plt.close(figure)  # else the notebook shows it once more

    def _on_change(self, _change) -> None:
        self.redraw()


def explore(draw: Callable, **controls) -> None:
    """Redraws a figure when a control moves.

    draw: as for `Panel`; controls: ipywidgets, each with a value, `IntSlider(3, 0, 9)` say.
    """
    Panel(draw, controls)


def options_of(model: ConditionalPixelCNN) -> list[tuple[str, int]]:
    return [(name, label) for label, name in enumerate(model.class_names)]


def seed_control():
    from ipywidgets import BoundedIntText

    return BoundedIntText(0, min=0, max=2**31 - 1, layout={"width": "200px"})


def matched(model: ConditionalPixelCNN, dataset: ImageDataset) -> ImageDataset:
    """The data set with the model's labels. Raises UsageError: no pictures, or of another size, or other classes."""
    size, found = model.config.image_size, dataset.images.shape[-1]
    if not len(dataset):
        raise UsageError("the data set has no pictures: give one that has")
    if found != size:
        raise UsageError(f"the model reads {size}x{size} pictures, not {found}x{found}: choose image_size={size}")
    try:
        return dataset.with_classes(model.class_names, "the model")
    except UsageError:
        # Other names are refused where they are names and label something. A model built in a notebook has numbers
        # only, and pictures of unknown label have no class that could be mistaken: these go on by number.
        numbered = model.class_names == tuple(str(label) for label in range(len(dataset.classes)))
        if numbered or bool((dataset.labels == UNKNOWN).all()):
            return dataset
        raise


def captioned(images: Tensor, captions: list[str], zoom: int = 4) -> Image.Image:
    """Pictures side by side, each with its lines of text below it. images: (N, 3, S, S) in [-1, 1]."""
    size, gap, font = images.shape[-1] * zoom, 2 * zoom, lettering(13)
    lines = 1 + max(caption.count("\n") for caption in captions)
    width = max(size, *(int(font.getlength(line)) for caption in captions for line in caption.split("\n")))
    sheet = Image.new("RGB", (gap + len(images) * (width + gap), gap + size + gap + 18 * lines), "white")
    pen = ImageDraw.Draw(sheet)
    for column, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left = gap + column * (width + gap)
        sheet.paste(to_picture(image).resize((size, size), Image.Resampling.NEAREST), (left, gap))
        pen.multiline_text((left, gap + size + gap // 2), caption, fill="black", font=font)
    return sheet
