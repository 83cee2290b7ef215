"""Reading pictures: the byte scale, the resize, and every damage a data set can have."""

import io
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kit.widgets.upload import read_upload
from utils import UsageError, cartoons, data
from utils.cartoons import draw
from utils.data import ImageDataset, load_split, shifted, to_bytes, to_float
from utils.mixture import to_levels


@given(st.lists(st.integers(0, 255), min_size=1, max_size=50))
def test_property_bytes_survive_the_way_to_floats_and_back(values):
    pixels = torch.tensor(values, dtype=torch.uint8)
    floats = to_float(pixels)
    assert torch.equal(to_bytes(floats), pixels)
    assert torch.equal(to_levels(floats), floats)
    assert floats.tolist() == pytest.approx([v / 127.5 - 1 for v in values], abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from(["RGB", "L", "RGBA", "P", "CMYK", "1", "I;16"]))
def test_property_pictures_of_any_size_and_mode_become_bytes(tmp_path_factory, width, height, mode):
    file = tmp_path_factory.mktemp("any") / "picture.tif"
    Image.new(mode, (width, height)).save(file)
    pictures = data.read_images([file], 16, expected_size=16)
    assert pictures.shape == (1, 3, 16, 16) and pictures.dtype == torch.uint8


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=1, max_size=4))
def test_property_a_shifted_picture_is_the_same_elsewhere(offsets):
    x = torch.rand(len(offsets), 3, 5, 5)
    down, right = torch.tensor(offsets).T
    moved = shifted(x, down, right)
    for b, (d, r) in enumerate(offsets):
        for row in range(5):
            for column in range(5):
                source = x[b, :, min(max(row - d, 0), 4), min(max(column - r, 0), 4)]
                assert torch.equal(moved[b, :, row, column], source)


def test_cartoons_are_the_same_every_time_and_differ_between_splits():
    first, labels = draw("validation")
    again, _ = draw("validation")
    assert np.array_equal(first, again)
    assert first.shape == (500, 3, 32, 32) and first.dtype == np.uint8
    assert np.bincount(labels).tolist() == [125] * 4
    other, _ = draw("test")
    assert not np.array_equal(first, other)
    assert len(np.unique(first.reshape(500, -1), axis=0)) == 500
    large, _ = draw("validation", image_size=64)
    shrunk = large.reshape(500, 3, 32, 2, 32, 2).mean((3, 5))
    assert np.abs(shrunk - first).mean() < 6  # the same scene, drawn finer


def test_hard_cartoons_are_other_pictures_of_the_same_classes():
    pictures = load_split("cartoons-hard", "validation")
    assert torch.equal(pictures.images, load_split("cartoons-hard", "validation").images)
    easy = load_split("cartoons", "validation")
    assert pictures.classes == easy.classes and torch.equal(pictures.labels, easy.labels)
    assert (pictures.images != easy.images).flatten(1).any(dim=1).all()
    assert not torch.equal(pictures.images, load_split("cartoons-hard", "test").images)
    finer = load_split("cartoons-hard", "validation", image_size=64).images.float()
    assert (torch.nn.functional.avg_pool2d(finer, 2) - pictures.images).abs().mean() < 6


TROUBLES = ["small", "odd-coloured", "blurred", "half-covered", "dark"]


def with_troubles(monkeypatch, *befall: str) -> np.ndarray:
    """Fifty pizzas of the same random numbers, in colours without grain, that all have these troubles and no others."""
    calls = iter(TROUBLES)

    def where(canvas, trouble, none):
        canvas.rng.random((canvas.count, 1, 1))
        return np.broadcast_to(trouble if next(calls) in befall else none, (canvas.count, 1, 1))

    monkeypatch.setattr(cartoons.HardCanvas, "where", where)
    monkeypatch.setattr(cartoons.Canvas, "develop", lambda canvas: canvas.rgb)
    return cartoons.pizza(cartoons.HardCanvas(np.random.default_rng(0), 50, 32))


def test_each_trouble_does_what_it_is_called(monkeypatch):
    plain = with_troubles(monkeypatch)
    salami = (plain[:, 0] - plain[:, 1] > 0.4).sum(axis=(1, 2))  # red pixels of a picture
    assert salami.min() > 20
    small = with_troubles(monkeypatch, "small")
    assert ((small[:, 0] - small[:, 1] > 0.4).sum(axis=(1, 2)) < salami).all()
    odd = with_troubles(monkeypatch, "odd-coloured")
    inside = ((odd > 0) & (odd < 1)).all(axis=1)  # not cut off
    assert np.allclose(odd.mean(axis=1)[inside], plain.mean(axis=1)[inside])  # as light as before
    redness = (odd[:, 0] - odd[:, 1]).max(axis=(1, 2))
    assert redness.min() < 0.2 and redness.max() > 0.4  # of any hue
    blurred = with_troubles(monkeypatch, "blurred")
    steps = [np.abs(np.diff(rgb, axis=3)).max(axis=(1, 2, 3)) for rgb in (blurred, plain)]
    assert (steps[0] < 0.7 * steps[1]).all()
    assert np.abs(blurred.mean(axis=(2, 3)) - plain.mean(axis=(2, 3))).max() < 0.05  # nothing is lost
    covered = with_troubles(monkeypatch, "half-covered")
    changed = (covered != plain).any(axis=1).mean(axis=(1, 2))  # share of the pixels
    assert changed.min() > 0.05 and 0.4 < changed.max() <= 0.6
    dark = with_troubles(monkeypatch, "dark")
    ratio = (dark / plain).reshape(50, -1)
    assert np.allclose(ratio, ratio[:, :1]) and ratio.min() >= 0.06 and ratio.max() <= 0.7


def test_hues_turned_by_a_third_are_those_of_the_next_channel(monkeypatch):
    turns = iter([2 * np.pi / 3])
    monkeypatch.setattr(cartoons.HardCanvas, "where", lambda canvas, _, none: np.full((1, 1, 1), next(turns, none)))
    monkeypatch.setattr(cartoons.Canvas, "develop", lambda canvas: canvas.rgb)
    canvas = cartoons.HardCanvas(np.random.default_rng(0), 1, 4)
    canvas.rgb = np.random.default_rng(1).uniform(0, 1, (1, 3, 4, 4))
    before = canvas.rgb
    assert np.allclose(canvas.develop(), np.roll(before, 1, axis=1))


def test_half_of_the_hard_cartoons_have_each_trouble():
    canvas = cartoons.HardCanvas(np.random.default_rng(0), 1000, 8)
    assert 440 < canvas.where(np.ones(1), np.zeros(1)).sum() < 560


def test_course_data(course_data):
    train = load_split("cpen455", "train", course_data)
    assert train.images.shape == (12, 3, 32, 32) and train.labels.tolist() == [0, 1, 2, 3] * 3
    assert train.classes == ("burger", "panda", "koala", "pizza")
    image, label = train[5]
    assert image.dtype == torch.float32 and label == 1 and image.min() >= -1 and image.max() <= 1
    expected = Image.open(course_data / train.names[5]).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(train.images[5].permute(1, 2, 0).numpy(), np.asarray(expected))
    grey = train.images[1]
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[1], grey[2])


def test_unknown_labels_stay_unknown(course_data):
    assert load_split("cpen455", "test", course_data).labels.tolist() == [-1] * 5


def test_native_size_is_left_alone(course_data):
    validation = load_split("cpen455", "validation", course_data, image_size=64)
    expected = np.asarray(Image.open(course_data / validation.names[0]).convert("RGB"))
    assert np.array_equal(validation.images[0].permute(1, 2, 0).numpy(), expected)


def test_resize_agrees_with_torch_antialiased_bilinear(course_data):
    train = load_split("cpen455", "train", course_data)
    native = load_split("cpen455", "train", course_data, image_size=64)
    scaled = torch.nn.functional.interpolate(
        native.images.double(), (32, 32), mode="bilinear", antialias=True, align_corners=False
    )
    assert (scaled - train.images.double()).abs().max() <= 1.01  # rounding, once per axis in Pillow


def test_environment_variable_says_where(course_data, monkeypatch):
    monkeypatch.setenv("CPEN455_ROOT", str(course_data))
    assert len(load_split("cpen455", "validation")) == 6


def test_folder(picture_folder):
    train = load_split("folder", "train", picture_folder, image_size=8)
    assert train.classes == ("dark", "light") and train.labels.tolist() == [0] * 6 + [1] * 6
    assert data.number_of_classes("folder", picture_folder) == 2


def test_a_test_folder_without_class_folders_has_no_labels(picture_folder, capsys):
    test, labelled = picture_folder / "test", load_split("folder", "test", picture_folder, 8)
    assert labelled.labels.tolist() == [0] * 3 + [1] * 3
    for n, file in enumerate(sorted(test.glob("*/*.png"))):
        file.rename(test / f"{n:04d}.png")
    with pytest.raises(UsageError, match=r"there is no picture in .*dark"):  # while there are class folders
        load_split("folder", "test", picture_folder, 8)
    for name in ("dark", "light"):
        (test / name).rmdir()
    (picture_folder / "card.md").touch()
    Image.new("RGB", (9, 9)).save(picture_folder / "contact_sheet.png")
    unlabelled = load_split("folder", "test", picture_folder, 8)
    assert unlabelled.classes == ("dark", "light") and unlabelled.labels.tolist() == [data.UNKNOWN] * 6
    assert unlabelled.names == [f"test/{n:04d}.png" for n in range(6)]
    assert torch.equal(unlabelled.images, labelled.images) and capsys.readouterr().err == ""
    (test / "notes.txt").touch()
    assert len(load_split("folder", "test", picture_folder, 8)) == 6
    said = capsys.readouterr().err
    assert "1 of 7 files" in said and "notes.txt first" in said and "class's folder" not in said

    validation = picture_folder / "validation"  # of the other splits the classes must be known
    for file in sorted(validation.glob("*/*.png")):
        file.rename(validation / f"{file.parent.name}{file.name}")
    shutil.rmtree(validation / "dark")
    shutil.rmtree(validation / "light")
    with pytest.raises(UsageError, match=r"no class folders in .*validation"):
        load_split("folder", "validation", picture_folder, 8)


def test_cifar10_through_torchvision(tmp_path, monkeypatch):
    """A stand-in for torchvision's reader: the official files cannot be fetched in a test."""
    import torchvision.datasets

    class Official:
        classes = tuple(f"class{i}" for i in range(10))

        def __init__(self, root, train, download):
            assert not download
            count = 50000 if train else 10000
            self.data = np.zeros((count, 32, 32, 3), np.uint8)
            self.data[:, 0, 0, 0] = np.arange(count) % 251
            self.targets = [i % 10 for i in range(count)]

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Official)
    validation = load_split("cifar10", "validation", tmp_path)
    assert len(validation) == 5000 and validation.images[0, 0, 0, 0] == 45000 % 251
    assert len(load_split("cifar10", "test", tmp_path)) == 10000


SIX_OF_SIXTY = ["0/16", "1/30", "0/27", "1/54", "0/21", "1/32"]


def sorted_by_class(*counts: int) -> ImageDataset:
    """So many pictures of each class, one class after the other, the unlabelled ones last of all."""
    labels = torch.repeat_interleave(torch.tensor([*range(len(counts) - 1), -1]), torch.tensor(counts))
    names = [f"{label}/{i}" for i, label in enumerate(labels.tolist())]
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)
    return ImageDataset(images, labels, tuple("abcdefgh"[: len(counts) - 1]), names)


@given(st.lists(st.integers(0, 40), min_size=2, max_size=5).filter(sum), st.data())
def test_property_a_part_has_every_class_in_its_proportion(counts, data):
    pictures = sorted_by_class(*counts)
    count = data.draw(st.integers(0, len(pictures)))
    part, rest = pictures.subset(count), pictures.held_out(len(pictures) - count)
    assert len(part) == count and sorted(part.names + rest.names) == sorted(pictures.names)
    for label, there in zip([*range(len(counts) - 1), -1], counts, strict=True):
        assert abs(int((part.labels == label).sum()) - count * there / len(pictures)) <= len(counts) / 2
    for name, label, image in zip(part.names, part.labels.tolist(), part.images, strict=True):
        assert name == f"{label}/{int(image[0, 0, 0])}"  # they stay together


def test_a_part_is_the_same_everywhere_and_not_the_first_ones():
    pictures = sorted_by_class(30, 30, 0)
    torch.manual_seed(7)
    assert pictures.subset(6).names == sorted_by_class(30, 30, 0).subset(6).names == SIX_OF_SIXTY
    assert pictures.subset(3).names == SIX_OF_SIXTY[:3] and len(pictures.subset(99)) == 60


def test_labels_of_two_lists_of_classes_meet_by_name():
    pictures = ImageDataset(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.tensor([2, 0, -1, 1]),
                            ("ape", "bee", "cat"), list("wxyz"))  # fmt: skip
    other = pictures.with_classes(("cat", "ape", "bee"), "the model")
    assert other.subset(2).names == pictures.subset(2).names
    assert other.labels.tolist() == [0, 1, -1, 2] and other.classes == ("cat", "ape", "bee")
    for classes in (("ape", "bee"), ("ape", "bee", "dog"), ("ape", "bee", "cat", "dog"), ("ape", "bee", "Cat")):
        with pytest.raises(UsageError, match=r"has the classes ape, bee, cat; weights x has others: " + classes[0]):
            pictures.with_classes(classes, "weights x")


# what can be wrong


def spoil(course_data, line, row=2):
    table = course_data / "train.csv"
    lines = table.read_text().splitlines()
    lines[row - 1] = line
    table.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    "line,message",
    [
        ("train/nowhere.jpg,1", r"row 2: there is no file train/nowhere.jpg"),
        ("train/0000002.jpg,1,2", r"row 2: expected 2 columns .* found 3"),
        ("train/0000002.jpg", r"row 2: expected 2 columns .* found 1"),
        ("train/0000002.jpg,one", r"row 2: the label 'one' is not a whole number"),
        ("train/0000002.jpg,4", r"row 2: the label 4 is not in -1 ... 3"),
        ("train/0000002.jpg,-2", r"row 2: the label -2 is not in -1 ... 3"),
    ],
)
def test_spoilt_tables(course_data, line, message):
    spoil(course_data, line)
    with pytest.raises(UsageError, match=message):
        load_split("cpen455", "train", course_data)


def test_missing_data_set_says_where_it_looked(tmp_path):
    with pytest.raises(UsageError, match=r"'cpen455' not found \(looked in .*nowhere"):
        load_split("cpen455", "train", tmp_path / "nowhere")


def test_missing_table(course_data):
    (course_data / "validation.csv").unlink()
    with pytest.raises(UsageError, match=r"validation.csv is missing"):
        load_split("cpen455", "validation", course_data)


def test_empty_table(course_data):
    (course_data / "validation.csv").write_text("")
    with pytest.raises(UsageError, match=r"validation.csv is empty"):
        load_split("cpen455", "validation", course_data)


@pytest.mark.parametrize("keep", [0, 10, 700])
def test_truncated_jpeg_is_named(course_data, keep):
    file = course_data / "train/0000003.jpg"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UsageError, match=r"0000003.jpg cannot be read as a picture"):
        load_split("cpen455", "train", course_data)


def test_decompression_bomb_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "huge.png"
    Image.new("L", (400, 400)).save(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UsageError, match=r"huge.png cannot be read"):
        data.read_images([file], 32, 32)


def test_wrong_size_is_resized_and_said_once(course_data, capsys):
    for name in ("train/0000003.jpg", "train/0000004.jpg"):
        Image.new("RGB", (50, 40)).save(course_data / name)
    assert load_split("cpen455", "train", course_data).images.shape == (12, 3, 32, 32)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "2 of 12 pictures were not 64x64" in said and "0000003.jpg" in said


@pytest.mark.parametrize("dataset,split", [("cats", "train"), ("cartoons", "training")])
def test_unknown_names(dataset, split):
    with pytest.raises(UsageError, match=r"unknown .*: choose from"):
        load_split(dataset, split)


def test_folder_without_root_classes_split_or_pictures(picture_folder, tmp_path):
    with pytest.raises(UsageError, match="--data-root"):
        load_split("folder", "train")
    with pytest.raises(UsageError, match="there is no folder"):
        load_split("folder", "train", tmp_path / "empty")
    (tmp_path / "empty" / "train").mkdir(parents=True)
    with pytest.raises(UsageError, match="no class folders"):
        load_split("folder", "train", tmp_path / "empty")
    shutil.rmtree(picture_folder / "test")
    with pytest.raises(UsageError, match="test is missing"):
        load_split("folder", "test", picture_folder)
    (picture_folder / "test").mkdir()
    with pytest.raises(UsageError, match="no class folders"):
        load_split("folder", "test", picture_folder)


def test_cifar10_missing(tmp_path):
    with pytest.raises(UsageError, match=r"CIFAR-10 not found"):
        load_split("cifar10", "train", tmp_path)


def encoded(picture, form="PNG", **how) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=form, **how)
    return buffer.getvalue()


def test_an_upload_is_made_to_fit():
    grey = np.linspace(0, 255, 64).reshape(8, 8)
    expected = torch.from_numpy(grey.astype(np.uint8)).expand(3, -1, -1)
    image, remark = read_upload(encoded(Image.fromarray(grey.astype(np.uint8))), 8)
    assert torch.equal(image, expected) and remark == "a picture of 8x8 pixels, turned from mode L into RGB"
    image, _ = read_upload(encoded(Image.fromarray((grey * 257).astype(np.uint16))), 8)
    assert (image.int() - expected).abs().max() <= 1, "16 bits a pixel"
    clear = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    assert (read_upload(encoded(clear), 8)[0] == 255).all(), "transparent is white"
    exif = Image.Exif()
    exif[274] = 6  # the camera was held sideways
    sideways = Image.new("RGB", (16, 8))
    sideways.paste((255, 255, 255), (0, 0, 8, 8))  # the left half, which is the top once it is turned
    turned, remark = read_upload(encoded(sideways, exif=exif), 8)
    assert (turned[:, :3] > 250).all() and (turned[:, 5:] < 5).all() and remark.endswith("16x8 pixels, resized to 8x8")


def test_refused_uploads(monkeypatch):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    whole = encoded(noise, "JPEG")
    for content, sentence in [
        (b"", "no picture of a known kind: choose a PNG, JPEG, WEBP, BMP, GIF file"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "no picture of a known kind"),
        (whole[: len(whole) // 2], "cannot be read as a picture"),
    ]:
        with pytest.raises(UsageError, match=sentence):
            read_upload(content, 8)
    bomb = encoded(Image.new("1", (20_000, 20_000)))
    assert len(bomb) < 100_000
    with pytest.raises(UsageError, match=r"too many pixels: make it smaller first"):
        read_upload(bomb, 8)
    monkeypatch.setattr("kit.widgets.upload.MAX_UPLOAD_PIXELS", 64 * 64 - 1)
    with pytest.raises(UsageError, match=r"too many pixels"):
        read_upload(whole, 8)
