"""What moves under the reader's hands: thin over ipywidgets, each with a picture for readers without a kernel."""

import base64
import contextlib
import html
import io
import re
import threading
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from . import UsageError, figures, mixture
from .checkpoints import write_atomically
from .classify import class_log_likelihoods, evidence_map, log_posterior
from .data import UNKNOWN, ImageDataset, read_upload, to_float
from .model import ConditionalPixelCNN
from .sampling import generate

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


def _drawing_controls(model: ConditionalPixelCNN, count: int, label: int = 0) -> dict:
    from ipywidgets import BoundedIntText, FloatSlider, IntSlider, SelectionSlider

    return {
        "label": SelectionSlider(options=options_of(model), value=label, description="class"),
        "temperature": FloatSlider(1.0, min=0.0, max=1.5, step=0.05),
        "seed": BoundedIntText(0, min=0, max=2**31 - 1, layout={"width": "200px"}),
        "count": IntSlider(count, min=1, max=8, description="pictures"),
    }


class ClassSlider(Drawing):
    """Pictures that grow row by row; moving a control interrupts the drawing and begins the new one.

    Args:
        model: whose classes are offered, by name.
        zoom: screen pixels for one of the picture's.
    """

    def __init__(self, model: ConditionalPixelCNN, zoom: int = 4):
        self.model, self.zoom = model, zoom
        super().__init__(self._grow, _drawing_controls(model, count=4), model.class_names)

    def _grow(self, progress, label: int, temperature: float, seed: int, count: int) -> None:
        def on_row(_row: int, images: Tensor) -> None:
            progress(figures.gallery(images, torch.zeros_like(labels), (self.class_names[label],), self.zoom))

        labels, generator = torch.full((count,), label), torch.Generator().manual_seed(seed)
        generate(self.model, labels, generator=generator, temperature=temperature, on_row=on_row)


def _check_sizes(model: ConditionalPixelCNN, dataset: ImageDataset) -> None:
    size, found = model.config.image_size, dataset.images.shape[-1]
    if found != size:
        raise UsageError(f"the model reads {size}x{size} pictures, not {found}x{found}: choose image_size={size}")


class Completion(Drawing):
    """The top of a picture is given, the model draws the rest for a class of your choice, several times.

    Below each stands the log-likelihood, under that class, of the rows that were not given.

    Args:
        model: draws and judges.
        dataset: where the pictures come from; UsageError if they have not the model's size.
        zoom: screen pixels for one of the picture's.
    """

    def __init__(self, model: ConditionalPixelCNN, dataset: ImageDataset, zoom: int = 4):
        from ipywidgets import IntSlider

        _check_sizes(model, dataset)
        self.model, self.dataset, self.zoom = model, dataset, zoom
        size, first = model.config.image_size, dataset[0][1]
        controls = {
            "picture": IntSlider(0, min=0, max=len(dataset) - 1),
            "given": IntSlider(size // 2, min=0, max=size - 1, description="rows given"),
            **_drawing_controls(model, count=4, label=0 if first == UNKNOWN else first),
        }
        super().__init__(self._complete, controls, model.class_names)

    def log_likelihoods(self, images: Tensor, label: int, given: int) -> Tensor:
        """Nats of the rows from `given` on, each given what came before. images: (N, 3, S, S) -> (N,)"""
        images = images.to(next(self.model.parameters()).device)
        with torch.inference_mode():
            params = self.model(images, torch.full((len(images),), label, device=images.device))
            nats = mixture.log_prob(params, images, reduce=False)  # (N, S, S)
        return nats[:, given:].sum(dim=(1, 2)).cpu()

    def _complete(self, progress, picture: int, given: int, label: int, temperature: float, seed: int, count: int):
        truth = self.dataset[picture][0][None]  # (1, 3, S, S)
        top = truth.clone()
        top[:, :, given:] = 1.0  # white

        def sheet(images: Tensor, numbers: list[str]) -> Image.Image:
            heads = [f"{given} rows given", *[self.class_names[label]] * count, "truth"]
            captions = [f"{head}\n{text}" for head, text in zip(heads, ["", *numbers], strict=True)]
            return figures.captioned(torch.cat([top, images.cpu(), truth]), captions, self.zoom)

        images = generate(
            self.model,
            torch.full((count,), label),
            generator=torch.Generator().manual_seed(seed),
            temperature=temperature,
            prefix=truth[:, :, :given],
            on_row=lambda _row, images: progress(sheet(images, ["\n"] * (count + 1))),
        ).cpu()
        nats, size = self.log_likelihoods(torch.cat([images, truth]), label, given), truth.shape[-1]
        bits = mixture.bits_per_dim(-nats, size) * size / (size - given)
        numbers = [f"{n:.0f} nats\n{b:.2f} bits/dim" for n, b in zip(nats.tolist(), bits.tolist(), strict=True)]
        progress(sheet(images, numbers))


class MixtureExplorer(Panel):
    """Up to three logistics: their density, the 256 masses, samples, and a 256-way softmax fitted to the samples."""

    def __init__(self):
        from ipywidgets import BoundedIntText, FloatSlider, HBox, SelectionSlider, VBox

        figures.style()
        ranges = {"weight": (0, 1, 0.05), "mean": (-1.5, 1.5, 0.02), "log_scale": (-7, 0, 0.1)}
        starts = {1: (0.6, -0.3, -2.2), 2: (0.3, 0.98, -3.5), 3: (0.0, 0.4, -4.0)}
        controls = {
            f"{name}_{n}": FloatSlider(value, min=low, max=high, step=step, layout={"width": "300px"})
            for n, values in starts.items()
            for value, (name, (low, high, step)) in zip(values, ranges.items(), strict=True)
        }
        sliders = list(controls.values())
        samples = SelectionSlider(options=[20, 60, 200, 1000, 10_000], value=60)
        seed = BoundedIntText(0, min=0, max=2**31 - 1, layout={"width": "200px"})
        rows = [HBox([VBox(sliders[i : i + 3]) for i in (0, 3, 6)]), HBox([samples, seed])]
        super().__init__(self._draw, controls | {"samples": samples, "seed": seed}, rows)

    def params(self, values: dict) -> Tensor:
        """The network's output that means this mixture in red; green and blue are surely 0. -> (1, 10K, 1, 1)"""
        names = ("weight", "mean", "log_scale")
        weights, means, log_scales = torch.tensor([[values[f"{name}_{n}"] for n in (1, 2, 3)] for name in names])
        colours = torch.zeros(3, 3, 3)
        colours[0, 0], colours[0, 1] = means, log_scales
        colours[1:, 0] = -100.0  # so far below that bin 0 has all the mass
        return torch.cat([weights.clamp(min=1e-9).log(), colours.flatten()])[None, :, None, None]

    def masses(self, values: dict) -> Tensor:
        """-> (256,), which sum to 1."""
        x = torch.full((1, 3, 1, 256), -1.0)
        x[0, 0, 0] = torch.arange(256) / 127.5 - 1
        return mixture.log_prob(self.params(values).expand(-1, -1, 1, 256), x, reduce=False).exp()[0, 0]

    def draws(self, values: dict) -> Tensor:
        """How many samples fell on each byte, (256,)."""
        params, generator = self.params(values), torch.Generator().manual_seed(values["seed"])
        x = mixture.sample(params.expand(-1, -1, 1, values["samples"]), generator)
        return torch.bincount(((x[0, 0, 0] + 1) * 127.5).round().long(), minlength=256)

    @staticmethod
    def fitted_softmax(counts: Tensor, steps: int = 300, lr: float = 2.0) -> Tensor:
        """Gradient ascent on 256 logits, from 0: the gradient of the mean log-likelihood is share - softmax."""
        share, logits = counts / counts.sum(), torch.zeros(256)
        for _ in range(steps):
            logits += lr * (share - logits.softmax(dim=0))
        return logits.softmax(dim=0)

    def _draw(self, **values):
        import matplotlib.pyplot as plt

        black, blue, orange, sky = (figures.PALETTE[n] for n in (7, 0, 1, 4))
        masses, counts = self.masses(values), self.draws(values)
        softmax, edges = self.fitted_softmax(counts), torch.arange(257) - 0.5
        logits, means, log_scales, _ = mixture.unpack(self.params(values))
        means, scales = means[0, 0], log_scales[0, 0].exp()  # (K, 1, 1)
        x = torch.linspace(-1.3, 1.3, 2000)
        cdf = torch.sigmoid((x - means) / scales)  # (K, 1, 2000)
        density = (logits[0].softmax(dim=0) * cdf * (1 - cdf) / scales).sum(dim=(0, 1))
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6))
        left.stairs(masses, edges, fill=True, color=sky, label="masses of the 256 bins")
        left.bar([0, 255], masses[[0, 255]], width=4, color=orange, label="edge bins, open outwards")
        left.plot((x + 1) * 127.5, density * 2 / 255, color=black, lw=1, label="density x 2/255")
        left.set(xlabel="byte", ylabel="probability", xlim=(-38, 293), ylim=(0, None))
        left.set_title(f"bin 0: {masses[0]:.4f}   bin 255: {masses[255]:.4f}   all 256: {masses.sum():.6f}", fontsize=9)
        right.stairs(
            counts / counts.sum(), edges, fill=True, color="0.75", label=f"share of {values['samples']} samples"
        )
        right.plot(masses, color=blue, lw=1.5, label="mixture")
        right.plot(softmax, color=orange, lw=1, ls="--", label="256-way softmax fitted to the samples")
        right.set(xlabel="byte", xlim=(-4, 259), ylim=(0, None))
        bits = [-(masses * q.clamp(min=1e-30).log2()).sum() for q in (masses, softmax)]
        right.set_title(f"bits for a new value: mixture {bits[0]:.2f}, softmax {bits[1]:.2f}", fontsize=9)
        left.legend(frameon=False, fontsize=8, loc="upper left")
        right.legend(frameon=False, fontsize=8, loc="upper left")
        return figure


def newest_upload(value) -> tuple[str, bytes]:
    """Name and bytes from a FileUpload's value: in ipywidgets 7 a dict by name, in 8 a tuple."""
    file = list(value.values() if isinstance(value, dict) else value)[-1]
    return file["metadata"]["name"] if "metadata" in file else file["name"], bytes(file["content"])


class EvidenceLens(Panel):
    """A picture classified by Bayes' rule, and each pixel's evidence for one class against another.

    Cover a part with grey and see the decision move. The picture is one of the data set's or an uploaded file.

    Args:
        model: judges.
        dataset: where the pictures come from; UsageError if they have not the model's size.
    """

    def __init__(self, model: ConditionalPixelCNN, dataset: ImageDataset):
        from ipywidgets import FileUpload, HBox, IntRangeSlider, IntSlider, SelectionSlider

        figures.style()
        _check_sizes(model, dataset)
        self.model, self.dataset = model, dataset
        self.image, self.title, size = dataset[0][0], self._title(0), model.config.image_size
        self.upload = FileUpload(accept="image/*", multiple=False, description="upload a picture")
        self.upload.layout.width = "200px"
        self.upload.observe(self._on_upload, names="value")
        controls = {
            "picture": IntSlider(0, min=0, max=len(dataset) - 1),
            "label": SelectionSlider(options=[("the likeliest", -1), *options_of(model)], description="evidence for"),
            "against": SelectionSlider(options=[("the second", -1), *options_of(model)]),
            "rows": IntRangeSlider(value=(0, 0), min=0, max=size, description="cover rows"),
            "columns": IntRangeSlider(value=(0, size), min=0, max=size, description="cover columns"),
        }
        picture, label, against, rows, columns = controls.values()
        layout = [HBox([picture, self.upload]), HBox([label, against]), HBox([rows, columns])]
        super().__init__(self._draw, controls, layout)

    def _title(self, n: int) -> str:
        label = self.dataset[n][1]
        return f"picture {n}" + ("" if label == UNKNOWN else f", a {self.dataset.classes[label]}")

    def _on_change(self, change) -> None:
        if change["owner"] is self.controls["picture"]:
            self.image, self.title = self.dataset[change["new"]][0], self._title(change["new"])
            self.say("")
        self.redraw()

    def _on_upload(self, change) -> None:
        name, content = newest_upload(change["new"])
        try:
            image, remark = read_upload(content, self.model.config.image_size)
        except UsageError as error:
            self.say(f"{name} is refused: {error}")
            return
        self.image, self.title = to_float(image), name
        self.say(f"{name}: {remark}")
        self.redraw()

    def _draw(self, picture: int, label: int, against: int, rows: tuple[int, int], columns: tuple[int, int]):
        import matplotlib.pyplot as plt

        names = self.model.class_names
        covered = self.image.clone()
        covered[:, slice(*rows), slice(*columns)] = mixture.to_levels(torch.tensor(0.0))
        nats = class_log_likelihoods(self.model, torch.stack([self.image, covered])).cpu().double()  # (2, C)
        before, after = log_posterior(nats).exp().numpy()
        order = nats[0].argsort(descending=True).tolist()
        label = order[0] if label < 0 else label
        against = next(c for c in order if c != label) if against < 0 else against
        evidence = evidence_map(self.model, covered, label, against).cpu()  # (S, S)

        figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), width_ratios=(1, 1.2, 1.25))
        axes[0].imshow(figures.to_picture(covered))
        axes[0].set_title(self.title, fontsize=9, parse_math=False)
        places = range(len(names))
        axes[1].barh(places, after, color=figures.PALETTE[4], label="as shown")
        axes[1].barh(places, before, fill=False, edgecolor="black", lw=1, label="nothing covered")
        for n, behind in enumerate(nats[1] - nats[1].max()):
            axes[1].text(1.02, n, f"{after[n]:.1%}\n{behind:+.1f} nats", va="center", fontsize=8)
        axes[1].set(yticks=places, yticklabels=names, xlim=(0, 1), xlabel="probability")
        axes[1].invert_yaxis()
        axes[1].set_title(f"taken for {names[int(after.argmax())]}", fontsize=9)
        axes[1].legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=2, frameon=False)
        limit = max(float(evidence.abs().flatten().quantile(0.99)), 0.01)
        shown = axes[2].imshow(evidence, cmap="PuOr", vmin=-limit, vmax=limit)
        axes[2].set_title(f"purple for {names[label]}, orange for {names[against]}: {evidence.sum():+.1f}", fontsize=9)
        figure.colorbar(shown, ax=axes[2], label="nats", shrink=0.8)
        axes[0].set(xticks=[], yticks=[])
        axes[2].set(xticks=[], yticks=[])
        return figure
