"""The widgets without a browser: what is shown changes when a control moves."""

import base64
import io
import math
import re
import threading
import time
import warnings

import ipywidgets
import matplotlib
import numpy as np
import pytest
import torch
from conftest import pixels, random_pictures, small_model, wait_for
from PIL import Image

from kit.widgets import (
    ClassSlider,
    Completion,
    EvidenceLens,
    MixtureExplorer,
    base,
    class_slider,
    drawing,
    evidence_lens,
    explore,
)
from kit.widgets.base import to_png
from kit.widgets.evidence_lens import evidence_limit, evidence_title, show_evidence
from kit.widgets.upload import newest_upload
from utils import UsageError, figures, mixture
from utils.classify import class_log_likelihoods
from utils.data import CPEN455_CLASSES, UNKNOWN, ImageDataset, to_bytes
from utils.sampling import generate

matplotlib.use("agg")


@pytest.fixture
def shown(monkeypatch) -> list:
    """What `show` was given, instead of a notebook's display."""
    calls: list = []
    monkeypatch.setattr(base, "show", lambda widget, png, update: calls.append((widget, png)))
    return calls


def pictures(count: int = 4, size: int = 8, classes: tuple[str, ...] = CPEN455_CLASSES[:3]) -> ImageDataset:
    images = to_bytes(random_pictures(count, size))
    return ImageDataset(images, torch.arange(count) % len(classes), classes, [str(n) for n in range(count)])


def as_file(array: np.ndarray, form: str = "PNG", **how) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format=form, **how)
    return buffer.getvalue()


def test_show_gives_a_widget_and_a_picture_for_readers_without_a_kernel(monkeypatch):
    seen = []
    monkeypatch.setattr("IPython.display.display", lambda data, **how: seen.append((data, how)))
    button = ipywidgets.Button()
    small, sharp = as_file(np.zeros((2, 4, 3), np.uint8)), as_file(np.zeros((2, 4, 3), np.uint8), dpi=(200, 200))
    base.show(button, small)
    base.show(button, sharp, update=True)
    assert seen[0][0]["application/vnd.jupyter.widget-view+json"]["model_id"] == button.model_id
    assert [base64.b64decode(data["image/png"]) for data, _ in seen] == [small, sharp]
    assert [how["metadata"] for _, how in seen] == [None, {"image/png": {"width": 2}}]
    assert [how["update"] for _, how in seen] == [False, True] and seen[0][1]["display_id"] == seen[1][1]["display_id"]


def test_explore_redraws(shown):
    import matplotlib.pyplot as plt

    drawn = []

    def draw(height):
        drawn.append(height)
        figure, axis = plt.subplots(figsize=(2, 1))
        axis.plot([0, height])
        return figure

    slider = ipywidgets.IntSlider(1, min=0, max=5)
    explore(draw, height=slider)
    (box, png), picture = shown[0], shown[0][0].children[-1]
    assert drawn == [1] and slider.description == "height" and picture.value == png and box.children[0] is slider
    slider.value = 4
    assert drawn == [1, 4] and pixels(picture.value) != pixels(png)
    assert int(picture.width) == Image.open(io.BytesIO(picture.value)).width // 2 > 100
    assert not plt.get_fignums(), "a figure left open is shown twice"


def test_a_dark_style_leaves_the_pictures_white(shown):
    import matplotlib.pyplot as plt

    with plt.style.context("dark_background"):
        explore(lambda n: plt.figure(figsize=(1, 1)), n=ipywidgets.IntSlider())
    assert Image.open(io.BytesIO(shown[0][1])).convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_the_class_slider_draws_what_generate_draws(shown):
    model = small_model(torch.float32, fusion="all")
    slider = ClassSlider(model, zoom=1)
    first = slider.picture.value
    assert shown == [(shown[0][0], first)]
    images = generate(model, torch.full((4,), 2), generator=torch.Generator().manual_seed(0))
    expected = to_png(figures.gallery(images, torch.zeros(4, dtype=torch.long), ("koala",), 1))
    assert pixels(first) != pixels(expected)
    slider.controls["label"].value = 2
    wait_for(lambda: pixels(slider.picture.value) == pixels(expected))
    slider.controls["label"].value = 0  # the same setting, the same picture
    wait_for(lambda: pixels(slider.picture.value) == pixels(first))
    assert {control.style.description_width for control in slider.controls.values()} == {"initial"}


def test_a_new_setting_interrupts_the_drawing(shown, monkeypatch):
    model = small_model(torch.float32)
    slider = ClassSlider(model, zoom=1)
    rows: list = []

    def slow(model, labels, generator, temperature, on_row):
        for row in range(model.config.image_size):
            rows.append((temperature, row))
            time.sleep(0.05)
            on_row(row, torch.zeros(len(labels), 3, 8, 8))

    monkeypatch.setattr(class_slider, "generate", slow)
    slider.controls["temperature"].value = 0.5
    wait_for(lambda: (0.5, 1) in rows)
    assert slider.save.disabled, "an unfinished picture is not to be saved"
    slider.controls["temperature"].value = 0.7
    wait_for(lambda: (0.7, 7) in rows)
    assert (0.5, 7) not in rows
    wait_for(lambda: not slider.save.disabled)


def test_of_rows_that_come_at_once_the_first_and_the_last_are_shown(shown, monkeypatch):
    slider, rows = ClassSlider(small_model(torch.float32), zoom=1), [torch.full((4, 3, 8, 8), n / 8) for n in range(8)]
    monkeypatch.setattr(drawing, "PAUSE", 60.0)
    monkeypatch.setattr(
        class_slider, "generate", lambda *_, on_row, **__: [on_row(n, row) for n, row in enumerate(rows)]
    )
    seen = []
    slider.picture.observe(lambda change: seen.append(pixels(change["new"])), names="value")
    slider.redraw()
    names = slider.class_names[:1]
    expected = [figures.gallery(row, torch.zeros(4, dtype=torch.int64), names, 1) for row in (rows[0], rows[-1])]
    assert seen == [pixels(to_png(picture)) for picture in expected]


def test_saving_writes_the_picture_that_is_shown_and_says_where(shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = small_model(torch.float32)
    model.class_names = ("../../a", "b", "c")
    slider = ClassSlider(model, zoom=1)
    slider.save.click()
    (file,) = (tmp_path / "samples").iterdir()
    assert file.read_bytes() == slider.picture.value
    assert slider.note.value == "saved as samples/0_..-..-a_temperature1.0_seed0_count4.png"
    file.unlink()
    (tmp_path / "samples").rmdir()
    (tmp_path / "samples").write_text("a file is in the way")
    slider.save.click()
    assert slider.note.value.startswith("cannot save samples/")


def test_names_that_are_one_file_name_do_not_overwrite_each_other(shown, tmp_path, monkeypatch):
    """Here they differ in a letter that no file name may have, or on some disks, or are longer than a disk takes."""
    monkeypatch.chdir(tmp_path)
    model = small_model(torch.float32, num_classes=5)
    model.class_names = ("a b", "a/b", "A b", "ё" * 200 + "x", "ё" * 200 + "y")
    slider = ClassSlider(model, zoom=1)
    for label in range(5):
        slider.controls["label"].value = label
        wait_for(lambda label=label: not slider.save.disabled and slider.drawn["label"] == label)
        slider.save.click()
        assert slider.note.value.startswith("saved as")
    names = [path.name for path in (tmp_path / "samples").iterdir()]
    assert len({name.casefold() for name in names}) == 5 and max(len(name.encode()) for name in names) < 100


def test_completion_keeps_what_is_given_and_scores_the_rest(shown, monkeypatch):
    model, dataset = small_model(torch.float32, fusion="all"), pictures()
    sheets: list = []
    draw = base.captioned
    monkeypatch.setattr("kit.widgets.completion.captioned", lambda *given: sheets.append(given[:2]) or draw(*given))
    panel = Completion(model, dataset, zoom=1)
    assert panel.controls["label"].value == 0 and len(shown) == 1
    first = panel.picture.value
    panel.controls["picture"].value = 1
    panel.controls["label"].value = 2
    panel.controls["given"].value = 3
    wait_for(lambda: not panel.save.disabled and panel.drawn == panel.values())
    assert pixels(panel.picture.value) != pixels(first)

    images, captions = sheets[-1]  # given, four completions, the truth
    truth = dataset[1][0]
    assert torch.equal(to_bytes(images[:5, :, :3]), to_bytes(truth[:, :3].expand(5, -1, -1, -1)))
    assert (images[0, :, 3:] == 1).all() and torch.equal(images[5], truth)
    assert len({row.numpy().tobytes() for row in images[1:5, :, 3:]}) == 4, "four different completions"
    with torch.no_grad():
        by_pixel = mixture.log_prob(
            model.double()(images[1:].double(), torch.full((5,), 2)), images[1:].double(), False
        )
    for caption, nats in zip(captions[1:], by_pixel[:, 3:].sum(dim=(1, 2)).tolist(), strict=True):
        said, bits = map(float, re.search(r"(-?\d+) nats\n(.+) bits/dim", caption).groups())
        assert said == pytest.approx(nats, abs=0.6) and bits == pytest.approx(
            -nats / (3 * 5 * 8 * math.log(2)), abs=0.006
        )


def grown(page, panel, name: str, **state) -> list:
    """Moves a control on Colab's page; -> the pictures that came there, of all that were drawn."""
    before = len(page.shown(panel.picture))
    page.move(panel.controls[name], **state)
    wait_for(lambda: not panel.save.disabled and panel.drawn == panel.values())
    return [pixels(png) for png in page.shown(panel.picture)[before:]]


def test_the_class_slider_moves_on_colab(shown, colab, monkeypatch):
    monkeypatch.setattr(drawing, "PAUSE", 0.0)
    model = small_model(torch.float32, fusion="all")
    with colab.cell():
        slider = ClassSlider(model, zoom=1)
    images = generate(model, torch.full((4,), 2), generator=torch.Generator().manual_seed(0))
    expected = to_png(figures.gallery(images, torch.zeros(4, dtype=torch.long), ("koala",), 1))
    rows = grown(colab, slider, "label", index=2)
    assert rows[-1:] == [pixels(expected)]
    assert len(set(rows)) == 8, "one after the other"
    assert colab.shown(slider.save, "disabled")[-2:] == [True, False]
    assert not any(control.continuous_update for control in slider.controls.values())


def test_completion_moves_on_colab(shown, colab, monkeypatch):
    monkeypatch.setattr(drawing, "PAUSE", 0.0)
    model, dataset, draw, sheets = small_model(torch.float32, fusion="all"), pictures(), base.captioned, []
    with colab.cell():
        panel = Completion(model, dataset, zoom=1)
    monkeypatch.setattr("kit.widgets.completion.captioned", lambda *given: sheets.append(given) or draw(*given))
    rows = grown(colab, panel, "given", value=3)
    assert rows[-1:] == [pixels(to_png(draw(*sheets[-1])))]
    assert len(set(rows)) >= 6, "five rows, then the numbers"
    prefix = dataset[0][0][None, :, :3]
    images = generate(
        model, torch.zeros(4, dtype=torch.long), generator=torch.Generator().manual_seed(0), prefix=prefix
    )
    assert torch.equal(sheets[-1][0][1:5], images)
    assert not any(control.continuous_update for control in panel.controls.values())


def test_on_colab_a_callback_interrupts_the_drawing(shown, colab, monkeypatch):
    rows: list = []

    def observed(model, labels, generator, temperature, on_row):
        for row in range(4):
            rows.append((temperature, row))
            on_row(row, torch.full((len(labels), 3, 8, 8), row / 8))

    with colab.cell():
        slider = ClassSlider(small_model(torch.float32), zoom=1)
    monkeypatch.setattr(class_slider, "generate", observed)
    slider.picture.observe(lambda _change: slider.controls["temperature"].set_trait("value", 0.7), names="value")
    grown(colab, slider, "temperature", value=0.5)
    assert rows == [(0.5, 0), *((0.7, row) for row in range(4))] and slider.drawn["temperature"] == 0.7


@pytest.mark.parametrize("platform", ["laptop", "kaggle"])
def test_elsewhere_a_thread_draws(shown, monkeypatch, platform):
    monkeypatch.setattr(base, "platform_name", lambda: platform)
    slider, threads = ClassSlider(small_model(torch.float32), zoom=1), []
    assert all(slider.controls[name].continuous_update for name in ("label", "temperature", "count"))
    monkeypatch.setattr(class_slider, "generate", lambda *_given, **_how: threads.append(threading.current_thread()))
    slider.controls["seed"].value = 1
    wait_for(lambda: threads)
    assert threads[0] is not threading.main_thread()


def test_every_drawing_takes_one_core_and_gives_the_others_back(shown, monkeypatch):
    cores: list = []
    monkeypatch.setattr(class_slider, "generate", lambda *_given, **_how: cores.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        slider = ClassSlider(small_model(torch.float32), zoom=1)
        slider.controls["seed"].value = 1
        wait_for(lambda: len(cores) == 2 and not slider.save.disabled)
        assert cores == [1, 1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_pictures_of_another_size_are_refused(shown):
    for widget in (Completion, EvidenceLens):
        with pytest.raises(UsageError, match="reads 8x8 pictures, not 12x12: choose image_size=8"):
            widget(small_model(torch.float32), pictures(size=12))


def test_data_without_pictures_are_refused(shown):
    for widget in (Completion, EvidenceLens):
        with pytest.raises(UsageError, match="no pictures"):
            widget(small_model(torch.float32), pictures(count=0))


def test_labels_meet_by_name(shown):
    """The data set counts koala, burger, panda; the model burger, panda, koala."""
    model, dataset = small_model(torch.float32), pictures(classes=("koala", "burger", "panda"))
    assert Completion(model, dataset).controls["label"].value == 2
    lens = EvidenceLens(model, dataset)
    assert [lens._title(n) for n in range(3)] == [f"picture {n}, a {dataset.classes[n]}" for n in range(3)]
    assert lens.dataset.labels.tolist() == [2, 0, 1, 2]
    for widget in (Completion, EvidenceLens):
        with pytest.raises(UsageError, match="cat, dog, cow; the model has others: burger, panda, koala"):
            widget(model, pictures(classes=("cat", "dog", "cow")))


def test_without_names_or_labels_it_goes_on_by_number(shown):
    names = ("cat", "dog", "cow")
    unknown = pictures(classes=names)
    unknown.labels[:] = UNKNOWN
    built = small_model(torch.float32)
    built.class_names = ("0", "1", "2")
    more = pictures(count=4, classes=(*names, "hen"))
    for model, dataset, label in [(small_model(torch.float32), unknown, 0), (built, pictures(classes=names), 0)]:
        assert Completion(model, dataset).controls["label"].value == label
        assert EvidenceLens(model, dataset).dataset is dataset
    for widget in (Completion, EvidenceLens):
        with pytest.raises(UsageError, match="hen; the model has others: 0, 1, 2"):
            widget(built, more)


def test_a_model_of_one_class(shown):
    model, dataset = small_model(torch.float32, num_classes=1), pictures(classes=("burger",))
    assert ClassSlider(model, zoom=1).picture.value and Completion(model, dataset, zoom=1).picture.value
    with pytest.raises(UsageError, match="compares two classes"):
        EvidenceLens(model, dataset)


def test_the_lens_of_many_classes_shows_the_likeliest(shown, monkeypatch):
    import matplotlib.pyplot as plt

    names = tuple(f"kind {n}" for n in range(40))
    model = small_model(torch.float32, num_classes=40, fusion="all")
    model.class_names = names
    drawn: list = []
    monkeypatch.setattr(plt, "close", lambda figure: drawn.append(figure))
    lens = EvidenceLens(model, pictures(classes=names))
    order = class_log_likelihoods(model, lens.image[None])[0].argsort(descending=True).tolist()
    assert [tick.get_text() for tick in drawn[-1].axes[1].get_yticklabels()] == [names[c] for c in order[:8]]
    widths = [bar.get_width() for bar in drawn[-1].axes[1].patches[:8]]
    assert widths == sorted(widths, reverse=True)


def test_pictures_name_classes_that_the_font_cannot_draw_by_number(shown, monkeypatch):
    """Nor is `$` a formula, in the names of classes and of uploaded files."""
    import matplotlib.pyplot as plt

    names = ("寿司", r"$\frac$", "_c")
    model = small_model(torch.float32)
    model.class_names = names
    dataset, drawn, heads, draw = pictures(classes=names), [], [], base.captioned
    monkeypatch.setattr(plt, "close", lambda figure: drawn.append(figure))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # glyphs that are missing
        lens = EvidenceLens(model, dataset)
        assert lens.title == "picture 0, a class 0"
        shown_names = [tick.get_text().strip().replace("\\$", "$") for tick in drawn[-1].axes[1].get_yticklabels()]
        assert shown_names == ["class 0", names[1], "_c"]
        lens._on_upload({"new": ({"name": r"$\frac$ 寿司.png", "content": as_file(np.zeros((8, 8, 3), np.uint8))},)})
    monkeypatch.setattr("kit.widgets.completion.captioned", lambda *given: heads.append(given[1][1]) or draw(*given))
    Completion(model, dataset, zoom=1)
    assert heads[-1].startswith("class 0\n")
    model.class_names = ("tea", "rice", "寿司")
    slider = ClassSlider(model, zoom=1)
    images = generate(model, torch.full((4,), 2), generator=torch.Generator().manual_seed(0))
    sheet = to_png(figures.gallery(images, torch.zeros(4).long(), ("class 2",), 1))
    slider.controls["label"].value = 2
    wait_for(lambda: pixels(slider.picture.value) == pixels(sheet))


def test_the_mixture_explorer_shows_the_masses_of_its_sliders(shown):
    panel = MixtureExplorer()
    settings = {"weight_1": 0.2, "mean_1": -1.2, "log_scale_2": -2.9, "weight_3": 0.5}
    for name, value in settings.items():
        before = panel.picture.value
        panel.controls[name].value = value
        assert pixels(panel.picture.value) != pixels(before), name
    edges = torch.tensor([-math.inf, *((2 * v - 254) / 255 for v in range(255)), math.inf], dtype=torch.float64)
    expected = torch.zeros(256, dtype=torch.float64)
    for weight, mean, log_scale in [(0.2, -1.2, -2.2), (0.3, 0.98, -2.9), (0.5, 0.4, -4.0)]:  # they sum to 1
        expected += weight * torch.sigmoid((edges - mean) / math.exp(log_scale)).diff()
    masses = panel.masses(panel.values())
    assert torch.allclose(masses.double(), expected, rtol=1e-4, atol=1e-7)

    panel.controls["samples"].value = 10_000
    counts = panel.draws(panel.values())
    likely = expected > 1e-3
    chi = ((counts - 10_000 * expected)[likely] ** 2 / (10_000 * expected[likely])).mean()
    assert counts.sum() == 10_000 and chi < 2
    softmax = panel.fitted_softmax(counts)
    assert softmax[counts == 0].max() < 1 / 256 < softmax[counts.argmax()] and float(softmax.sum()) == pytest.approx(1)
    nothing = panel.values() | {f"weight_{n}": 0.0 for n in (1, 2, 3)}
    assert float(panel.masses(nothing).sum()) == pytest.approx(1), "no weight at all: three equal ones"


def test_the_same_setting_gives_the_same_picture(shown):
    lens = EvidenceLens(small_model(torch.float32, fusion="all"), pictures())
    for panel, name, other in [(MixtureExplorer(), "seed", 5), (lens, "rows", (2, 6))]:
        before, old = panel.picture.value, panel.controls[name].value
        panel.controls[name].value = other
        assert pixels(panel.picture.value) != pixels(before)
        panel.controls[name].value = old
        assert pixels(panel.picture.value) == pixels(before)


def test_the_evidence_lens_judges_what_is_left_uncovered(shown, monkeypatch):
    model, dataset = small_model(torch.float32, fusion="all"), pictures()
    judged, maps = [], []
    judge, look = evidence_lens.class_log_likelihoods, evidence_lens.evidence_map
    monkeypatch.setattr(
        evidence_lens, "class_log_likelihoods", lambda m, x: judged.append((x, judge(m, x))) or judged[-1][1]
    )
    monkeypatch.setattr(
        evidence_lens, "evidence_map", lambda *given: maps.append((given[2:], look(*given))) or maps[-1][1]
    )
    lens = EvidenceLens(model, dataset)
    lens.controls["picture"].value = 3
    lens.controls["rows"].value = (2, 5)
    lens.controls["columns"].value = (1, 4)
    (whole, covered), nats = judged[-1]
    assert torch.equal(whole, dataset[3][0])
    changed = (covered != whole).any(dim=0)
    assert changed[2:5, 1:4].all() and changed.sum() == 9 and len(covered[:, 2:5, 1:4].unique()) == 1
    (label, against), evidence = maps[-1]
    order = class_log_likelihoods(model, whole[None])[0].argsort(descending=True).tolist()
    assert [label, against] == order[:2], "the likeliest and the second of the whole picture"
    assert float(evidence.sum()) == pytest.approx(float(nats[1, label] - nats[1, against]), abs=1e-3)
    lens.controls["label"].value, lens.controls["against"].value = 2, 0
    assert maps[-1][0] == (2, 0)


def test_maps_that_are_compared_share_one_symmetric_scale():
    """Two maps of 10x10: 0 ... 99 once and 100 ... 199, negative. The 99 % quantile of 0 ... 199 is 0.99 x 199."""
    import matplotlib.pyplot as plt

    maps = torch.arange(200.0).view(2, 10, 10) * torch.tensor([1.0, -1.0])[:, None, None]
    assert evidence_limit(maps) == evidence_limit(-maps) == pytest.approx(197.01)
    assert evidence_limit(maps[0]) == pytest.approx(98.01)
    assert evidence_limit(torch.zeros(1, 10, 10)) == 0.01, "a class against itself"

    maps = torch.tensor([1.0, -5.0])[:, None, None].repeat(1, 10, 10)  # each is its own mean
    maps[0, 9, 9] = 9.0  # at the corner the mean of four pixels: (1 + 1 + 1 + 9) / 4
    figure, axes = plt.subplots(1, 2)
    last = show_evidence(axes, torch.zeros(2, 3, 10, 10), maps)
    first, second = (axis.images[-1] for axis in axes)
    assert second is last and first.get_clim() == second.get_clim() == (-5.0, 5.0)
    assert first.get_array()[0, 0] == 1 and first.get_array()[9, 9] == 3 and second.get_array()[9, 9] == -5
    for_it, against = (shown.to_rgba(shown.get_clim()[::-1])[:, :3] for shown in (first, second))
    assert (for_it == against).all() and for_it[0, 2] > for_it[0, 0] and for_it[1, 0] > for_it[1, 2], "purple is for"
    plt.close(figure)


def test_the_lens_draws_its_map_by_the_rule_of_all_maps(shown, monkeypatch):
    """Purple is for the class that its title names first, and what is covered does not change the scale."""
    import matplotlib.pyplot as plt

    calls, drawn, draw = [], [], evidence_lens.show_evidence
    monkeypatch.setattr(evidence_lens, "show_evidence", lambda *given: calls.append(given) or draw(*given))
    monkeypatch.setattr(plt, "close", lambda figure: drawn.append(figure))
    model, dataset = small_model(torch.float32, fusion="all"), pictures()
    lens = EvidenceLens(model, dataset)
    lens.controls["label"].value, lens.controls["against"].value = 2, 0
    whole = evidence_lens.evidence_map(model, dataset[0][0], 2, 0)
    limit = evidence_limit(evidence_lens.evidence_means(whole[None]))
    lens.controls["rows"].value = (0, 6)
    covered = calls[-1][1][0]
    assert torch.equal(calls[-1][2][0], evidence_lens.evidence_map(model, covered, 2, 0))
    assert [given[3] for given in calls[-2:]] == [pytest.approx(limit)] * 2, "one scale, covered or not"
    axis = drawn[-1].axes[2]
    total = float(calls[-1][2].sum())
    assert (
        axis.get_title()
        == evidence_title("koala", "burger", total)
        == f"purple: koala\norange: burger\n{total:+.1f} nats"
    )

    figure, axes = plt.subplots(1, 2)
    shown_here = draw(axes[:1], covered[None], calls[-1][2], limit)
    figure.colorbar(shown_here, ax=axes[1])
    in_lens = axis.images[-1]
    assert (in_lens.to_rgba(in_lens.get_array()) == shown_here.to_rgba(shown_here.get_array())).all()
    assert in_lens.get_clim() == (-limit, limit) and in_lens.get_alpha() is None
    ends = in_lens.to_rgba(np.array([limit, limit / 4, 0, -limit]))
    assert ends[:, 3] == pytest.approx([1, 0.5, 0, 1], abs=0.05), "a colour is as pale in the bar as in the map"
    plt.close(figure)


def upload(lens, name: str, content: bytes) -> None:
    """What both generations of FileUpload hold after a file was chosen."""
    for value in (
        ({"name": name, "type": "image/png", "size": len(content), "content": memoryview(content)},),
        {name: {"metadata": {"name": name, "type": "image/png", "size": len(content)}, "content": content}},
    ):
        assert newest_upload(value) == (name, content)
        lens._on_upload({"new": value})


def test_the_evidence_lens_takes_pictures_and_refuses_the_rest(shown):
    lens = EvidenceLens(small_model(torch.float32), pictures())
    first = lens.picture.value
    noise = np.random.default_rng(0).integers(0, 256, (30, 20, 4), dtype=np.uint8)
    upload(lens, "mine.png", as_file(noise))
    assert lens.note.value == "mine.png: a picture of 20x30 pixels, resized to 8x8, turned from mode RGBA into RGB"
    mine = lens.picture.value
    assert pixels(mine) != pixels(first) and lens.image.shape == (3, 8, 8)
    upload(lens, "<b>.txt", b"no picture at all")
    assert lens.note.value.startswith("&lt;b&gt;.txt is refused: it is no picture of a known kind: choose a PNG")
    assert lens.picture.value == mine, "what was shown stays"
    lens.controls["picture"].value = 1
    assert lens.note.value == "" and pixels(lens.picture.value) != pixels(mine)


def test_emptying_the_upload_button_leaves_the_last_picture(shown):
    lens = EvidenceLens(small_model(torch.float32), pictures())
    upload(lens, "mine.png", as_file(np.zeros((8, 8, 3), dtype=np.uint8)))
    before = lens.picture.value, lens.note.value, lens.title
    for nothing in ((), {}):  # ipywidgets 8 and 7
        lens._on_upload({"new": nothing})
        assert (lens.picture.value, lens.note.value, lens.title) == before


def test_a_real_upload_arrives(shown):
    """Through the widget's own deserialiser, as a browser sends it, whichever ipywidgets is installed."""
    lens = EvidenceLens(small_model(torch.float32), pictures())
    content = as_file(np.zeros((8, 8, 3), dtype=np.uint8))
    about = {"name": "black.png", "type": "image/png", "size": len(content), "lastModified": 0}
    if isinstance(lens.upload.value, dict):  # ipywidgets 7
        lens.upload.set_state({"_counter": 1, "metadata": [about], "data": [memoryview(content)]})
    else:
        about |= {"last_modified": 1, "content": memoryview(content)}
        lens.upload.set_state({"value": [about]})
    assert lens.note.value == "black.png: a picture of 8x8 pixels" and (lens.image == -1).all()
