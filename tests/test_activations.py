"""Which activations the samplers compute, and the animation of it."""

import io

import numpy as np
import pytest
from conftest import small_model
from PIL import Image

from kit.widgets.activations import animation, show_activations, times_computed, watch_cached, watch_naive


@pytest.mark.parametrize("nr_resnet", [1, 2])
def test_the_cached_sampler_computes_every_activation_once(nr_resnet):
    steps = watch_cached(small_model(nr_resnet=nr_resnet))
    assert len(steps) == 8 * 9
    counts = times_computed(steps)
    assert {key: len(n) for key, n in counts.items()} == {
        (stream, s): 8 >> s for stream in ("u", "ul") for s in range(3)
    }
    assert all((n == 1).all() for n in counts.values())


def test_the_naive_sampler_computes_every_activation_for_every_pixel():
    model = small_model()
    steps = watch_naive(model)
    assert len(steps) == 64 and all((n == 64).all() for n in times_computed(steps).values())
    assert not model._forward_pre_hooks and not any(module._forward_hooks for module in model.modules())


def test_steps_say_where_the_sampler_is():
    steps = watch_cached(small_model())
    assert steps[0].title == "row 0 begins: u, whole rows" and steps[1].title == "pixel (0, 0): ul"
    computed = {key: np.argwhere(n).tolist() for key, n in steps[9 * 2 + 3].counts.items()}  # pixel (2, 2)
    nothing = {("u", scale): [] for scale in range(3)}
    assert steps[9 * 2 + 3].title == "pixel (2, 2): ul"
    assert computed == nothing | {("ul", 0): [[2, 2]], ("ul", 1): [[1, 1]], ("ul", 2): []}


def test_the_animation_shows_slow_rows_step_by_step_then_pixels_in_twos(monkeypatch):
    steps = watch_cached(small_model())
    with Image.open(io.BytesIO(animation(steps))) as gif:
        assert gif.format == "GIF" and gif.n_frames == 4 * 9 + 4 * 5
        gif.seek(gif.n_frames - 1)
        assert gif.info["duration"] == 2500
    seen = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: seen.append(data))
    show_activations(steps[:18], slow_rows=1)
    assert seen[0]["image/gif"] == seen[0]["image/png"] and seen[0]["text/plain"]
