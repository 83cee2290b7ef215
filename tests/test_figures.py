"""Names in pictures: what the font has is written, what it lacks is numbered, and nothing is taken for a formula."""

import sys
import unicodedata
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import random_pictures
from PIL import Image

from utils import figures
from utils.figures import drawable, gallery, plain, shortened


@pytest.fixture(autouse=True)
def _nothing_said_yet():
    for cached in (figures.drawable, figures.can_draw, figures.lettering):
        cached.cache_clear()


def sheet(*names: str, zoom: int = 3) -> np.ndarray:
    """A gallery of one 32x32 picture for each name."""
    images = random_pictures(len(names), 32).float()
    return np.asarray(gallery(images, torch.arange(len(names)), names, zoom).convert("L"))


@pytest.mark.parametrize("name", ["Käsespätzle", "Борщ", "σουβλάκι", "smørrebrød", "phở", "a b", "l'œuf", "50 %"])
def test_letters_that_the_font_has_are_written(name, capsys):
    assert drawable((name, "x")) == (name, "x")
    assert drawable((unicodedata.normalize("NFD", name), "x")) == (name, "x"), "as macOS keeps it"
    assert not capsys.readouterr().err
    other = name.translate({ord(c): "ц" for c in name if ord(c) > 127})
    assert other == name or not np.array_equal(sheet(name), sheet(other)), "no box in place of each"


@pytest.mark.parametrize(
    "name", ["寿司", "ข้าวผัด", "떡볶이", "🍕", "חומוס", "כ\u200fx", "a\nb", "\ud800", " ", "\u200b"]
)
def test_names_that_cannot_be_drawn_are_numbered(name, capsys):
    assert drawable(("rice", name)) == ("rice", "class 1")
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("note: the font lacks ") == bool(name.strip()) and said.endswith(f": class 1 is {name!r}")
    assert np.array_equal(sheet("rice", name), sheet("rice", "class 1"))
    assert not capsys.readouterr().err, "once for a set of names"


def test_the_note_names_letters_and_is_short(capsys):
    drawable(tuple(chr(0x4E00 + n) * 2 for n in range(50)))
    said = capsys.readouterr().err
    assert "lacks '一', '丁', " in said and "and 40 more, so pictures show numbers: class 0 is '一一', class 1" in said
    assert said.endswith("class 9 is '三三' and 40 more\n")


def test_no_two_classes_look_alike(capsys):
    assert drawable(("class 1", "寿司")) == ("class 0", "class 1")
    assert "class 0 is 'class 1', class 1 is '寿司'" in capsys.readouterr().err
    alike = tuple("long " * 10 + middle + "er " * 10 for middle in ("short", "tall"))
    assert drawable(alike) == ("class 0", "class 1") and "look alike" in capsys.readouterr().err
    assert drawable(("class 0", "class 1")) == ("class 0", "class 1") and not capsys.readouterr().err


def test_long_names_leave_room_for_the_pictures():
    assert shortened("abcdefghij", 10) == "abcdefghij" and shortened("abcdefghijk", 10) == "abcde…hijk"
    assert shortened("abcdefghijkl", 9) == "abcd…ijkl"
    assert drawable(("m" * 60, "n")) == ("m" * 10 + "…" + "m" * 9, "n")
    assert sheet("of " * 20, "n").shape[1] < 3 * 96 and sheet("burger").shape[1] < 2 * 96


def test_without_matplotlib_there_is_another_font(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert drawable(("burger", "寿司")) == ("burger", "class 1")
    assert isinstance(sheet("burger"), np.ndarray) and figures.lettering(16).getname()[0] != "DejaVu Sans"


def rendered(text: str) -> np.ndarray:
    """A legend, a title and a tick in matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas = FigureCanvasAgg(Figure(figsize=(4, 2), dpi=50))
    axis = canvas.figure.subplots()
    axis.plot([0, 1], label=text)
    axis.set_title(text)
    axis.set_yticks([0], [text])
    if axis.get_legend_handles_labels()[1]:
        axis.legend()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()


@pytest.mark.parametrize(
    "name", ["$x_1$", r"$\frac$", "a$b$c", "$", r"\$", "$$", r"50 \% of $5", "_hidden", "^", "寿司"]
)
def test_matplotlib_shows_any_name_letter_by_letter(name):
    from matplotlib import rc_context

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = rendered(plain(name))
        with rc_context({"text.parse_math": False}):
            expected = rendered({"_hidden": " _hidden", "寿司": "??"}.get(name, name))
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, rendered("")), "the legend has it"


def test_titles_of_pictures_are_no_formulas():
    images = random_pictures(1).float()
    figure = figures.show_images(images, ["$x$\n寿"])
    assert figure.axes[0].get_title() == "\\$x\\$\n?"
    figure.clear()
    plt.close(figure)


def test_shortened_names_stay_apart():
    long = "golden_retriever_puppy_with_a_toy_in_the_garden"
    assert figures.all_shortened(["owl", long], 20) == ["owl", "golden_ret…he_garden"]
    both = [long, long.replace("with_a_toy", "who_sleeps")]
    assert figures.all_shortened(both, 20) == both


def test_a_gallery_has_a_row_for_each_class_beside_its_name():
    """The names' margin is white but for the letters; each row begins where the last one ends."""
    images = torch.full((3, 3, 4, 4), -1.0)  # black
    picture = gallery(images, torch.tensor([0, 1, 1]), ("é", "ü"), zoom=10)
    assert isinstance(picture, Image.Image)
    grey = np.asarray(picture.convert("L"))
    margin = grey.shape[1] - 2 * (40 + 20)
    assert grey.shape[0] == 20 + 2 * 60 and (grey[20:60, margin : margin + 40] == 0).all()
    assert (grey[80:120, margin + 60 : margin + 100] == 0).all() and (grey[20:60, margin + 60 :] == 255).all()
    first, second = grey[20:60, :margin], grey[80:120, :margin]
    assert (first < 128).any() and (second < 128).any() and not np.array_equal(first, second)
