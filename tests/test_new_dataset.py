"""A data set from a teacher's photographs: what is in it, what must not be, and every way in which it can fail."""

import csv
import hashlib
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kit import new_dataset, photographs
from kit.__main__ import build_parser, main
from kit.commands import Parser, add_flags, call
from kit.new_dataset import make, share_out
from kit.photographs import NEAR, Photograph, near_pairs
from utils import UsageError, checkpoints
from utils.data import load_split

CLASSES = ("ant", "bee", "cat")
EACH = 12


def texture(number: int, width: int = 48, height: int = 40) -> Image.Image:
    """A picture unlike any other."""
    levels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Three classes of twelve photographs that are wider than high, a folder deeper, named after class and number."""
    folder = tmp_path / "photos"
    for label, name in enumerate(CLASSES):
        (folder / name / "deeper").mkdir(parents=True)
        for i in range(EACH):
            tags = Image.Exif()
            tags[0x010E] = f"secret {name} at 49.26 N"
            texture(100 * label + i).save(folder / name / "deeper" / f"{name}{i}.png", exif=tags, pnginfo=None)
    return folder


def tree(folder: Path) -> dict[str, object]:
    """Everything below a folder, and when it was written."""
    there = sorted(folder.rglob("*"))
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) if path.is_file() else None for path in there}


def read_table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def origin(out: Path) -> dict[str, str]:
    """The old path of each new name."""
    return {row["picture"]: row["photograph"] for row in read_table(out / "teacher" / "where-from.csv")}


def test_what_is_laid_down(photos, tmp_path, capsys):
    before, out = tree(photos), tmp_path / "new" / "course"
    assert main(["data", "new", str(photos), "--out", str(out), "--image-size", "16", "--seed", "5"]) == 0
    said = capsys.readouterr()
    assert said.err == "" and "36 of 36 pictures, 3 classes; 30 train, 3 validation, 3 test" in said.out
    assert f"give out {out / 'students'}" in said.out and f"keep {out / 'teacher'} to yourself" in said.out
    assert tree(photos) == before and sorted(os.listdir(out.parent)) == ["course"]
    assert sorted(os.listdir(out)) == ["students", "teacher"]
    assert sorted(os.listdir(out / "students")) == ["card.md", "contact_sheet.png", "test", "train", "validation"]
    assert sorted(os.listdir(out / "students" / "test")) == ["0001.png", "0002.png", "0003.png"]
    assert sorted(os.listdir(out / "teacher")) == [
        "contact_sheet.png", "duplicates.csv", "test_labels.csv", "where-from.csv",
    ]  # fmt: skip

    old = origin(out)
    sets = {split: load_split("folder", split, out / "students", 16) for split in ("train", "validation", "test")}
    assert capsys.readouterr().err == ""  # nothing is resized, nothing lies beside
    assert sorted(name for pictures in sets.values() for name in pictures.names) == sorted(old)
    assert sorted(old.values()) == sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    for split, pictures in sets.items():
        assert pictures.classes == CLASSES
        for image, label, name in zip(pictures.images, pictures.labels.tolist(), pictures.names, strict=True):
            assert old[name].split("/")[0] == CLASSES[label] if split != "test" else label == -1
            with Image.open(photos / old[name]) as picture:  # its middle: 40 of 48 columns
                expected = picture.convert("RGB").crop((4, 0, 44, 40)).resize((16, 16), Image.Resampling.BILINEAR)
            assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(expected)), name
    assert Counter(sets["train"].labels.tolist()) == {0: 10, 1: 10, 2: 10}

    labels = (out / "teacher" / "test_labels.csv").read_text().splitlines()
    assert labels == [f"{name},{CLASSES.index(old[name].split('/')[0])}" for name in sets["test"].names]
    assert {row.split(",")[1] for row in labels} == {"0", "1", "2"}


def test_nothing_tells_a_test_pictures_class_or_the_photographs_origin(photos, tmp_path):
    out = tmp_path / "course"
    make(photos, out, 8)
    for file in (out / "students").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            for word in ("secret", "49.26", "deeper", "ant1", "cat1", str(tmp_path), tmp_path.name, "photos"):
                assert word.encode() not in content, (file, word)
            if file.suffix == ".png":
                with Image.open(file) as picture:
                    assert not picture.info
    for folder in [out / "students/test", *(out / "students/train").iterdir()]:
        digests = []
        for file in sorted(folder.iterdir()):
            with Image.open(file) as picture:
                digests.append(hashlib.sha256(picture.tobytes()).digest())
        assert digests == sorted(digests)  # the order follows from the pixels alone


def test_a_seed_fixes_the_choices(photos, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make(photos, tmp_path / name, 8, seed)

    def content(folder):
        return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert (tmp_path / "a/teacher/where-from.csv").read_bytes() != (tmp_path / "c/teacher/where-from.csv").read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=3, max_size=40), st.integers(0, 99))
def test_property_every_split_has_its_share_and_groups_stay_whole(sizes, seed):
    groups = [[Photograph(Path(f"{n}/{i}"), 0, None, "", None) for i in range(size)] for n, size in enumerate(sizes)]
    share_out("ant", list(groups), random.Random(seed))
    assert all(len({each.split for each in group}) == 1 for group in groups)
    counts, total = Counter(each.split for group in groups for each in group), sum(sizes)
    assert min(counts[split] for split in ("train", "validation", "test")) >= 1
    for split in ("validation", "test"):
        assert abs(counts[split] - max(1, round(total / 10))) < max(sizes)


@pytest.mark.parametrize("count, held", [(3, 1), (10, 1), (14, 1), (16, 2), (100, 10)])
def test_a_tenth_each_and_at_least_one(count, held):
    pictures = [Photograph(Path(str(i)), 0, None, "", None) for i in range(count)]
    share_out("ant", [[each] for each in pictures], random.Random(0))
    assert Counter(each.split for each in pictures) == {"train": count - 2 * held, "validation": held, "test": held}
    if count == 100:
        assert [each.split for each in pictures[:80]] != ["train"] * 80


def test_near_pairs_are_those_that_counting_finds():
    rng = np.random.default_rng(0)
    hashes = rng.random((1030, 144)) < 0.5
    for i, j, bits in ((3, 1029, NEAR), (998, 1001, NEAR + 1), (999, 1002, 0), (1010, 1020, 7)):
        hashes[j] = hashes[i]
        hashes[j, :bits] ^= True
    assert near_pairs(hashes) == [(3, 1029, 12), (999, 1002, 0), (1010, 1020, 7)]
    assert near_pairs(hashes[:1]) == near_pairs(hashes[:0]) == []


def add_duplicates(photos: Path) -> None:
    with Image.open(photos / "ant/deeper/ant3.png") as picture:
        picture = picture.convert("RGB")
        picture.save(photos / "ant" / "copy.bmp")
        picture.save(photos / "ant" / "again.jpg", quality=50)
        picture.resize((24, 20), Image.Resampling.BILINEAR).save(photos / "ant" / "small.png")
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(photos / "ant" / "mirrored.png")
    with Image.open(photos / "bee/deeper/bee7.png") as picture:
        picture.convert("RGB").save(photos / "cat" / "no_cat.jpg", quality=80)


@pytest.mark.parametrize("seed", range(3))
def test_duplicates(photos, tmp_path, capsys, seed):
    add_duplicates(photos)
    make(photos, tmp_path / "course", 8, seed)
    said, old = capsys.readouterr(), origin(tmp_path / "course")
    assert "exact duplicates: 1 left out" in said.out and "under two classes: 2 left out" in said.out
    assert "near-duplicates: 3 pictures in groups of up to 3, each group in one split" in said.out
    warning = [line for line in said.err.splitlines() if "two classes" in line]
    assert len(warning) == 1 and "bee7.png" in warning[0] and "no_cat.jpg" in warning[0]

    where = {path: name.split("/")[0] for name, path in old.items()}
    kept = [path for path in ("ant/copy.bmp", "ant/deeper/ant3.png") if path in where]
    assert kept == ["ant/copy.bmp"]  # the first by name
    assert where["ant/copy.bmp"] == where["ant/again.jpg"] == where["ant/small.png"]
    assert "ant/mirrored.png" in where and not {"bee/deeper/bee7.png", "cat/no_cat.jpg"} & where.keys()
    rows = read_table(tmp_path / "course/teacher/duplicates.csv")
    found = {(row["kind"], row["photograph"], row["same as"]) for row in rows}
    assert found == {
        ("exact", "ant/deeper/ant3.png", "ant/copy.bmp"),
        ("near", "ant/again.jpg", "ant/copy.bmp"),
        ("near", "ant/again.jpg", "ant/small.png"),
        ("near", "ant/copy.bmp", "ant/small.png"),
        ("two classes", "bee/deeper/bee7.png", "cat/no_cat.jpg"),
    }
    for row in rows:
        assert row["its split"] == where.get(row["photograph"], "left out")
        assert row["split of that"] == where.get(row["same as"], "left out")
        assert int(row["bits that differ, of 144"]) <= NEAR


def test_without_looking_for_them_near_duplicates_are_torn_apart(photos, tmp_path, monkeypatch):
    """The test above would see it."""
    add_duplicates(photos)
    monkeypatch.setattr(photographs, "NEAR", -1)
    torn = set()
    for seed in range(3):
        make(photos, tmp_path / str(seed), 8, seed)
        where = {path: name.split("/")[0] for name, path in origin(tmp_path / str(seed)).items()}
        torn.add(where["ant/again.jpg"] == where["ant/copy.bmp"] == where["ant/small.png"])
    assert False in torn


def test_the_card(photos, tmp_path):
    (photos / "bee").rename(photos / "=b_e`e")
    make(photos, tmp_path / "a", 8, 7)
    card = (tmp_path / "a/students/card.md").read_text(encoding="utf-8")
    assert r"| 0 | =b\_e\`e | 10 | 1 | 1 |" in card and "|  | all | 30 | 3 | 3 |" in card
    assert "--image-size 8 --seed 7" in card and r"| =b\_e\`e |  |  |  |" in card and "exact duplicates: none" in card
    rows = read_table(tmp_path / "a/teacher/where-from.csv")
    assert all(not row["picture"].startswith("=") for row in rows)
    assert sum(row["photograph"].startswith("'=b_e`e/deeper") for row in rows) == EACH  # no formula
    (photos / "SOURCES.md").write_text("All by {me}, CC0.", encoding="utf-8")
    make(photos, tmp_path / "b", 8)
    assert "\nAll by {me}, CC0.\n" in (tmp_path / "b/students/card.md").read_text(encoding="utf-8")
    (photos / "SOURCES.md").rename(photos / "sources.csv")
    make(photos, tmp_path / "c", 8)
    assert "```\nAll by {me}, CC0.\n```" in (tmp_path / "c/students/card.md").read_text(encoding="utf-8")


def test_links_and_other_files_are_left_out_with_a_note(photos, tmp_path, capsys):
    (tmp_path / "elsewhere" / "dog").mkdir(parents=True)
    texture(900).save(tmp_path / "elsewhere" / "dog" / "0.png")
    (photos / "dog").symlink_to(tmp_path / "elsewhere" / "dog", target_is_directory=True)
    (photos / "ant" / "dogs").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (photos / "ant" / "round").symlink_to(photos, target_is_directory=True)
    (photos / "bee" / "one\nmore.png").symlink_to(tmp_path / "elsewhere" / "dog" / "0.png")
    (photos / "cat" / "notes.txt").write_text("soon")
    texture(901).save(photos / "loose.png")
    make(photos, tmp_path / "course", 8)
    said = capsys.readouterr()
    assert "36 of 36 pictures, 3 classes" in said.out
    links, others = said.err.splitlines()
    assert "links are not followed" in links and "and 3 more" in links
    assert "2 of 38 files" in others and "loose.png first" in others and "lies in a class's folder" in others


def test_small_and_moving_pictures_are_said(photos, tmp_path, capsys):
    texture(900, 20, 10).save(photos / "ant" / "thin.png")
    texture(901).save(photos / "ant" / "film.gif", save_all=True, append_images=[texture(902)])
    make(photos, tmp_path / "course", 16)
    said = capsys.readouterr().err
    assert "1 of 38 pictures are smaller than 16x16 and were enlarged" in said and "thin.png" in said
    assert "1 of 38 pictures have several frames" in said and "film.gif" in said


def test_a_hundred_classes(tmp_path, capsys):
    for n in range(100):
        (tmp_path / "photos" / f"class {n:02d}").mkdir(parents=True)
        for i in range(3):
            texture(3 * n + i, 8, 8).save(tmp_path / "photos" / f"class {n:02d}" / f"{i}.png")
    make(tmp_path / "photos", tmp_path / "course", 8)
    assert "300 of 300 pictures, 100 classes; 100 train, 100 validation, 100 test" in capsys.readouterr().out
    labels = (tmp_path / "course/teacher/test_labels.csv").read_text().split()
    assert sorted(int(row.split(",")[1]) for row in labels) == list(range(100))
    assert [row.split(",")[0] for row in labels] == [f"test/{n:04d}.png" for n in range(1, 101)]
    assert len(load_split("folder", "test", tmp_path / "course/students", 8)) == 100


# what is refused


def one_class(photos):
    shutil.rmtree(photos / "bee")
    shutil.rmtree(photos / "cat")


def two_pictures(photos):
    for file in list((photos / "bee/deeper").iterdir())[2:]:
        file.unlink()


def two_that_differ(photos):
    two_pictures(photos)
    first, _ = sorted((photos / "bee/deeper").iterdir())
    for n in range(9):
        shutil.copy(first, photos / "bee" / f"copy{n}.png")


def cut(photos):
    file = photos / "bee/deeper/bee3.png"
    file.write_bytes(file.read_bytes()[:1000])


def splits(photos):
    for old, new in zip(CLASSES, ("train", "Valid", "test"), strict=True):
        (photos / old).rename(photos / new)


def both_spellings(photos):
    (photos / "ant").rename(photos / "cafe\u0301")
    (photos / "bee").rename(photos / "caf\u00e9")
    if len(os.listdir(photos)) < 3:
        pytest.skip("this file system knows one spelling")


def both_cases(photos):
    if (photos / "ANT").exists():
        pytest.skip("this file system knows one case")
    (photos / "bee").rename(photos / "Ant")


def renamed(name):
    def rename(photos):
        try:
            (photos / "bee").rename(photos / name)
        except OSError:
            pytest.skip("no folder can be called so here")

    return rename


WRONG = {
    "missing": (shutil.rmtree, "there is no folder"),
    "a file": (lambda photos: (shutil.rmtree(photos), photos.touch()), "there is no folder"),
    "empty": (lambda photos: (shutil.rmtree(photos), photos.mkdir()), "no class folders in"),
    "one class": (one_class, "has one class, ant: two are needed"),
    "no picture in a class": (lambda photos: (photos / "dog").mkdir(), "class 'dog' has 0 pictures that differ: 3 are"),
    "no pictures at all": (
        lambda photos: [shutil.rmtree(photos / name / "deeper") for name in CLASSES],
        "class 'ant' has 0 pictures that differ: 3 are needed",
    ),
    "two pictures": (two_pictures, "class 'bee' has 2 pictures that differ: 3 are needed at least, one for each split"),
    "two that differ": (two_that_differ, "class 'bee' has 2 pictures that differ"),
    "half-written": (cut, "bee3.png cannot be read as a picture"),
    "0 bytes": (lambda photos: (photos / "ant/a.jpg").touch(), "a.jpg cannot be read as a picture: it is no picture"),
    "no picture": (lambda photos: (photos / "ant/a.jpg").write_text("jpg"), "a.jpg cannot be read as a picture"),
    "splits": (splits, "holds splits, Valid, test, train, not classes"),
    "two spellings": (both_spellings, "have the same name, with accents spelt in two ways"),
    "two cases": (both_cases, "two differ in capital letters alone"),
    "a line break": (renamed("b\ne"), r"'b\ne' in "),
    "a tag": (renamed("<script>"), "no folder can be called '<script>' on Windows"),
    "a device": (renamed("Aux.b"), "no folder can be called 'Aux.b' on Windows"),
    "a dot": (renamed("bee."), "no folder can be called 'bee.' on Windows"),
    "two pages": (
        lambda photos: [(photos / f"SOURCES.{ending}").touch() for ending in ("md", "txt")],
        "has SOURCES.md, SOURCES.txt: keep one",
    ),
    "another encoding": (lambda photos: (photos / "SOURCES.md").write_bytes(b"\xe9"), "SOURCES.md is not in UTF-8"),
}


def refused(capsys, *command) -> str:
    capsys.readouterr()
    assert main(["data", *map(str, command)]) == 2
    said = capsys.readouterr()
    errors = [line for line in said.err.splitlines() if not line.startswith("note: ")]
    assert len(errors) == 1 and errors[0].startswith("error: ") and not said.out, said
    return errors[0]


@pytest.mark.parametrize("case", WRONG)
def test_wrong_photographs_leave_nothing_behind(photos, tmp_path, capsys, case):
    spoil, words = WRONG[case]
    spoil(photos)
    before = tree(tmp_path)
    assert words in refused(capsys, "new", photos, "--out", tmp_path / "course")
    assert tree(tmp_path) == before


def test_a_picture_of_too_many_pixels(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)
    assert "36 of 36 files cannot be read" in (text := refused(capsys, "new", photos, "--out", tmp_path / "course"))
    assert "too many pixels" in text and "and 26 more" in text and not (tmp_path / "course").exists()


@pytest.mark.parametrize(
    "out, words",
    [
        ("photos", "must not lie in one another"),
        ("photos/course", "must not lie in one another"),
        (".", "must not lie in one another"),
        ("full", "is there already and not empty"),
        ("hidden", "is there already and not empty"),
        ("file", "is there already and not empty"),
        ("file/course", "cannot write into"),
        ("link/course", "must not lie in one another"),
    ],
)
def test_places_that_are_refused(photos, tmp_path, capsys, out, words):
    for name, inside in (("full", "a.png"), ("hidden", ".DS_Store")):
        (tmp_path / name).mkdir()
        (tmp_path / name / inside).touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(photos, target_is_directory=True)
    before = tree(tmp_path)
    assert words in refused(capsys, "new", photos, "--out", tmp_path / out)
    assert tree(tmp_path) == before


def test_flags_that_do_not_go_together(photos, tmp_path, capsys):
    new = ("new", photos, "--out", tmp_path / "course")
    assert "`data new` does not take --root or --url" in refused(capsys, *new, "--root=a", "--url=b")
    assert "data new FOLDER --out DIR" in refused(capsys, "new", photos)
    assert "data new FOLDER --out DIR" in refused(capsys, "new", "--out", tmp_path / "course")
    assert "`data cpen455` does not take FOLDER or --seed" in refused(capsys, "cpen455", photos, "--seed=0")
    wrong = "`data cifar10` does not take --out or --image-size"
    assert wrong in refused(capsys, "cifar10", "--out=a", "--image-size=8")
    assert "divisible by 4, not 30" in refused(capsys, *new, "--image-size=30")
    assert "image_size" in refused(capsys, *new, "--image-size=0")
    assert "seed must be 0" in refused(capsys, *new, "--seed=-1")
    assert "invalid choice" in refused(capsys, "old", photos)
    assert sorted(os.listdir(tmp_path)) == ["photos"]


def test_an_argument_by_its_place_may_be_missing():
    def run(first: str, second: str = "", /) -> None:
        """two places

        Args:
            first: needed.
            second: may be missing.
        """
        found.append((first, second))

    found: list = []
    parser = Parser(prog="x")
    add_flags(parser, run)
    for typed in (["a"], ["a", "b"]):
        call(run, vars(parser.parse_args(typed)))
    assert found == [("a", ""), ("a", "b")]
    with pytest.raises(UsageError):
        parser.parse_args([])
    assert build_parser().parse_args(["data", "cpen455"]).folder == ""


@pytest.mark.parametrize("error, status", [(KeyboardInterrupt(), 130), (OSError(28, "No space left on device"), 2)])
def test_an_interruption_leaves_nothing(photos, tmp_path, monkeypatch, capsys, error, status):
    def fail(*_args):
        assert (tmp_path / ".course.tmp" / "students" / "card.md").is_file()
        raise error

    before = tree(tmp_path)
    monkeypatch.setattr(new_dataset, "write_teacher", fail)
    assert main(["data", "new", str(photos), "--out", str(tmp_path / "course")]) == status
    assert tree(tmp_path) == before and capsys.readouterr().err.count("\n") == 1


def test_what_a_killed_call_left_is_removed(photos, tmp_path):
    (tmp_path / ".course.tmp" / "students" / "train" / "dog").mkdir(parents=True)
    (tmp_path / "course").mkdir()  # an empty folder is as good as none
    make(photos, tmp_path / "course", 8)
    assert sorted(os.listdir(tmp_path)) == ["course", "photos"]
    assert load_split("folder", "train", tmp_path / "course/students", 8).classes == CLASSES


def test_from_photographs_to_a_submission(photos, tmp_path, capsys):
    make(photos, tmp_path / "course", 8)
    model = small_model(torch.float32)
    model.class_names = ("cat", "ant", "bee")  # in another order than the data set's
    checkpoints.save_model(model, tmp_path / "three.safetensors")
    where = ["--dataset=folder", "--data-root", str(tmp_path / "course/students"), "--device=cpu"]
    flags = ["--checkpoint", str(tmp_path / "three.safetensors"), *where]
    assert main(["evaluate", *flags, "--split=test"]) == 0 and "no label is known" in capsys.readouterr().out
    assert main(["submit", *flags, "--out", str(tmp_path / "team.csv")]) == 0
    handed_in, due = ((tmp_path / name).read_text().split() for name in ("team.csv", "course/teacher/test_labels.csv"))
    assert [row.split(",")[0] for row in handed_in] == [row.split(",")[0] for row in due]
