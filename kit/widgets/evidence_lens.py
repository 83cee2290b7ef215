"""A picture, the posterior of its class, and where in the picture it comes from."""

import functools

import torch
from torch import Tensor

from utils import UsageError, figures, mixture
from utils.classify import class_log_likelihoods, evidence_map, log_posterior
from utils.data import UNKNOWN, ImageDataset, to_float
from utils.model import ConditionalPixelCNN

from .base import Panel, matched, options_of
from .upload import newest_upload, read_upload

SHOWN = 8  # classes in the bar chart: of more the likeliest


def evidence_means(evidence: Tensor) -> Tensor:
    """What is drawn: the mean of the 3x3 pixels around each, since single ones are too noisy to read. (N, S, S)."""
    return torch.nn.functional.avg_pool2d(evidence, 3, stride=1, padding=1, count_include_pad=False)


def evidence_limit(evidence: Tensor) -> float:
    """The end of the colour scale that all maps compared share: the 99 % quantile of |nats|. (..., H, W) -> nats"""
    return max(float(evidence.abs().flatten().quantile(0.99)), 0.01)  # a scale has a width, though all be 0


def evidence_title(label: str, against: str, nats: float) -> str:
    """Which colour speaks for which class, and the sum of the map."""
    return f"purple: {figures.plain(label)}\norange: {figures.plain(against)}\n{nats:+.1f} nats"


@functools.cache
def evidence_colours():
    """Orange, nothing, purple: where there is little evidence the picture shows through, and the bar is pale too."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    places = torch.linspace(0, 1, 255).numpy()
    colours = colormaps["PuOr"](places)
    colours[:, 3] = abs(2 * places - 1) ** 0.5
    return ListedColormap(colours, "evidence")


def show_evidence(axes, images: Tensor, evidence: Tensor, limit: float | None = None):
    """Maps (N, S, S), in nats, over their pictures (N, 3, S, S) in [-1, 1], paled: purple is for the class that the map
    speaks for, orange against it. Means of 3x3 pixels are drawn, on one scale that ends at `limit`, by default at their
    own `evidence_limit`. -> what a colour bar needs"""
    means = evidence_means(evidence)
    limit = evidence_limit(means) if limit is None else limit
    for axis, image, nats in zip(axes, images, means, strict=True):
        axis.imshow(image.mean(dim=0), cmap="gray", vmin=-7, vmax=1)
        shown = axis.imshow(nats, cmap=evidence_colours(), vmin=-limit, vmax=limit)
        axis.axis("off")
    return shown


class EvidenceLens(Panel):
    """A picture classified by Bayes' rule, and each pixel's evidence for one class (purple) against another (orange).

    Cover a part with grey and see the decision move; the map's scale stays that of the whole picture. The picture is
    one of the data set's or an uploaded file.

    Args:
        model: judges; UsageError if it knows one class only.
        dataset: where the pictures come from; UsageError if none do, or they have not the model's size or classes.
    """

    def __init__(self, model: ConditionalPixelCNN, dataset: ImageDataset):
        from ipywidgets import FileUpload, HBox, IntRangeSlider, IntSlider, SelectionSlider

        figures.style()
        if model.config.num_classes < 2:
            raise UsageError("the evidence lens compares two classes, and the model knows only one: give another model")
        dataset = matched(model, dataset)
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
        return f"picture {n}" + ("" if label == UNKNOWN else f", a {figures.drawable(self.dataset.classes)[label]}")

    def _on_change(self, change) -> None:
        if change["owner"] is self.controls["picture"]:
            self.image, self.title = self.dataset[change["new"]][0], self._title(change["new"])
            self.say("")
        self.redraw()

    def _on_upload(self, change) -> None:
        if not change["new"]:  # the button was emptied: the last picture stays
            return
        name, content = newest_upload(change["new"])
        try:
            image, remark = read_upload(content, self.model.config.image_size)
        except UsageError as error:
            self.say(f"{name} is refused: {error}")
            return
        self.image, self.title = to_float(image), figures.shortened(name, 30)
        self.say(f"{name}: {remark}")
        self.redraw()

    def _draw(self, picture: int, label: int, against: int, rows: tuple[int, int], columns: tuple[int, int]):
        import matplotlib.pyplot as plt

        drawable = figures.drawable(self.model.class_names)
        names = [figures.plain(name) for name in drawable]
        covered = self.image.clone()
        covered[:, slice(*rows), slice(*columns)] = mixture.to_levels(torch.tensor(0.0))
        nats = class_log_likelihoods(self.model, torch.stack([self.image, covered])).cpu().double()  # (2, C)
        before, after = log_posterior(nats).exp().numpy()
        order = nats[0].argsort(descending=True).tolist()
        label = order[0] if label < 0 else label
        against = next(c for c in order if c != label) if against < 0 else against
        whole, evidence = (evidence_map(self.model, x, label, against).cpu() for x in (self.image, covered))  # (S, S)
        limit = evidence_limit(evidence_means(whole[None]))  # the same whatever is covered

        figure, axes = plt.subplots(1, 3, figsize=(9.8, 3.2), width_ratios=(1, 1.2, 1.25))
        axes[0].imshow(figures.to_picture(covered))
        axes[0].set_title(figures.plain(self.title), fontsize=9)
        bars = nats[1].argsort(descending=True).tolist()[:SHOWN] if len(names) > SHOWN else list(range(len(names)))
        places, behind = range(len(bars)), nats[1] - nats[1].max()
        axes[1].barh(places, after[bars], color=figures.PALETTE[4], label="as shown")
        axes[1].barh(places, before[bars], fill=False, edgecolor="black", lw=1, label="nothing covered")
        for place, c in enumerate(bars):
            axes[1].text(
                1.02, place, f"{after[c]:.1%}\n{behind[c]:+.1f} nats", va="center", fontsize=min(9, 60 / len(bars))
            )
        axes[1].set(yticks=places, yticklabels=[names[c] for c in bars], xlim=(0, 1), xlabel="probability")
        axes[1].invert_yaxis()
        axes[1].set_title(f"taken for {names[int(after.argmax())]}", fontsize=9)
        axes[1].legend(fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=2, frameon=False)
        shown = show_evidence(axes[2:], covered[None], evidence[None], limit)
        axes[2].set_title(evidence_title(drawable[label], drawable[against], float(evidence.sum())), fontsize=9)
        figure.colorbar(shown, ax=axes[2], label="nats a pixel", shrink=0.8)
        axes[0].axis("off")
        return figure
