"""The widgets without a browser: what is shown changes when a control moves."""

import io
import time

import ipywidgets
import matplotlib
import pytest
import torch
from conftest import small_model
from PIL import Image

from utils import widgets
from utils.sampling import generate
from utils.widgets import ClassSlider, explore

matplotlib.use("agg")


@pytest.fixture
def shown(monkeypatch) -> list:
    """What `show` was given, instead of a notebook's display."""
    calls: list = []
    monkeypatch.setattr(widgets, "show", lambda widget, png: calls.append((widget, png)))
    return calls


def wait_for(condition, seconds=20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def pixels(png: bytes) -> tuple:
    with Image.open(io.BytesIO(png)) as picture:
        return picture.size, picture.tobytes()


def test_show_gives_a_widget_and_a_picture_for_readers_without_a_kernel(monkeypatch):
    seen = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: seen.append(data))
    button = ipywidgets.Button()
    widgets.show(button, b"png")
    assert seen[0]["application/vnd.jupyter.widget-view+json"]["model_id"] == button.model_id
    assert seen[0]["image/png"] == "cG5n"


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
    assert not plt.get_fignums(), "a figure left open is shown twice"


def test_the_class_slider_draws_what_generate_draws(shown):
    model = small_model(torch.float32, fusion="all")
    slider = ClassSlider(model, zoom=1)
    first = slider.picture.value
    assert shown == [(shown[0][0], first)]
    labels = torch.full((4,), 2)
    expected = slider._png(generate(model, labels, generator=torch.Generator().manual_seed(0)), labels)
    assert pixels(first) != pixels(expected)
    slider.controls["label"].value = 2
    wait_for(lambda: pixels(slider.picture.value) == pixels(expected))
    slider.controls["label"].value = 0  # the same setting, the same picture
    wait_for(lambda: pixels(slider.picture.value) == pixels(first))


def test_a_new_setting_interrupts_the_drawing(shown, monkeypatch):
    model = small_model(torch.float32)
    slider = ClassSlider(model, zoom=1)
    rows: list = []

    def slow(model, labels, generator, temperature, on_row):
        for row in range(model.config.image_size):
            rows.append((temperature, row))
            time.sleep(0.05)
            on_row(row, torch.zeros(len(labels), 3, 8, 8))

    monkeypatch.setattr(widgets, "generate", slow)
    slider.controls["temperature"].value = 0.5
    wait_for(lambda: (0.5, 1) in rows)
    slider.controls["temperature"].value = 0.7
    wait_for(lambda: (0.7, 7) in rows)
    assert (0.5, 7) not in rows
