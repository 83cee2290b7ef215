"""Labels of models and of data sets meet by name, never by number: the same classes in two orders."""

import shutil

import numpy as np
import pytest
import torch
from conftest import random_pictures, small_model
from PIL import Image

from kit.__main__ import main
from kit.classifier import Classifier
from utils import UsageError, checkpoints, class_order
from utils.checkpoints import save_model, with_classes
from utils.classify import class_log_likelihoods
from utils.data import CPEN455_CLASSES, load_split

OTHER = ("pizza", "burger", "koala", "panda")  # the course's classes in another order


@pytest.fixture
def two_orders(tmp_path):
    """Two files of weights that are one model: in the course's order, and with its rows laid out for `OTHER`."""
    model = small_model(torch.float32, num_classes=4)
    save_model(model, tmp_path / "course.safetensors")
    state = model.state_dict()
    for name in state:
        if name.startswith("fusion."):
            state[name] = torch.stack([state[name][CPEN455_CLASSES.index(label)] for label in OTHER])
    model.load_state_dict(state)
    model.class_names = OTHER
    save_model(model, tmp_path / "other.safetensors")
    return tmp_path / "course.safetensors", tmp_path / "other.safetensors"


def said(capsys, *command) -> str:
    capsys.readouterr()
    assert main([*map(str, command), "--device=cpu"]) == 0
    return capsys.readouterr().out


def test_a_model_renumbered_is_the_same_model():
    model, x = small_model(num_classes=4, fusion="all"), random_pictures(3)
    columns = dict(zip(CPEN455_CLASSES, class_log_likelihoods(model, x).T, strict=True))
    renumbered = with_classes(model, OTHER, "a", "b")
    assert renumbered.class_names == OTHER and model.class_names == CPEN455_CLASSES
    for name, column in zip(OTHER, class_log_likelihoods(renumbered, x).T, strict=True):
        torch.testing.assert_close(column, columns[name])
    with pytest.raises(UsageError, match="b has the classes burger, koala; a has others: burger, panda, koala, pizza"):
        with_classes(model, ("burger", "koala"), "a", "b")


def test_evaluate_and_submit_do_not_depend_on_the_order(two_orders, course_data, tmp_path, capsys):
    for n, row in enumerate((course_data / "test.csv").read_text().split()):  # an order must show
        Image.new("RGB", (64, 64), (60 * n, 255 - 60 * n, 40 * n)).save(course_data / row.split(",")[0])
    where = ["--data-root", course_data]
    reports = [said(capsys, "evaluate", "--checkpoint", file, "--dataset=cpen455", *where) for file in two_orders]
    bits_to_calibration = [report.split("\n")[1:5] for report in reports]
    assert bits_to_calibration[0] == bits_to_calibration[1] and "accuracy" in bits_to_calibration[0][1]
    for extra in ([], ["--calibrate=8"]):
        for which, file in enumerate(two_orders):
            out = tmp_path / f"{which}.csv"
            said(capsys, "submit", "--checkpoint", file, "--out", out, "--keep-log-likelihoods", *where, *extra)
        tables = [(tmp_path / f"{which}.csv").read_text() for which in (0, 1)]
        assert tables[0] == tables[1] and (extra or len({row[-1] for row in tables[0].split()}) > 1)
        np.testing.assert_allclose(*(np.load(tmp_path / f"{which}.npy") for which in (0, 1)), rtol=1e-6)


def test_the_courses_pictures_sorted_into_folders(two_orders, course_data, tmp_path, capsys):
    for split in ("train", "validation"):
        for row in (course_data / f"{split}.csv").read_text().split():
            name, label = row.split(",")
            folder = tmp_path / "sorted" / split / CPEN455_CLASSES[int(label)]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(course_data / name, folder)
    evaluate = ["evaluate", "--checkpoint", two_orders[0]]
    by_table = said(capsys, *evaluate, "--dataset=cpen455", "--data-root", course_data)
    by_folders = said(capsys, *evaluate, "--dataset=folder", "--data-root", tmp_path / "sorted")
    assert load_split("folder", "train", tmp_path / "sorted").classes == ("burger", "koala", "panda", "pizza")
    assert by_table.split("\n")[1:] == by_folders.split("\n")[1:]


def test_an_ensemble_meets_by_name(two_orders, course_data, tmp_path, capsys):
    classify = ["classify", course_data / "test/0000019.jpg", "--checkpoint"]
    once = said(capsys, *classify, two_orders[0])
    assert said(capsys, *classify, two_orders[0], "--ensemble", two_orders[1]) == once


def test_the_courses_folder_has_the_courses_numbers(tmp_path):
    model = small_model(torch.float32, num_classes=4, image_size=32, nr_filters=4, fusion="late")
    states = []
    for which, names in enumerate((CPEN455_CLASSES, OTHER)):
        save_model(with_classes(model, names, "", ""), tmp_path / f"{which}.safetensors")
        export = ["course-export", str(tmp_path / str(which)), "--checkpoint", str(tmp_path / f"{which}.safetensors")]
        assert main([*export, "--samples=1", "--device=cpu"]) == 0
        states.append(torch.load(tmp_path / str(which) / "models/conditional_pixelcnn.pth", weights_only=True))
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    samples = [sorted((tmp_path / str(which) / "samples").iterdir()) for which in (0, 1)]
    assert [one.read_bytes() for one in samples[0]] == [other.read_bytes() for other in samples[1]]


def test_other_names_are_refused_and_both_lists_shown(two_orders, picture_folder, tmp_path, capsys):
    def refused(*command) -> str:
        capsys.readouterr()
        assert main(list(map(str, command))) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        return text

    model = small_model(torch.float32, num_classes=2)
    model.class_names = ("dark", "lights")
    checkpoints.save_model(model, tmp_path / "two.safetensors")
    text = refused(
        "evaluate", "--checkpoint", tmp_path / "two.safetensors", "--dataset=folder", "--data-root", picture_folder
    )
    assert "dark, light;" in text and "dark, lights" in text
    text = refused("classify", picture_folder / "train/dark/0.png", "--checkpoint", two_orders[0],
                   "--ensemble", tmp_path / "two.safetensors")  # fmt: skip
    assert "burger, panda, koala, pizza" in text and "dark, lights" in text
    text = refused("course-export", tmp_path / "out", "--checkpoint", tmp_path / "two.safetensors")
    assert "burger, panda, koala, pizza" in text and "dark, lights" in text and not (tmp_path / "out").exists()


def test_of_long_lists_what_differs_is_shown():
    names = [f"class_{n}" for n in range(30)]
    with pytest.raises(UsageError, match=r"^a and b have other classes: class_7; klass_7$"):
        class_order(names, [name.replace("class_7", "klass_7") for name in names], "a", "b")
    with pytest.raises(UsageError, match=r"^a and b have other classes: class_29; all of these$"):
        class_order(names, names[:-1], "a", "b")
    assert class_order(names, names[::-1], "a", "b") == list(range(30))[::-1]


def test_a_prior_goes_by_name_and_is_said(two_orders, course_data, capsys):
    evaluate = ["evaluate", "--dataset=cpen455", "--data-root", course_data, "--checkpoint"]
    tables = [said(capsys, *evaluate, file, "--prior=koala=9,panda=0.5").split("\n") for file in two_orders]
    assert tables[0][1:5] == tables[1][1:5]
    assert tables[0][0].endswith("prior burger 1, panda 0.5, koala 9, pizza 1")
    assert tables[1][0].endswith("prior pizza 1, burger 1, koala 9, panda 0.5")
    by_number = said(capsys, *evaluate, two_orders[0], "--prior=1,0.5,9,1").split("\n")
    assert by_number == tables[0]
    for prior, words in (("lion=2", "--prior names lion"), ("koala=2,1", "NAME=NUMBER"), ("koala=x", "NAME=NUMBER")):
        assert main([*map(str, evaluate), str(two_orders[0]), f"--prior={prior}"]) == 2
        assert words in capsys.readouterr().err


def test_calibration_needs_every_class_before_anything_is_computed(two_orders, course_data, capsys, monkeypatch):
    evaluate = ["evaluate", "--checkpoint", str(two_orders[0]), "--dataset=cpen455", "--data-root", str(course_data)]
    with monkeypatch.context() as patched:
        patched.setattr(Classifier, "log_likelihoods", None)
        assert main([*evaluate, "--calibrate=3"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: --calibrate 3: these 3 pictures show no ") and text.count("\n") == 1
    assert main([*evaluate, "--calibrate=4"]) == 0
