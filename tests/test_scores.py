"""What is said of a classification: few classes whole, of many the worst; Wilson's interval, worked out here."""

import csv
import math
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import small_model

from kit.classifier import Classifier
from kit.scores import paired, report, sign_test, wilson_interval
from utils.classify import calibration_curve, fit_calibration
from utils.data import UNKNOWN, ImageDataset, to_bytes


@pytest.mark.parametrize("hits, count", [(441, 519), (0, 1), (1, 1), (0, 40), (40, 40), (1, 3), (25_000, 50_000)])
def test_wilsons_interval(hits, count):
    """(p + z²/2n ± z √(p (1 - p) / n + z²/4n²)) / (1 + z²/n), z the normal distribution's 97.5 % quantile."""
    p, z = hits / count, 1.959963984540054
    half = z * math.sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
    by_hand = [(p + z**2 / (2 * count) + side * half) / (1 + z**2 / count) for side in (-1, 1)]
    low, high = wilson_interval(hits, count)
    assert [low, high] == pytest.approx(by_hand, rel=1e-9, abs=1e-12)
    assert 0 <= low < high <= 1


@pytest.mark.parametrize(
    "alone, p",
    [((0, 0), 1), ((1, 0), 1), ((3, 3), 1), ((5, 0), 2 / 2**5), ((1, 4), 2 * (1 + 5) / 2**5), ((4, 6), 772 / 2**10)],
)
def test_the_sign_test_by_hand(alone, p):
    """Two tails of a fair coin's throws: of 10, 0 to 4 come up in 1 + 10 + 45 + 120 + 210 = 386 of 1024 ways."""
    assert sign_test(*alone) == sign_test(*alone[::-1]) == pytest.approx(p, rel=1e-12)


def test_the_sign_test_by_counting():
    tail = sum(math.comb(40, k) for k in range(15))
    assert sign_test(26, 14) == pytest.approx(2 * tail / 2**40, rel=1e-9) == pytest.approx(0.0807, abs=1e-4)


def test_two_classifiers_on_the_same_pictures():
    """Both right, both wrong, the first alone, the second alone twice, and one that nobody can judge."""
    labels, first, second = (
        torch.tensor(row) for row in ([0, 1, 1, 0, 2, UNKNOWN], [0, 0, 1, 1, 0, 0], [0, 0, 2, 0, 2, 1])
    )
    assert paired(first, second, labels) == "right alone: A 1, B 2 of 5; sign test p = 1.00"
    assert paired(second, first, labels, ("mine", "theirs")).startswith("right alone: mine 2, theirs 1 of 5")
    assert paired(labels, labels, labels) == "right alone: A 0, B 0 of 5; sign test p = 1.00"


@pytest.mark.parametrize(
    "only_first, only_second, ending",
    [(26, 14, "p = 0.08"), (4, 6, "p = 0.75"), (9, 0, "p = 0.004"), (99, 0, "p < 0.0001")],
)
def test_p_is_rounded_to_what_matters(only_first, only_second, ending):
    labels = torch.zeros(only_first + only_second).long()
    first = torch.tensor([0] * only_first + [1] * only_second)
    assert paired(first, 1 - first, labels).endswith(f"sign test {ending}")


@dataclass
class Data:
    """What `report` looks at in a data set."""

    classes: tuple[str, ...]
    labels: torch.Tensor


def reported(capsys, classes, labels, taken_for, table: Path | None = None) -> list[str]:
    """The lines after the title for pictures of these labels that are surely taken for those classes."""
    y, logits = torch.tensor(labels), torch.full((len(labels), len(classes)), -50.0, dtype=torch.float64)
    logits[torch.arange(len(y)), taken_for] = 0.0
    model = small_model(torch.float32, num_classes=len(classes))
    report(logits, logits, Data(tuple(classes), y), model, "test split", "somehow", table)
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"test split, {len(y)} pictures, somehow"
    return lines


def test_few_classes_are_shown_whole(capsys, tmp_path):
    lines = reported(capsys, ("tea", "coffee", "熊"), [0, 0, 0, 1, UNKNOWN], [0, 0, 1, 1, 2], tmp_path / "c.csv")
    assert lines[4:] == [
        "recall and confusion (rows: the truth, columns: what it was taken for)",
        "                     tea  coffee      熊",
        "tea        66.7%       2       1       0",
        "coffee    100.0%       0       1       0",
        "熊             -       0       0       0",
    ]
    assert not list(tmp_path.iterdir())


def test_of_many_classes_the_worst_are_shown_and_all_are_written(capsys, tmp_path):
    """Class n of 60 has n pictures, of which 5 are taken for the classes after it; so the first has none."""
    classes = [f"Straße {n}, und so weiter" for n in range(60)]
    labels = [n for n in range(60) for _ in range(n)]
    taken_for = [n + [1, 1, 2, 3, 4][i] if i < 5 and n < 55 else n for n in range(60) for i in range(n)]
    table = tmp_path / "confusion.csv"
    lines = reported(capsys, classes, labels, taken_for, table)
    assert lines[4] == f"lowest recall of 60 classes; the whole confusion matrix is in {table}"
    assert sum(str(table) in line for line in lines) == 1 and max(map(len, lines)) < 200
    assert lines[5].split() == ["recall", "pictures", "most", "often", "taken", "for"]
    assert [line.split(",")[0] for line in lines[6:16]] == [f"Straße {n}" for n in range(1, 11)]
    assert lines[6] == "Straße 1, und so weiter       0.0%         1  Straße 2, und so weiter (1)"
    others = ", ".join(f"Straße {n}, und so weiter ({count})" for n, count in ((9, 2), (10, 1), (11, 1)))
    assert lines[13] == f"Straße 8, und so weiter      37.5%         8  {others} and 1 more"
    assert lines[16:] == ["without a picture here: Straße 0, und so weiter"]
    assert table.read_bytes().startswith("\ufefftruth,".encode()), "Excel sees by it that this is UTF-8"
    with open(table, encoding="utf-8-sig", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["truth", *classes] and [row[0] for row in rows] == classes
    expected = torch.zeros(60, 60, dtype=torch.long).index_put_(
        (torch.tensor(labels), torch.tensor(taken_for)), torch.tensor(1), accumulate=True
    )
    assert [[int(cell) for cell in row[1:]] for row in rows] == expected.tolist()


def test_long_names_of_few_classes(capsys, tmp_path):
    lines = reported(capsys, ["x" * 70 + "a", "x" * 70 + "b"], [0, 1, 1], [0, 0, 1], tmp_path / "new" / "c.csv")
    assert max(len(line) for line in lines[5:]) < 120 and (tmp_path / "new" / "c.csv").is_file()
    assert lines[6].startswith("x" * 15 + "…" + "x" * 13 + "b") and lines[6].split()[1:3] == ["50.0%", "2"]


def test_a_table_that_cannot_be_written_is_a_note(capsys, tmp_path):
    (tmp_path / "weights").write_text("a file, no folder")
    table = tmp_path / "weights" / "c.csv"
    classes = [f"a kind of tea {n}" for n in range(12)]
    y = torch.arange(12)
    report(torch.eye(12), torch.eye(12), Data(tuple(classes), y), small_model(num_classes=12), "s", "h", table)
    said = capsys.readouterr()
    assert said.err.startswith(f"note: cannot save {table}: ") and said.err.count("\n") == 1
    assert "lowest recall of 12 classes\n" in said.out and "100.0%" in said.out
    report(torch.eye(12), torch.eye(12), Data(tuple(classes), y), small_model(num_classes=12), "s", "h")
    assert capsys.readouterr().out == said.out, "nor is it written where no place is given"


def test_one_class(capsys):
    assert reported(capsys, ("tea",), [0, 0], [0, 0])[1:] == [
        "accuracy            100.00%  of 2, 95 % interval 34.2% to 100.0%",
        "macro F1            100.00%",
        "calibration error   0.00%",
        "recall and confusion (rows: the truth, columns: what it was taken for)",
        "               tea",
        "tea    100.0%    2",
    ]
    nats = torch.randn(5, 1, dtype=torch.float64)
    temperature, bias = fit_calibration(nats, torch.zeros(5).long())
    assert math.isfinite(temperature) and bias.tolist() == [0.0]
    assert calibration_curve(torch.ones(5, 1), torch.zeros(5).long()) == [(1.0, 1.0, 5)]


@pytest.mark.parametrize("count, words", [(3, 3), (10, 10), (11, 0), (80, 0)])
def test_the_biases_of_many_classes_are_a_range(monkeypatch, count, words):
    model, pictures = small_model(torch.float32, num_classes=count), torch.zeros(4, 3, 8, 8)
    bias = torch.linspace(-1.5, 2.5, count, dtype=torch.float64)
    data = ImageDataset(to_bytes(pictures), torch.zeros(4).long(), model.class_names, ["", "", "", ""])
    monkeypatch.setattr("kit.classifier.classify.fit_calibration", lambda *_given: (7.0, bias))
    _, how = Classifier("mine").judge([model], torch.zeros(1, 2, count).double(), data)
    (biases,) = re.findall("temperature 7, class biases (.*): fitted on 4", how)
    assert biases.split(", ") == [f"{b:+.2f}" for b in bias] if words else biases == "-1.50 to +2.50"
