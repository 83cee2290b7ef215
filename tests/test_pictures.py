"""A picture from anywhere is read as viewers show it; of a folder only pictures count, and what is left out is said."""

import io
import os
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from kit.__main__ import main
from kit.samples import list_samples, new_folder, save_samples
from kit.widgets.upload import UPLOAD_FORMATS, read_upload
from utils import UsageError, pictures
from utils.data import CPEN455_CLASSES, load_split, number_of_classes
from utils.pictures import find_pictures, read_images, visible

STEPS = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)  # grey, each pixel another
LEFT = np.arange(8)[None, :].repeat(8, 0) < 4  # the left half


def red_left(*exif: int) -> tuple[Image.Image, dict]:
    """Red at the left, blue at the right, and how to save it with an orientation tag."""
    tags = Image.Exif()
    if exif:
        (tags[274],) = exif
    colours = np.where(LEFT[:, :, None], [250, 0, 0], [0, 0, 250]).astype(np.uint8)
    return Image.fromarray(colours), {"exif": tags} if exif else {}


def read(picture: Image.Image, path, **how) -> np.ndarray:
    """Saves it; reads it as a data set does and as an upload is read, which must be the same. -> (8, 8, 3)"""
    picture.save(path, **how)
    (image,) = read_images([path], 8, 8)
    if picture_format(path) in UPLOAD_FORMATS:
        assert torch.equal(read_upload(path.read_bytes(), 8)[0], image)
    return image.permute(1, 2, 0).numpy().astype(int)


def picture_format(path) -> str:
    with Image.open(path) as file:
        return file.format


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("tag, red", [(1, "left"), (2, "right"), (3, "right"), (4, "left"), (6, "top"), (8, "bottom")])
def test_orientation_tags_are_followed(tmp_path, suffix, tag, red):
    picture, how = red_left(tag)
    seen = read(picture, tmp_path / f"a.{suffix}", **how)
    halves = {"left": seen[:, :3], "right": seen[:, 5:], "top": seen[:3], "bottom": seen[5:]}
    others = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
    assert (halves[red][..., 0] > 180).all() and (halves[others[red]][..., 2] > 180).all()


def test_a_damaged_tag_does_not_matter(tmp_path):
    picture, _ = red_left()
    assert (
        read(picture, tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12rubbish")[:, :3, 0] > 180
    ).all()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_other_damaged_tags_do_not_hide_the_orientation(tmp_path, suffix):
    picture, how = red_left(6)
    how["exif"][0x0110] = "about seventy"
    tags = how["exif"].tobytes().replace(b"\x01\x10\0\2", b"\x01\x1a\0\2")  # the resolution, which is no text
    assert b"\x01\x1a\0\2" in tags
    assert (read(picture, tmp_path / f"a.{suffix}", exif=tags)[:3, :, 0] > 180).all()


@pytest.mark.parametrize("suffix", ["png", "gif", "tif", "jpg"])
def test_damaged_pixels_are_never_taken_for_a_picture(tmp_path, suffix):
    """Whatever Pillow refuses is refused, with a tag or without; what it reads is read alike."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    noise.save(tmp_path / f"a.{suffix}", exif=red_left(1)[1]["exif"])
    content, rng, refused = (tmp_path / f"a.{suffix}").read_bytes(), np.random.default_rng(1), 0
    for _ in range(60):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= int(rng.integers(1, 256))
        (tmp_path / "damaged").write_bytes(damaged)
        broken: dict = {}
        images = read_images([tmp_path / "damaged"], 32, 32, broken)
        try:
            with warnings.catch_warnings(), Image.open(tmp_path / "damaged") as file:
                warnings.simplefilter("ignore")
                file.load()
        except Exception:
            assert broken and not len(images)
            refused += 1
        else:
            assert not broken
    assert refused > 0


def transparent(mode: str) -> tuple[Image.Image, dict]:
    """Dark grey, and see-through in its left half."""
    alpha = Image.fromarray(np.where(LEFT, 0, 255).astype(np.uint8))
    dark = Image.new("RGBA", (8, 8), (40, 40, 40, 255))
    dark.putalpha(alpha)
    if mode == "P":
        indices = Image.fromarray(LEFT.astype(np.uint8), mode="P")
        indices.putpalette([40, 40, 40, 0, 0, 0])
        return indices, {"transparency": 1}
    if mode in ("L", "RGB"):  # one value stands for nothing
        hole = np.where(LEFT, 7, 40).astype(np.uint8)
        return Image.fromarray(hole).convert(mode), {"transparency": 7 if mode == "L" else (7, 7, 7)}
    return dark.convert(mode), {}


@pytest.mark.parametrize("mode, suffix", [("RGBA", "png"), ("LA", "png"), ("P", "png"), ("L", "png"), ("RGB", "png"),
                                          ("P", "gif"), ("RGBA", "webp"), ("RGBA", "tif")])  # fmt: skip
def test_transparent_parts_are_white(tmp_path, mode, suffix):
    picture, how = transparent(mode)
    seen = read(picture, tmp_path / f"a.{suffix}", **how | ({"lossless": True} if suffix == "webp" else {}))
    assert (seen[:, :4] == 255).all() and (seen[:, 4:] == 40).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled(tmp_path, suffix):
    deep = STEPS.astype(np.uint16) * 257
    seen = read(Image.fromarray(deep), tmp_path / f"a.{suffix}")
    assert (seen == STEPS[:, :, None]).all()
    with Image.open(tmp_path / f"a.{suffix}") as file:
        assert file.mode.startswith("I"), "it was not saved in 16 bits"


def test_sixteen_bits_with_a_colour_that_is_none(tmp_path):
    deep = np.where(LEFT, 7, 40 * 257).astype(np.uint16)
    seen = read(Image.fromarray(deep), tmp_path / "a.png", transparency=7)
    assert (seen[:, :4] == 255).all() and (seen[:, 4:] == 40).all()


def test_sixteen_bits_big_endian_and_on_their_side(tmp_path):
    tags = Image.Exif()
    tags[274] = 3
    Image.fromarray(STEPS.astype(np.uint16) * 257).save(tmp_path / "a.png", exif=tags)
    (image,) = read_images([tmp_path / "a.png"], 8, 8)
    assert (image.numpy() == STEPS[::-1, ::-1]).all()
    header = b"MM\0*\0\0\0\x08"  # a TIFF of big-endian numbers, written by hand
    entries = [(256, 3, 8), (257, 3, 8), (258, 3, 16), (259, 3, 1), (262, 3, 1)]
    entries += [(273, 4, 134), (277, 3, 1), (278, 3, 8), (279, 4, 128)]
    table = len(entries).to_bytes(2, "big")
    for tag, kind, value in entries:
        number = value.to_bytes(2, "big") + b"\0\0" if kind == 3 else value.to_bytes(4, "big")
        table += tag.to_bytes(2, "big") + kind.to_bytes(2, "big") + (1).to_bytes(4, "big") + number
    content = header + table + b"\0\0\0\0"
    content += b"\0" * (134 - len(content)) + (STEPS.astype(">u2") * 257).tobytes()
    (tmp_path / "b.tif").write_bytes(content)
    (image,) = read_images([tmp_path / "b.tif"], 8, 8)
    assert (image.numpy() == STEPS).all()


def test_other_kinds_of_pixels(tmp_path):
    assert (read(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "a.tif") == [255, 0, 0]).all()
    assert (read(Image.fromarray(LEFT), tmp_path / "b.png")[:, :4] == 255).all()  # one bit a pixel
    palette = Image.fromarray(LEFT.astype(np.uint8), mode="P")
    palette.putpalette([1, 2, 3, 200, 100, 50])
    assert (read(palette, tmp_path / "c.bmp")[:, :4] == [200, 100, 50]).all()
    for array in (np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8), np.full((8, 8), 70_000, np.int32)):
        Image.fromarray(array).save(tmp_path / "d.tif")
        with pytest.raises(
            UsageError, match=r"d.tif cannot be read as a picture: its pixels are neither of 8 nor of 16"
        ):
            read_images([tmp_path / "d.tif"], 8, 8)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_several_frames_the_first_is_taken_and_that_is_said(tmp_path, suffix, capsys):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    frames[1].save(tmp_path / f"b.{suffix}")
    first, second = read_images([tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"], 8, 8)
    assert (first[0] > 200).all() and (second[1] > 200).all()
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and f"1 of 2 pictures have several frames: the first is taken, {tmp_path}/a." in text
    frames[0].save(tmp_path / "c.jpg", "MPO", save_all=True, append_images=frames[1:])  # as phones keep a preview
    assert len(read_images([tmp_path / "c.jpg"], 8, 8)) == 1 and capsys.readouterr().err == ""
    if suffix != "tif":
        assert "the first of 3 frames" in read_upload((tmp_path / f"a.{suffix}").read_bytes(), 8)[1]


def test_all_broken_files_are_named_at_once(tmp_path):
    Image.fromarray(STEPS).save(tmp_path / "good.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "good.png").read_bytes()[:45])
    (tmp_path / "text.png").write_text("a caption")
    (tmp_path / "empty.png").touch()
    files = [tmp_path / name for name in ("half.png", "good.png", "text.png", "empty.png", "absent.png")]
    with pytest.raises(UsageError, match=r"^4 of 5 files cannot be read as pictures: ") as refused:
        read_images(files, 8, 8)
    assert all(f"{name}.png (" in str(refused.value) for name in ("half", "text", "empty", "absent"))
    (tmp_path / "two.png").write_bytes(b"?")
    with pytest.raises(UsageError, match=r"two.png cannot be read as a picture: it is no picture"):
        read_images([tmp_path / "good.png", tmp_path / "two.png"], 8, 8)
    assert "Errno" not in str(refused.value) and "<" not in str(refused.value)
    broken: dict = {}
    assert len(read_images(files, 8, 8, broken)) == 1 and list(broken) == [files[0], *files[2:]]


# folders


JUNK = (".DS_Store", "._0.png", "Thumbs.db", "desktop.ini", "~$notes.docx")


def litter(folder) -> None:
    """What systems and Jupyter leave behind."""
    for name in JUNK:
        (folder / name).write_bytes(b"\0\5\x16\7")
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
        (folder / name).mkdir()
        Image.fromarray(STEPS).save(folder / name / "0-checkpoint.png")


def test_what_systems_leave_behind_is_not_there(picture_folder, capsys):
    clean = {split: load_split("folder", split, picture_folder, 8) for split in ("train", "validation")}
    for folder in (picture_folder, *picture_folder.glob("*"), *picture_folder.glob("*/*")):
        litter(folder)
    capsys.readouterr()
    for split, expected in clean.items():
        again = load_split("folder", split, picture_folder, 8)
        assert again.classes == expected.classes and again.names == expected.names
        assert torch.equal(again.images, expected.images)
    assert number_of_classes("folder", picture_folder) == 2 and capsys.readouterr().err == ""


def test_samples_among_what_systems_leave_behind(tmp_path, capsys):
    (tmp_path / "s").mkdir()
    litter(tmp_path / "s")
    assert new_folder(tmp_path / "s") == tmp_path / "s"
    save_samples(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]), tmp_path / "s")
    assert [path.name for path in list_samples(tmp_path / "s")] == ["Class0_image_01.png", "Class1_image_01.png"]
    with pytest.raises(UsageError, match="not empty"):
        new_folder(tmp_path / "s")
    (tmp_path / "course").mkdir()
    litter(tmp_path / "course")
    export = ["course-export", str(tmp_path / "course"), "--checkpoint=cartoons", "--samples=1", "--device=cpu"]
    assert main(export) == 0
    assert [path.name for path in visible(tmp_path / "course")] == ["README.txt", "model.py", "models", "samples"]
    assert (tmp_path / "course" / ".DS_Store").exists()


def test_formats_deeper_folders_and_what_is_left_out(picture_folder, capsys):
    dark = picture_folder / "train" / "dark"
    one = Image.open(dark / "0.png")
    for name in ("a.GIF", "b.tif", "c.TIFF", "d.jfif", "e.jpe", "f.JPEG", "g.bmp", "h.webp", "i.ppm"):
        one.save(dark / name, {"jfif": "JPEG", "jpe": "JPEG"}.get(name[2:]))
    if ".avif" in pictures.suffixes():
        one.save(dark / "j.avif")
    (dark / "2024" / "may").mkdir(parents=True)
    shutil.copy(dark / "0.png", dark / "2024" / "may" / "k.png")
    capsys.readouterr()
    count = len(load_split("folder", "train", picture_folder, 8))
    assert count == 12 + 9 + (".avif" in pictures.suffixes()) + 1 and capsys.readouterr().err == ""
    for name in ("x.heic", "2024/notes.txt"):
        (dark / name).write_bytes(b"?")
    shutil.copy(dark / "0.png", picture_folder / "train" / "loose.png")
    assert len(load_split("folder", "train", picture_folder, 8)) == count
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and f"3 of {count + 3} files in {picture_folder / 'train'}" in text
    assert "train/loose.png first" in text


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "VAL"])
def test_other_names_of_the_validation_split(picture_folder, name):
    expected = load_split("folder", "validation", picture_folder, 8)
    (picture_folder / "validation").rename(picture_folder / "aside")
    (picture_folder / "aside").rename(picture_folder / name)
    again = load_split("folder", "validation", picture_folder, 8)
    assert torch.equal(again.images, expected.images) and torch.equal(again.labels, expected.labels)


def test_folders_that_cannot_be_meant(picture_folder):
    def refused(words, split="train"):
        with pytest.raises(UsageError) as error:
            load_split("folder", split, picture_folder, 8)
        assert all(word in str(error.value) for word in words) and "\n" not in str(error.value), error.value

    shutil.copytree(picture_folder / "validation", picture_folder / "val")
    refused(["has val/, validation/ for one split: keep one"], "validation")
    shutil.rmtree(picture_folder / "val")
    (picture_folder / "validation" / "dark").rename(picture_folder / "validation" / "dusk")
    refused(["has the classes dusk, light", "has others: dark, light"], "validation")
    shutil.rmtree(picture_folder / "validation" / "dusk")
    refused(["has the classes light", "has others: dark, light"], "validation")
    (picture_folder / "train" / "owl").mkdir()
    refused(["there is no picture in", "train/owl"])
    (picture_folder / "train" / "owl" / "notes.txt").write_text("soon")
    refused(["there is no picture in", "train/owl"])


def test_what_lies_beside_the_splits_is_said_once(picture_folder, capsys):
    (picture_folder / "trian" / "dark").mkdir(parents=True)
    shutil.copy(picture_folder / "train/dark/0.png", picture_folder / "loose.png")
    (picture_folder / "README.md").write_text("about")
    for split in ("train", "validation", "test"):
        load_split("folder", split, picture_folder, 8)
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and "not loose.png, trian" in text


def test_names_that_nobody_could_tell_apart_or_read(picture_folder):
    for name in ("cafe\u0301", "caf\u00e9"):
        shutil.copytree(picture_folder / "train" / "dark", picture_folder / "train" / name)
    with pytest.raises(UsageError, match=r"two folders in .* have the same name, with accents spelt in two ways"):
        load_split("folder", "train", picture_folder, 8)
    shutil.rmtree(picture_folder / "train" / "caf\u00e9")
    (picture_folder / "train" / "cafe\u0301").rename(picture_folder / "train" / "new\nline")
    with pytest.raises(UsageError, match=r"the folder 'new\\nline' in .* cannot be printed: rename it"):
        load_split("folder", "train", picture_folder, 8)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_links_in_a_circle_and_pipes(picture_folder, capsys):
    dark = picture_folder / "train" / "dark"
    (dark / "round").symlink_to(picture_folder / "train", target_is_directory=True)
    os.mkfifo(dark / "pipe.png")
    assert len(load_split("folder", "train", picture_folder, 8)) == 12
    assert "pipe.png first" in capsys.readouterr().err


def test_a_name_is_one_however_its_accents_are_spelt(picture_folder):
    for split, name in (("train", "cre\u0300me"), ("validation", "cr\u00e8me")):
        shutil.copytree(picture_folder / split / "dark", picture_folder / split / name)
    classes = load_split("folder", "validation", picture_folder, 8).classes
    assert classes == load_split("folder", "train", picture_folder, 8).classes == ("cr\u00e8me", "dark", "light")


# the course's table, as a spreadsheet saves it


ROWS = "train/1.jpg,2\ntrain/zwölf.jpg,0\ntrain/3.jpg,-1\n"
TABLES = {
    "byte-order mark": ROWS.encode("utf-8-sig"),
    "lines end as on Windows": ROWS.replace("\n", "\r\n").encode(),
    "lines end as on an old Mac": ROWS.replace("\n", "\r").encode(),
    "blank lines": ("\n" + ROWS.replace("\n", "\n\n") + ",\n").encode(),
    "semicolons": ROWS.replace(",", ";").encode("utf-8-sig"),
    "tabs": ROWS.replace(",", "\t").encode(),
    "quotes": "".join('"{}","{}"\n'.format(*row.split(",")) for row in ROWS.split()).encode(),
    "backslashes": ROWS.replace("/", "\\").encode(),
    "labels such as 2.0": ROWS.replace("\n", ".0\n").encode(),
    "a header": ("id,label\n" + ROWS).encode(),
    "Excel's own first line": ("sep=;\n" + ROWS.replace(",", ";")).encode(),
    "empty columns": ROWS.replace("\n", ",,\n").encode(),
    "spaces": ROWS.replace(",", " , ").encode(),
}


def with_table(folder, content: bytes):
    (folder / "train").mkdir()
    for name in ("1.jpg", "zwölf.jpg", "3.jpg"):
        Image.new("RGB", (64, 64)).save(folder / "train" / name)
    for split in ("train", "validation", "test"):
        (folder / f"{split}.csv").write_bytes(content)
    return folder


@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES)
def test_tables_that_a_spreadsheet_has_saved(tmp_path, content):
    found = load_split("cpen455", "train", with_table(tmp_path, content), 8)
    assert found.labels.tolist() == [2, 0, -1] and found.classes == CPEN455_CLASSES
    assert found.names == ["train/1.jpg", "train/zwölf.jpg", "train/3.jpg"]


@pytest.mark.parametrize("content, words", [
    (ROWS.encode("cp1252"), "is not in UTF-8: save it from the spreadsheet as `CSV UTF-8`"),
    (ROWS.encode("utf-16"), "is not in UTF-8"),
    (ROWS.encode("utf-16-le"), "is not in UTF-8"),
    (b'train/1.jpg,2\n"train/3.jpg,1\n', "is not a CSV file"),
    (b"train/1.jpg,2.5\n", "row 1: the label 2.5 is not in -1 ... 3"),
    (b"train/1.jpg,nan\n", "row 1: the label nan is not in -1 ... 3"),
    (b"train/1.jpg,2\n\nid,label\n", "row 3: the label 'label' is not a whole number"),
    (b"train/7.jpg,zero\ntrain/9.jpg,x\ntrain/1.jpg,0\n", "row 2: the label 'x' is not a whole number"),
    (b"0,train/1.jpg\n2,train/3.jpg\n", "row 2: the label 'train/3.jpg' is not a whole number"),
    (b"train/1.jpg,2\ntrain/8.jpg,2\ntrain/9.jpg,2\n", "row 2: there is no file train/8.jpg, and 1 others are missing"),
])  # fmt: skip
def test_tables_that_are_refused(tmp_path, content, words):
    with pytest.raises(UsageError) as refused:
        load_split("cpen455", "train", with_table(tmp_path, content), 8)
    assert words in str(refused.value) and "\n" not in str(refused.value)


# classify takes what a user types


@pytest.fixture
def album(tmp_path, monkeypatch):
    """Three pictures, one of them a folder deeper, and a note; the current folder is the one around them."""
    (tmp_path / "album" / "deeper").mkdir(parents=True)
    for name, colour in (("a.png", "red"), ("b.JPG", "blue"), ("deeper/c.png", "green")):
        Image.new("RGB", (32, 32), colour).save(tmp_path / "album" / name)
    (tmp_path / "album" / "notes.txt").write_text("to do")
    litter(tmp_path / "album")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "album"


def classified(capsys, *files, status=0) -> list[str]:
    capsys.readouterr()
    assert main(["classify", "--checkpoint=cartoons", "--device=cpu", *files]) == status
    return [line.split(":")[0].replace("\\", "/") for line in capsys.readouterr().out.splitlines()]


def test_folders_and_patterns_are_classified(album, capsys):
    assert classified(capsys, "album") == ["album/a.png", "album/b.JPG", "album/deeper/c.png"]
    assert classified(capsys, "album/*.png", "album/a.png") == ["album/a.png"]
    assert classified(capsys, "album/**/*.png") == ["album/a.png", "album/deeper/c.png"]
    assert classified(capsys, "album/d*", f"../{album.parent.name[:-1]}?/album/a.*") == [
        "album/deeper/c.png",
        f"../{album.parent.name}/album/a.png",
    ]
    assert classified(capsys, "album/a.png", "album/@eaDir", "album/._0.png") == ["album/a.png"]
    assert classified(capsys, "album/a.png", "album/Thumbs.db") == ["album/a.png"]  # as a shell's * has it
    shutil.copy(album / "a.png", album / "d[1].png")
    assert classified(capsys, "album/d[1].png") == ["album/d[1].png"]


def test_good_pictures_beside_broken_ones_are_classified(album, capsys):
    (album / "b.JPG").write_bytes(b"no picture")
    capsys.readouterr()
    assert main(["classify", "--checkpoint=cartoons", "--device=cpu", "album/a.png", "album/b.JPG", "album/x.png"]) == 2
    text = capsys.readouterr()
    assert text.out.startswith("album/a.png: ") and text.out.count("\n") == 1
    assert "2 of 3 files cannot be read as pictures: album/b.JPG (" in text.err and "album/x.png (" in text.err


@pytest.mark.parametrize(
    "typed, words",
    [
        ("", "name is empty"),
        ("nothing*.png", "no file matches nothing*.png"),
        ("hollow", "there is no picture in hollow"),
        ("album/Thumbs.db", "there is no picture in"),
    ],
)
def test_what_cannot_be_classified(album, capsys, typed, words):
    (album.parent / "hollow").mkdir()
    capsys.readouterr()
    assert main(["classify", "--checkpoint=cartoons", "--device=cpu", typed]) == 2
    text = capsys.readouterr()
    assert words in text.err and text.err.count("\n") == 1 and not text.out


def test_the_reference_of_fid_is_read_like_any_folder(album, capsys):
    found, others = find_pictures(album)
    assert [path.name for path in found] == ["a.png", "b.JPG", "c.png"] and [path.name for path in others] == [
        "notes.txt"
    ]


def test_an_unknown_picture_is_an_upload_in_plain_words():
    with pytest.raises(UsageError, match=r"no picture of a known kind: choose a PNG"):
        read_upload(io.BytesIO(b"text").getvalue(), 8)
