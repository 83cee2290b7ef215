"""The class's leaderboard: what is read and refused, the two halves, scores worked out by hand, and the page."""

import csv
import html.parser
import io
import os
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from kit import board, leaderboard
from kit.__main__ import main
from kit.board import Team
from utils import UsageError
from utils import note as said_once

NAMES = ["test/0000021.jpg", "test/0000027.jpg", "test/0000003.jpg"]
DASH = "\N{EN DASH}"  # in an empty cell


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))


class Page(html.parser.HTMLParser):
    """The texts of a page's table, row by row, every tag's name, and every attribute."""

    def __init__(self, path: Path):
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1] and self.lasttag not in ("style", "script", "h2", "dl", "dt", "dd", "ul", "li"):
            self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())


# the file


@pytest.mark.parametrize(
    "content",
    [
        b"test/0000003.jpg,3\ntest/0000021.jpg,2\ntest/0000027.jpg,0\n",  # in any order
        b"\xef\xbb\xbftest/0000021.jpg;2\r\ntest/0000027.jpg;0\r\ntest/0000003.jpg;3",  # as a spreadsheet saves it
        b"test\\0000021.jpg, 2\n\ntest\\0000027.jpg,0\ntest\\0000003.jpg,3,\n",
        b"id,label\n0000021.jpg,2\n0000003.jpg,3\n0000027.jpg,0\nfid,31.5\n",
        b"\xef\xbb\xbfid,label\r\n0000021.jpg,2\r\n0000027.jpg,0\r\n0000003.jpg,3\r\nfid,31.5\r\n",
    ],
)
def test_reading_what_others_hand_in(tmp_path, content):
    (tmp_path / "s.csv").write_bytes(content)
    found = leaderboard.read(tmp_path / "s.csv", NAMES)
    claimed = ("2023", 31.5) if b"fid" in content else ("2024", None)
    assert found.labels == [2, 0, 3] and (found.format, found.claimed_fid) == claimed


@pytest.mark.parametrize(
    "content, words",
    [
        (
            b"name,class\ntest/0000021.jpg,2\n",
            r"line 1: 'name,class' is neither a picture's row nor the header id,label",
        ),
        (
            b"test/0000021.jpg,2\ntest/9.jpg,0\n",
            r"line 2: there is no test picture 'test/9.jpg'; names look like test/00",
        ),
        (b"0000021.jpg,2\n", r"line 1: there is no test picture '0000021.jpg'"),
        (b"test/0000021.jpg,2\n\ntest/0000021.jpg,2\n", r"line 3: test/0000021.jpg appears twice"),
        (b"test/0000021.jpg,4\n", r"line 1: the label of test/0000021.jpg must be 0 to 3, not '4'"),
        (b"test/0000021.jpg,-1\n", r"line 1: .* must be 0 to 3, not '-1'"),
        (b"test/0000021.jpg,1.0\n", r"line 1: .* must be 0 to 3, not '1.0'"),
        (b"test/0000021.jpg,nan\n", r"line 1: .* must be 0 to 3, not 'nan'"),
        ("test/0000021.jpg,²\n".encode(), r"line 1: .* must be 0 to 3, not '²'"),
        (b"test/0000021.jpg,99999999999999999999\n", r"line 1: .* must be 0 to 3"),
        (b"test/0000021.jpg,1,1\n", r"line 1: .* must be 0 to 3, not '1,1'"),
        (b"test/0000021.jpg\n", r"line 1"),
        (b"test/0000021.jpg,2\ntest/0000027.jpg,0\n", r"no row for test/0000003.jpg of the 3 pictures"),
        (b"test/0000021.jpg,2\n", r"no row for test/0000027.jpg and 1 more of the 3"),
        (b"test/0000021.jpg,2\ntest/000", r"line 2: there is no test picture 'test/000'"),
        (b"id,label\n0000021.jpg,2\n0000027.jpg,0\n0000003.jpg,3\n", r"line 4: the last row must be fid,NUMBER"),
        (b"id,label\n0000021.jpg,2\nfid,nan\n", r"line 3: the last row must be fid,NUMBER, not 'fid,nan'"),
        (b"id,label\n0000021.jpg,2\nfid,-3\n", r"line 3: the last row must be fid,NUMBER"),
        (b"id,label\n", r"line 1: the last row must be fid,NUMBER"),
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0", "is not in UTF-8"),
        (b'"test/0000021.jpg,2\n', "is not a CSV file"),
        (b"x" * 200_000, "is not a CSV file"),
    ],
)
def test_what_is_no_submission_is_refused_by_file_and_line(tmp_path, content, words):
    (tmp_path / "s.csv").write_bytes(content)
    with pytest.raises(UsageError, match=words) as refused:
        leaderboard.read(tmp_path / "s.csv", NAMES)
    assert "\n" not in str(refused.value) and str(tmp_path / "s.csv") in str(refused.value)


def test_a_file_of_a_gigabyte_is_not_read(tmp_path):
    with open(tmp_path / "s.csv", "wb") as file:
        file.truncate(10**9)  # takes no room on the disk
    with pytest.raises(UsageError, match="has 1000 MB"):
        leaderboard.read(tmp_path / "s.csv", NAMES)


def test_other_numbers_of_classes(tmp_path):
    leaderboard.write(tmp_path / "s.csv", NAMES, [9, 0, 4], nr_classes=10)
    assert leaderboard.check(tmp_path / "s.csv", NAMES, nr_classes=10) == [9, 0, 4]
    with pytest.raises(UsageError, match="must be 0 to 8, not '9'"):
        leaderboard.check(tmp_path / "s.csv", NAMES, nr_classes=9)
    (tmp_path / "s.csv").write_text("id,label\na.jpg,0\na.jpg,1\nfid,3\n")
    with pytest.raises(UsageError, match=r"a\.jpg appears twice"):  # without their folders two are one
        leaderboard.read(tmp_path / "s.csv", ["x/a.jpg", "y/a.jpg"])


# the scores


def team(name: str, *predictions: int) -> Team:
    return Team(name, predictions=torch.tensor(predictions))


def test_scores_and_ranks_by_hand():
    truth = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 1])
    half = torch.tensor([True] * 10 + [False] * 2)
    teams = [
        team("worst", *[1] * 10, 0, 1),  # what is outside of the half does not count
        team("b", 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1),
        team("c", 1, 0, 0, 0, 1, 1, 0, 2, 0, 0, 1, 0),
        team("best", 0, 0, 0, 0, 1, 1, 1, 2, 2, 0, 1, 0),
        team("Sharp-HYBRID", *truth.tolist()),
        Team("refused", refused="no file"),
    ]
    found = board.standings(teams, truth, half)
    assert list(found) == ["Sharp-HYBRID", "best", "b", "c", "worst"]
    assert [(s.hits, s.count, s.rank) for s in found.values()] == [
        (10, 10, None), (9, 10, 1), (6, 10, 2), (6, 10, 2), (3, 10, 4),
    ]  # fmt: skip
    # right alone: best 3, b 0; b 1, c 1; c 4, worst 1: twice the tail of a fair coin, 1 at most
    assert [s.p_below for s in found.values()] == [None, 2 / 8, 1.0, 2 * (5 + 1) / 32, None]
    best = found["best"]
    # class 0: 4 right, 1 false; class 1: 3 right; class 2: 2 right, 1 missed
    assert best.macro_f1 == pytest.approx((8 / 9 + 1 + 4 / 5) / 3)
    assert found["worst"].macro_f1 == pytest.approx((0 + 2 * 3 / (2 * 3 + 7) + 0) / 3)
    z2 = 1.959963984540054**2
    middle, reach = (0.9 + z2 / 20) / (1 + z2 / 10), (z2 * (0.9 * 0.1 / 10 + z2 / 400)) ** 0.5 / (1 + z2 / 10)
    assert (best.low, best.high) == pytest.approx((middle - reach, middle + reach))
    assert (round(best.low, 4), round(best.high, 4)) == (0.5958, 0.9821)
    assert best.accuracy == 0.9
    equals = board.standings([team("a-hybrid", *truth.tolist()), team("b", *truth.tolist())], truth, half)
    assert list(equals) == ["b", "a-hybrid"], "a hybrid below its equals"


def test_a_half_depends_on_the_seed_and_the_pictures_alone():
    labels = {f"test/{n}.png": n % 3 if n < 90 else 3 for n in range(95)}
    public = board.public_half(labels, 0)
    chosen = {name for name, taken in zip(labels, public.tolist(), strict=True) if taken}
    backwards = dict(reversed(labels.items()))
    again = board.public_half(backwards, 0)
    assert chosen == {name for name, taken in zip(backwards, again.tolist(), strict=True) if taken}
    assert len(chosen) == 48 and not torch.equal(public, board.public_half(labels, 1))
    for label, count in ((0, 30), (1, 30), (2, 30), (3, 5)):
        assert abs(2 * sum(labels[name] == label for name in chosen) - count) <= 1
    first = [labels[f"test/{n}.png"] == 0 for n in range(95)]
    assert public[first].tolist() != [True, False] * 15  # at random, not every second


# the command


@pytest.fixture
def course(tmp_path):
    """A teacher's labels, of 12 pictures of 3 classes, and a way to hand in."""
    labels = {f"test/{n:02d}.jpg": n % 3 for n in range(12)}
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "test_labels.csv").write_text("".join(f"{name},{y}\n" for name, y in labels.items()))
    said_once.cache_clear()

    class Course:
        place, out = tmp_path / "in", tmp_path / "out"
        public = board.public_half(labels, 0).tolist()

        def hand_in(self, path: str, hits_public: int, hits_private: int) -> Path:
            """So many right labels in either half."""
            left = {True: hits_public, False: hits_private}
            rows = []
            for (name, y), half in zip(labels.items(), self.public, strict=True):
                rows.append(f"{name},{y if left[half] > 0 else (y + 1) % 3}\n")
                left[half] -= 1
            (self.place / path).parent.mkdir(parents=True, exist_ok=True)
            (self.place / path).write_text("".join(rows))
            return self.place / path

        def run(self, *flags: object) -> int:
            where = ["--labels", str(tmp_path / "teacher" / "test_labels.csv"), "--out", str(self.out)]
            return main(["leaderboard", str(self.place), *where, *map(str, flags)])

        def table(self) -> list[dict[str, str]]:
            return rows_of(self.out / "leaderboard.csv")

    return Course()


def test_a_class_of_teams(course, capsys):
    course.hand_in("ann.csv", 5, 1)
    course.hand_in("bob/submission.csv", 6, 0)
    course.hand_in("late-hybrid.csv", 6, 6)
    course.hand_in("zoe/submission.csv", 5, 6)
    course.hand_in("two.csv", 6, 6)
    course.hand_in("two/again.csv", 6, 6)
    half = course.hand_in("half.csv", 6, 6)
    half.write_bytes(half.read_bytes()[:30])
    course.out.mkdir()
    (course.out / "mine.txt").write_text("kept")
    (course.out / "leaderboard.csv").write_text("old")
    assert course.run() == 0
    said = capsys.readouterr()
    assert "3 of 6 teams ranked on the public half of test_labels.csv, 6 of 12 pictures, seed 0" in said.out
    assert "refused: two: 2 .csv files, one is due: two/again.csv, two.csv\n" in said.out and said.err == ""
    rows = course.table()
    assert [(row["rank"], row["team"], row["accuracy, %"]) for row in rows] == [
        ("1", "bob", "100.0"), ("", "late-hybrid", "100.0"), ("2", "ann", "83.33"), ("2", "zoe", "83.33"),
        ("", "half", ""), ("", "two", ""),
    ]  # fmt: skip
    assert [row["p against the next"] for row in rows] == ["1.0", "", "1.0", "", "", ""]
    assert rows[1]["note"].startswith("trained with --hybrid: not purely generative")
    assert rows[4]["note"] == "half.csv, line 3: there is no test picture 'te'; names look like test/00.jpg"
    assert (course.out / "mine.txt").read_text() == "kept"
    assert sorted(path.name for path in course.out.iterdir()) == ["leaderboard.csv", "leaderboard.html", "mine.txt"]

    page = Page(course.out / "leaderboard.html")
    assert page.rows[1] == ["1", "bob", "100.0", "61.0 to 100.0", "p = 1.00", "100.0"]
    assert page.rows[2][:3] == [DASH, f"late-hybrid {rows[1]['note']}", "100.0"]
    assert page.rows[5] == [DASH, "half", f"refused: {rows[4]['note']}"]
    assert "private half" in page.source and "6 of 12 test pictures (test_labels.csv, 3 classes)," in page.source
    assert str(course.place.parent) not in page.source, "folders of this machine are nobody's business"


def test_what_is_published_says_nothing_of_the_private_half(course):
    course.hand_in("ann.csv", 5, 1)
    course.hand_in("bob.csv", 4, 2)
    assert course.run() == 0
    before = [(course.out / name).read_bytes() for name in ("leaderboard.csv", "leaderboard.html")]
    course.hand_in("ann.csv", 5, 6)
    course.hand_in("bob.csv", 4, 0)
    assert course.run() == 0
    assert before == [(course.out / name).read_bytes() for name in ("leaderboard.csv", "leaderboard.html")]


def test_the_end(course):
    for name, *hits in (("ann", 6, 2), ("bob", 5, 4), ("cem", 4, 3), ("dan-hybrid", 6, 6)):
        course.hand_in(f"submitted/{name}/project/submission.csv", *hits)
    assert course.run("--final") == 0
    columns = ("team", "rank", "accuracy, %", "public accuracy, %", "public rank", "places up")
    assert [tuple(row[column] for column in columns) for row in course.table()] == [
        ("dan-hybrid", "", "100.0", "100.0", "", ""),
        ("bob", "1", "66.67", "83.33", "2", "1"),
        ("cem", "2", "50.0", "66.67", "3", "1"),
        ("ann", "3", "33.33", "100.0", "1", "-2"),
    ]
    page = Page(course.out / "leaderboard.html")
    assert [row[-3:] for row in page.rows[2:5]] == [
        ["83.3", "2", "+1"],
        ["66.7", "3", "+1"],
        ["100.0", "1", "\N{MINUS SIGN}2"],
    ]
    assert "the private half" in page.source


def test_hostile_names(course, capsys):
    names = [
        "<script>alert(1)",
        "=cmd|'c calc'!A0",
        "a\x1b[2Jb",
        "x\u202ey",
        '" onmouseover="alert(1)',
        "{{ 7 * 7 }}",
        "a\\x1b[2Jb",
    ]
    for name in names:
        course.hand_in(f"{name}.csv", 3, 3)
    course.hand_in("n\nm/a.csv", 3, 3)
    os.rename(course.hand_in("latin.csv", 3, 3), os.fsencode(course.place) + b"/\xe9.csv")
    assert course.run() == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\u202e" not in said
    page, table = Page(course.out / "leaderboard.html"), (course.out / "leaderboard.csv").read_text("utf-8-sig")
    assert page.tags.count("script") == 1 and "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    shown = {row[1] for row in page.rows[1:]}
    assert {
        "<script>alert(1)",
        '" onmouseover="alert(1)',
        "{{ 7 * 7 }}",
        "x\\u202ey",
        "a\\x1b[2Jb",
        "a\\\\x1b[2Jb",
    } <= shown
    assert "n\\nm" in shown and "\\udce9" in shown and len(shown) == 9
    assert "'=cmd" in table and ",=" not in table and "\x1b" not in table
    assert not re.search(r"https?://|src=[\"']|<link|url\(", page.source), "it needs nothing from elsewhere"


def test_what_is_no_file_of_a_team(course, capsys):
    elsewhere = course.hand_in("../elsewhere.csv", 6, 6)
    course.hand_in("ann.csv", 3, 3)
    (course.place / "folder.csv").mkdir()
    (course.place / "link.csv").symlink_to(elsewhere)
    (course.place / "away").symlink_to(course.place.parent / "teacher")
    (course.place / "gone.csv").symlink_to(course.place / "nothing")
    os.mkfifo(course.place / "pipe.csv")
    (course.place / ".hidden.csv").write_text("x")
    (course.place / "empty").mkdir()
    (course.place / "notes.txt").write_text("x")
    assert course.run() == 0
    refused = [row["team"] for row in course.table() if row["note"].startswith("no .csv file")]
    assert refused == ["away", "empty", "folder.csv", "gone", "link", "pipe"] and len(course.table()) == 7


@pytest.mark.parametrize(
    "labels, words",
    [
        ("test/0.jpg,-1\ntest/1.jpg,-1\n", "line 1: the label of test/0.jpg is -1: these are the students' own copy"),
        ("test/0.jpg,0\ntest/1.jpg,x\n", "line 2: rows are path,label"),
        ("test/0.jpg,0\ntest/1.jpg,1.5\n", "line 2: rows are path,label"),
        ("test/0.jpg,0\ntest/1.jpg,1000\n", "labels 0 to 999, not 'test/1.jpg,1000'"),
        ("test/0.jpg,0\ntest/0.jpg,1\n", "line 2: test/0.jpg appears twice"),
        ("path,label\ntest/0.jpg,0\n", "has 1 rows of pictures"),
        ("", "has 0 rows of pictures"),
        ("\0", "is not in UTF-8"),
    ],
)
def test_wrong_labels(tmp_path, labels, words):
    (tmp_path / "y.csv").write_text(labels)
    with pytest.raises(UsageError, match=re.escape(words)):
        board.read_labels(tmp_path / "y.csv")


def test_labels_as_a_spreadsheet_saves_them(tmp_path):
    (tmp_path / "y.csv").write_bytes(b"\xef\xbb\xbfpath;label\r\ntest\\0.jpg;1\r\ntest\\1.jpg;0\r\n")
    assert board.read_labels(tmp_path / "y.csv") == {"test/0.jpg": 1, "test/1.jpg": 0}


def test_wrong_settings(course, capsys):
    def refused(*flags, word):
        capsys.readouterr()
        assert course.run(*flags) == 2
        said = capsys.readouterr()
        assert said.err.startswith("error: ") and said.err.count("\n") == 1 and word in said.err, said.err
        assert said.out == "" and not course.out.exists()

    refused(word="there is no file or folder")
    course.place.mkdir()
    refused(word="no .csv files in")
    inside = course.hand_in("ann.csv", 6, 6)
    refused("--labels", course.place / "nothing.csv", word="lies in")
    refused("--labels", inside, word="--labels")
    refused("--out", course.place / "out", word="--out")
    refused("--labels", course.place.parent / "nothing.csv", word="there is no file")
    refused("--labels", course.place.parent, word="there is no file")
    refused("--reference", course.place.parent / "nothing", word="there is no folder")
    refused("--reference", course.place, word="too few for 192 dims")
    refused("--rubric", "none", word="there is no rubric 'none': choose from cpen455-2024, cpen455-2025, project")
    refused("--by-hand", "x.csv", word="add such a --rubric")
    assert main(["leaderboard", str(inside), "--labels", str(inside), "--out", str(course.out)]) == 2


# the samples


@pytest.fixture
def reference(tmp_path, monkeypatch):
    """A folder that is taken for real pictures; FIDs are what `calls` says of a team's folder."""
    (tmp_path / "real").mkdir()
    for n in range(192):
        Image.new("RGB", (8, 8)).save(tmp_path / "real" / f"{n}.png")
    monkeypatch.setattr(board, "find_weights", lambda: tmp_path)
    return tmp_path / "real"


def draw(folder: Path, per_class: int, size: int = 8) -> None:
    folder.mkdir(parents=True)
    for label in range(4):
        for n in range(1, per_class + 1):
            Image.new("RGB", (size, size)).save(folder / f"Class{label}_image_{n:02d}.png")


def test_fids_are_asked_for_as_the_course_takes_them(course, reference, monkeypatch, capsys):
    asked = {}

    def fid(samples, real, dims, **how):
        asked[samples.parent.name] = dims, how["course"], how["resize_reference"], how["bootstrap"]
        return type("Score", (), {"value": 40.0 + len(asked)})

    monkeypatch.setattr(board, "fid", fid)
    for name, per_class, size in (("ann", 25, 8), ("bob", 50, 8), ("cem", 25, 2), ("dan", 25, 8)):
        course.hand_in(f"{name}/submission.csv", 3, 3)
        draw(course.place / name / "samples", per_class, size)
    (course.place / "dan" / "samples" / "Class0_image_01.png").unlink()
    course.hand_in("eve.csv", 3, 3)
    draw(course.place / "eve" / "samples", 25)
    course.hand_in("fay.csv", 3, 3)
    (course.place / "fay").mkdir()
    (course.place / "fay" / "samples").symlink_to(course.place / "ann" / "samples")
    assert course.run("--reference", reference, "--rubric", "cpen455-2024") == 0
    assert asked == {"ann": (192, True, True, 0), "bob": (192, False, True, 0), "eve": (192, True, True, 0)}
    found = {row["team"]: (row["FID"], row["samples"], row["generation"]) for row in course.table()}
    assert found["ann"] == ("41.0", "100", "22.17") and found["bob"] == ("42.0", "200", "21.0")  # 35 x 19 / 30 and 18
    assert found["cem"] == found["dan"] == found["fay"] == ("", "", "") and found["eve"][0] == "43.0"
    said = capsys.readouterr().err
    assert "cem: no FID: its samples are 2x2, most teams' 8x8" in said and "dan: no FID:" in said
    assert "generation" in said.splitlines()[-1], "a blank part is said"


def test_without_the_weights_there_is_one_note_and_no_column(course, reference, monkeypatch, capsys):
    def find_weights():
        raise UsageError("no Inception weights")

    monkeypatch.setattr(board, "find_weights", find_weights)
    course.hand_in("ann/submission.csv", 3, 3)
    draw(course.place / "ann" / "samples", 25)
    assert course.run("--reference", reference) == 0
    assert capsys.readouterr().err.splitlines() == ["note: there is no FID: no Inception weights"]
    assert "FID" not in course.table()[0] and ">FID" not in Page(course.out / "leaderboard.html").source


# the points


def test_points_of_a_class(course, capsys):
    """The kit's own rubric: 30 from 50 to 90 %, 10 by rank, 30 and 20 by hand; no FID here."""
    for name, *hits in (("ann", 6, 0), ("bob", 4, 0), ("=c", 3, 0), ("x-hybrid", 6, 6)):
        course.hand_in(f"{name}.csv", *hits)
    (course.place / "none.csv").write_text("")
    marks = course.place.parent / "marks.csv"
    marks.write_text(
        "team;report;own fusion explained;remark\r\n'=c;10;0\r\nann;27,5;;good\r\nx-hybrid;20;1\r\nnone;5;5\r\n"
    )
    assert course.run("--rubric", "project", "--by-hand", marks) == 0
    columns = ("team", "accuracy points", "FID points", "rank points", "report", "own fusion explained", "points")
    expected = [
        ("ann", "30.0", "", "6.67", "27.5", "", "64.17"),
        ("x-hybrid", "", "", "", "20.0", "1.0", "21.0"),
        ("bob", "12.5", "", "3.33", "", "", "15.83"),  # (66.67 - 50) / 40 x 30
        ("'=c", "0.0", "", "0.0", "10.0", "0.0", "10.0"),
        ("none", "", "", "", "5.0", "5.0", "10.0"),
    ]
    assert [tuple(row[column] for column in columns) for row in course.table()] == expected
    assert "not in their total: FID points, report, own fusion explained\n" in capsys.readouterr().err

    kept = (course.out / "leaderboard.csv").read_bytes()
    course.hand_in("bob.csv", 5, 0)
    for flags, lost in (
        (["--rubric", "project"], "report, own fusion explained"),
        ([], "accuracy points, rank points, report, own fusion explained"),
        (["--rubric", "cpen455-2025"], "accuracy points, rank points, report, own fusion explained"),
    ):
        assert course.run(*flags) == 2
        said = capsys.readouterr().err
        assert f"holds points for {lost}, which would be lost: keep a copy of it" in said, said
    assert (course.out / "leaderboard.csv").read_bytes() == kept
    course.hand_in("bob.csv", 4, 0)
    (course.out / "leaderboard.csv").replace(marks)
    assert course.run("--rubric", "project", "--by-hand", marks) == 0, "a copy of the table gives them again"
    assert [tuple(row[column] for column in columns) for row in course.table()] == expected
