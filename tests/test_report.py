"""`make report`: the page says what a run is worth, two runs side by side, and what is missing; it needs no network."""

import html
import json
import os
import re
import subprocess
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import random_pictures, save_small_model, small_model, tiny
from scipy.stats import binomtest

from kit import report
from kit.__main__ import main
from kit.commands import report as module
from kit.report import Examined, commit, examine, most_confused, rough_fid
from kit.train import train
from kit.widgets.base import to_png
from utils import UsageError, checkpoints
from utils.classify import class_log_likelihoods, log_posterior
from utils.data import load_split
from utils.figures import to_picture

ROOT = Path(__file__).parents[1]
LINE = {"epoch": 1, "train_bpd": 3.0, "validation_bpd": 2.0, "validation_accuracy": 0.5}


@pytest.fixture
def page_maker(monkeypatch, tmp_path):
    """`python -m kit report`, with dist/ and runs in a folder of the test's own."""
    monkeypatch.setattr(module, "DIST", tmp_path / "dist")
    monkeypatch.setenv("PIXELCNN_RUNS", str(tmp_path / "runs"))
    return lambda *words: main(["report", *words])


def in_cells(page: str) -> list[list[str]]:
    """The rows of all tables, as texts."""
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    return [[html.unescape(re.sub("<.*?>", "", c)) for c in re.findall(r"<t[hd]>(.*?)</t[hd]>", r)] for r in rows]


def expected(weights: Path, root: Path) -> tuple[str, str, str]:
    """Bits per dimension, accuracy and its interval of the picture folder's validation split, by hand."""
    x, y = load_split("folder", "validation", root, 8).tensors()
    nats = class_log_likelihoods(checkpoints.load_model(weights), x).double()
    bits = sum(-float(nats[i, y[i]]) for i in range(6)) / 6 / (3 * 8 * 8) / 0.6931471805599453
    hits = len(right_ones(weights, root))
    interval = binomtest(hits, 6).proportion_ci(method="wilson")
    return f"{bits:.4f}", f"{hits / 6:.2%}, {hits} of 6", f"{interval.low:.1%} to {interval.high:.1%}"


def right_ones(weights: Path, root: Path) -> list[int]:
    """Which of the picture folder's validation pictures are named rightly."""
    x, y = load_split("folder", "validation", root, 8).tensors()
    nats = class_log_likelihoods(checkpoints.load_model(weights), x).double()
    return [i for i in range(6) if nats[i].argmax() == y[i]]


def test_a_page_on_two_runs(page_maker, picture_folder, tmp_path, capsys):
    folders = []
    for name, filters in (("mine", 4), ("<other>", 5)):
        folder = tmp_path / "runs" / name
        train(*tiny(picture_folder, nr_filters=filters, lr=1e-2), folder)
        folders.append(folder)
    assert page_maker("mine <other>") == 0
    path = tmp_path / "dist" / "report-mine-other.html"
    assert str(path) in capsys.readouterr().out
    page = path.read_text()
    rows = in_cells(page)
    assert ["", "mine", "<other>"] in rows and "<other>" not in page
    both = [expected(folder / "best.safetensors", picture_folder) for folder in folders]
    for what, first, second in zip(("bits per dimension", "accuracy", "its 95 % interval"), *both, strict=True):
        assert [what, first, second] in rows
    assert ["pictures", *["folder, validation split, 6 pictures"] * 2] in rows
    right = [set(right_ones(folder / "best.safetensors", picture_folder)) for folder in folders]
    alone = len(right[0] - right[1]), len(right[1] - right[0])
    assert f"right alone: mine {alone[0]}, &lt;other&gt; {alone[1]} of 6; sign test p = " in page
    assert "<td><b>nr_filters</b></td><td><b>4</b></td><td><b>5</b></td>" in page and ["lr", "0.01", "0.01"] in rows
    assert ["epochs trained", "2 of 2", "2 of 2"] in rows
    best = [
        min(map(json.loads, (f / "metrics.jsonl").open()), key=lambda line: line["validation_bpd"]) for f in folders
    ]
    assert ["weights", *(f"best.safetensors of epoch {line['epoch']}" for line in best)] in rows
    assert str(tmp_path) not in page and str(ROOT) not in page, "a path of this machine"
    assert page.count("has no FID") == 2 and page.count("no metrics.jsonl") == 0

    sources = re.findall(r"<(\w+)[^>]*? (?:src|href)=[\"']?([^\"'>]*)", page)
    assert {tag for tag, _ in sources} <= {"img", "a"}
    assert all(where.startswith(("data:image/png;base64,", "#")) for _, where in sources)
    assert len([tag for tag, _ in sources if tag == "img"]) == 7  # curves, confusion, calibration, 2 rows, 2 galleries
    assert "http" not in page.replace("http://www.w3.org", "") and "<script" not in page and "url(" not in page


def test_a_page_on_a_file_of_weights(page_maker, picture_folder, tmp_path):
    """It has no settings, curves, FID or times of training; each is said."""
    weights = save_small_model(tmp_path / "two.safetensors", 2)
    flags = [str(weights), "--dataset", "folder", "--data-root", str(picture_folder)]
    assert page_maker(*flags) == 0
    (path,) = (tmp_path / "dist").iterdir()
    page = path.read_text()
    assert [["accuracy", expected(weights, picture_folder)[1]]] == [r for r in in_cells(page) if r[:1] == ["accuracy"]]
    for said in ("settings it was trained with are not in it", "so there are no curves", "has no FID", "how long"):
        assert said in page
    assert "Traceback" not in page and ".svg" not in page, "the badges are not of the page"


def test_where_the_page_of_one_run_lies(page_maker, picture_folder, tmp_path, monkeypatch):
    folder = tmp_path / "runs" / "mine"
    train(*tiny(picture_folder, epochs=1), folder)
    monkeypatch.setattr("notebooks.build.execute", lambda *_args, **_more: None)
    assert page_maker("mine") == 0
    assert (folder / "report.html").is_file() and not (tmp_path / "dist").exists()
    assert page_maker("cartoons-hard") == 0  # a run too, but a shipped one: its folder stays as it is
    assert (tmp_path / "dist/report-cartoons-hard.html").is_file()


@pytest.mark.parametrize(
    "flags, words",
    [
        (["nothing"], "no weights found for 'nothing'"),
        ([""], "make report RUN=mine"),
        (["a b c"], "make report RUN=mine"),
        (["two.safetensors"], "choose one with --dataset"),
        (["two.safetensors", "--dataset", "cartoons"], "two.safetensors has others: dark, light"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(page_maker, tmp_path, capsys, monkeypatch, flags, words):
    save_small_model(tmp_path / "two.safetensors", 2)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert page_maker(*flags) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ") and said.err.count("\n") == 1 and words in said.err and said.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["two.safetensors"]


def test_make_passes_the_name(tmp_path):
    environment = {name: v for name, v in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--no-print-directory", "--dry-run", "report", "RUN=mine other"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment | {"RUN": "exported"})
    assert "-m kit report 'mine other'" in done.stdout
    done = subprocess.run(command[:-1], cwd=ROOT, capture_output=True, text=True, env=environment | {"RUN": "exported"})
    assert "-m kit report ''" in done.stdout


def test_pictures_without_a_label_do_not_count(course_data, tmp_path):
    weights = tmp_path / "four.safetensors"
    checkpoints.save_model(small_model(torch.float32, num_classes=4), weights)
    with open(course_data / "validation.csv") as table:
        rows = table.read().splitlines()
    (course_data / "validation.csv").write_text("\n".join([rows[0][:-1] + "-1", *rows[1:]]) + "\n")
    examined = examine(str(weights), "validation", "cpen455", course_data)
    assert len(examined.y) == len(examined.nats) == 5 and examined.data.endswith("5 pictures")
    with pytest.raises(UsageError, match="no label of cpen455's test split is known"):
        examine(str(weights), "test", "cpen455", course_data)


def test_the_same_weights_give_the_same(picture_folder, tmp_path):
    weights = save_small_model(tmp_path / "two.safetensors", 2)
    first, second = (examine(str(weights), "test", "folder", picture_folder) for _ in range(2))
    assert torch.equal(first.nats, second.nats) and torch.equal(first.drawn, second.drawn)
    assert first.data == "folder, test split, 6 pictures"


def test_the_most_confused_come_first(picture_folder, tmp_path, monkeypatch):
    """By hand: of four pictures of class 0 the last is the surest to be taken for class 1, though both round to 1."""
    weights = save_small_model(tmp_path / "two.safetensors", 2)
    examined = examine(str(weights), "test", "folder", picture_folder)
    nats = torch.tensor([[0.0, 0.0], [0.0, -9.0], [0.0, 100.0], [0.0, 2000.0]], dtype=torch.float64)
    assert log_posterior(nats).exp()[2, 1] == log_posterior(nats).exp()[3, 1] == 1
    examined = examined.__class__(**vars(examined) | {"x": examined.x[:4], "y": torch.zeros(4).long(), "nats": nats})
    shown = {}
    monkeypatch.setattr("kit.report.picture", lambda *_args: None)
    monkeypatch.setattr("kit.report.sentence", lambda text: shown.update(text=text))
    monkeypatch.setattr("kit.report.captioned", lambda x, captions, zoom: shown.update(x=x, captions=captions))
    most_confused([examined])
    assert torch.equal(shown["x"], examined.x[[3, 2, 0, 1]])
    assert [c.split("\n")[2] for c in shown["captions"]] == ["100.0%", "100.0%", "50.0%", "below 0.1%"]
    assert shown["captions"][0].startswith("dark\nas light") and "2 are taken for another class" in shown["text"]


def test_the_fid_of_a_run_is_told_with_its_counts(picture_folder, tmp_path, monkeypatch):
    weights = save_small_model(tmp_path / "two.safetensors", 2)
    examined = examine(str(weights), "test", "folder", picture_folder)
    lines = [{"epoch": 1}, {"epoch": 2, "fid": 12.34, "fid_dims": 192, "fid_counts": [50, 6]}, {"epoch": 3}]
    said = []
    monkeypatch.setattr("kit.report.sentence", said.append)
    rough_fid([examined.__class__(**vars(examined) | {"lines": lines})])
    assert "epoch 2: 12.3 at 192 dims, 50 samples against 6 validation pictures" in said[0]


def test_the_commit_is_gits_own(tmp_path, monkeypatch):
    if (ROOT / ".git").exists():
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
        assert head.stdout.startswith(commit().removesuffix("-dirty"))
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)  # a student's own, around an unpacked kit
    name = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *name, "commit", "--quiet", "--allow-empty", "-m", "mine"], cwd=tmp_path, check=True)
    kit = tmp_path / "kit"
    kit.mkdir()
    monkeypatch.setattr("kit.report.KIT", kit)
    assert commit() == "not a git clone, so its commit is not known"
    (kit / ".git").write_text("gitdir: nowhere")  # a damaged clone
    assert commit() == "not a git clone, so its commit is not known"


@pytest.fixture
def sections(monkeypatch) -> dict:
    """What the sections of the page display: `texts`, and as `figures` what matplotlib was given."""
    shown: dict = {"texts": [], "figures": []}
    monkeypatch.setattr("kit.report.sentence", lambda text, tag="p": shown["texts"].append(text))
    monkeypatch.setattr("kit.report.table", lambda columns, **_how: shown["texts"].append(str(columns)))
    monkeypatch.setattr("kit.report.picture", lambda drawing, _alt: shown["figures"].append(drawing))
    return shown


def found(classes: tuple[str, ...], y: list[int], name: str = "mine") -> Examined:
    """An examination of random pictures of these labels by a small model, with random log-likelihoods."""
    model = small_model(torch.float32, num_classes=len(classes))
    model.class_names = classes
    generator = torch.Generator().manual_seed(0)
    nats = 3 * torch.randn(len(y), len(classes), dtype=torch.float64, generator=generator)
    x = random_pictures(len(y)).float()
    return Examined(
        name=name, file="weights", data="data", model=model, config=None, lines=[], x=x, y=torch.tensor(y),
        classes=classes, nats=nats, drawn=x[:1], labels=torch.tensor([0]), times={},
    )  # fmt: skip


def all_sections(examined: Examined) -> None:
    for section in (report.scores, report.confusion, report.calibration, most_confused, report.galleries):
        section([examined])


def test_a_page_on_a_hundred_classes_can_be_read(sections):
    names = tuple(f"species of beetle {n}" for n in range(100))
    examined = found(names, [n for n in range(99) for _ in range(2)])
    all_sections(examined)
    matrix = sections["figures"][0].axes[0]
    assert not matrix.texts and len(matrix.get_xticks()) < 15 and len(matrix.get_yticks()) < 15
    recall = examined.scores.recall
    worst = next(text for text in sections["texts"] if "lowest recalls" in text)
    assert worst.count("species of beetle") == 10 and "nan" not in worst
    assert f"0% of {recall.index(0.0)}, {names[recall.index(0.0)]}" in worst


def test_a_page_on_twenty_classes_names_them(sections):
    report.confusion([found(tuple(f"species {n}" for n in range(20)), list(range(20)))])
    matrix = sections["figures"][0].axes[0]
    assert [tick.get_text() for tick in matrix.get_xticklabels()] == [f"species {n}" for n in range(20)]
    assert len(matrix.texts) == 400 and not sections["texts"]


def test_a_page_on_one_class(sections):
    all_sections(found(("only",), [0, 0, 0]))
    assert "mine knows one class only, which cannot be taken for another." in sections["texts"]
    assert len(sections["figures"]) == 3, "confusion, calibration, gallery"


def test_a_page_on_names_that_matplotlib_would_not_show(sections, monkeypatch):
    """Formulas, a legend's hidden label, letters that the font lacks; and a class without a picture has no recall."""
    examined = found((r"$\frac$", "寿司", "_c"), [0, 1, 1, 0], name=r"_run $\frac$ 寿")
    captions: list[str] = []
    monkeypatch.setattr("kit.report.captioned", lambda x, lines, zoom: captions.extend(lines) or to_picture(x[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # as of glyphs that are missing
        all_sections(examined)
        report.curves([replace(examined, lines=[LINE])])
        for figure in sections["figures"]:
            if not hasattr(figure, "tobytes"):
                to_png(figure)
    confusion, calibration, *_, curves = sections["figures"]
    ticks = [tick.get_text().strip().replace(r"\$", "$") for tick in confusion.axes[0].get_yticklabels()]
    assert ticks[0].startswith(r"$\frac$ ") and ticks[1].startswith("class 1 ") and ticks[2] == "_c -"
    for axis in (calibration.axes[0], *curves.axes):
        assert any("_run" in text.get_text() for text in axis.get_legend().get_texts())
    assert "class 1" in {line for caption in captions for line in caption.split("\n")} and "寿司" not in str(captions)
