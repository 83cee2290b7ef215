"""The dashboard follows files that somebody else writes."""

import contextlib
import io
import json
import os
import subprocess
import sys
import threading

import ipywidgets
import matplotlib
import pytest
from conftest import pixels, tiny, wait_for
from PIL import Image

from kit.metrics import read_metrics
from kit.train import train
from kit.widgets.dashboard import TrainingDashboard

matplotlib.use("agg")

LINE = {
    "train_bpd": 6.5,
    "validation_bpd": 6.0,
    "validation_accuracy": 0.5,
    "images_per_second": 100.0,
    "seconds": 60.0,
    "time": "2030-01-01T00:00:00Z",
}


@pytest.fixture
def shown(monkeypatch) -> list:
    calls: list = []
    monkeypatch.setattr("kit.widgets.base.show", lambda *given: calls.append(given))
    return calls


def begin(folder, epochs=10, sample_every=0) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"train": {"epochs": epochs, "sample_every": sample_every}}))


def test_a_half_written_line_is_left_for_the_next_time(tmp_path):
    file = tmp_path / "metrics.jsonl"
    assert read_metrics(file) == []
    whole = json.dumps({"epoch": 1}) + "\n" + json.dumps({"epoch": 2}) + "\n"
    for cut in range(len(whole) + 1):
        file.write_text(whole[:cut])
        assert [line["epoch"] for line in read_metrics(file)] == [1] * (cut >= 12) + [2] * (cut >= 25)


def test_it_waits_follows_and_ends_with_the_run(shown, tmp_path):
    """A run in another process: it is not there yet, begins, and is finished."""
    folder = tmp_path / "run"
    board = TrainingDashboard(folder, interval=0.05)
    assert board.note.value == "There is no run &#x27;run&#x27; yet; its curves will appear here when it begins."
    first = board.picture.value
    writer = (
        "import json, sys, time\nfrom pathlib import Path\n"
        "folder, line = Path(sys.argv[1]), json.loads(sys.argv[2])\nfolder.mkdir()\n"
        "(folder / 'config.json').write_text(json.dumps({'train': {'epochs': 3, 'sample_every': 0}}))\n"
        "for epoch in (1, 2, 3):\n"
        "    sys.stdin.readline()\n"
        "    text = json.dumps(line | {'epoch': epoch, 'validation_bpd': 6 - epoch}) + '\\n'\n"
        "    with open(folder / 'metrics.jsonl', 'a') as file:\n"
        "        file.write(text[:30]); file.flush(); time.sleep(0.2); file.write(text[30:])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", writer, str(folder), json.dumps(LINE)], stdin=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: "its first epoch is under way" in board.note.value, seconds=120)
        pictures = [pixels(first)]
        for epoch in (1, 2, 3):
            process.stdin.write("\n")
            process.stdin.flush()
            wait_for(lambda epoch=epoch: f"epoch {epoch} of 3" in board.note.value, seconds=120)
            if epoch < 3:
                assert f"100 images/s, about {3 - epoch}.0 min left" in board.note.value
                wait_for(lambda: pixels(board.picture.value) != pictures[-1], seconds=120)
                pictures.append(pixels(board.picture.value))
    board.follow()
    assert "finished" in board.note.value and "accuracy 50.0%" in board.note.value
    assert pixels(board.picture.value) not in pictures
    assert [update for _, _, update in shown] == [False, True] and shown[-1][1] == board.picture.value


def test_closing_ends_the_thread(shown, tmp_path):
    board = TrainingDashboard(tmp_path / "never", interval=60)
    board.close()
    board.thread.join(timeout=60)
    assert not board.thread.is_alive()
    board.follow()
    assert len(shown) == 1, "a closed widget is not shown again"


def test_on_colab_it_follows_from_a_cell(shown, colab, tmp_path):
    """The next line is written once the page has shown the one before, or has not for long."""
    folder = tmp_path / "run"
    with colab.cell():
        board = TrainingDashboard(folder, interval=0.02)

    def says(epoch: int) -> bool:
        return any(f"epoch {epoch} of 3" in note for note in colab.shown(board.note))

    def write() -> None:
        begin(folder, epochs=3)
        for epoch in (1, 2, 3):
            with open(folder / "metrics.jsonl", "a") as file:
                file.write(json.dumps(LINE | {"epoch": epoch}) + "\n")
            with contextlib.suppress(AssertionError):
                wait_for(lambda epoch=epoch: says(epoch), seconds=20)

    before = len(colab.shown(board.picture))
    writer = threading.Thread(target=write)
    writer.start()
    with colab.cell():
        board.follow()
    writer.join()
    assert [says(epoch) for epoch in (1, 2, 3)] == [True] * 3
    came = colab.shown(board.picture)[before:]
    assert len({pixels(png) for png in came}) >= 3 and came[-1] == board.picture.value == shown[-1][1]
    _empty, *notes, last = colab.shown(board.note)
    assert all(note.endswith("On Colab this moves only while a cell calls follow() or look().") for note in notes)
    assert "finished" in last and "Colab" not in last
    assert not board.thread.is_alive()


def test_interrupting_the_cell_ends_following(shown, colab, tmp_path, monkeypatch):
    begin(tmp_path / "run")
    board = TrainingDashboard(tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text(json.dumps(LINE | {"epoch": 1}) + "\n")

    def stop_button(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(board.closed, "wait", stop_button)
    try:
        board.follow()
    except KeyboardInterrupt:
        pytest.fail("the interruption is not quiet")
    assert "epoch 1 of 10" in board.note.value
    assert [update for _, _, update in shown] == [False, True] and shown[-1][1] == board.picture.value


def test_on_colab_train_moves_it_after_each_epoch(shown, colab, picture_folder, tmp_path):
    model_config, config = tiny(picture_folder, sample_every=2)
    with colab.cell():
        board = TrainingDashboard(tmp_path / "run")
        train(model_config, config, tmp_path / "run", on_epoch=lambda _line: board.look())
    one, two = colab.shown(board.note)[-2:]
    assert "epoch 1 of 2" in one and "epoch 2 of 2" in two and "finished" in two
    assert board.look(), "the last gallery is there before the last call"


def test_the_latest_gallery_stands_below_the_curves(shown, tmp_path):
    folder = tmp_path / "run"
    begin(folder, epochs=2, sample_every=1)
    board = TrainingDashboard(folder, interval=60)
    without = Image.open(io.BytesIO(board.picture.value)).height
    for height, colour in ((90, "black"), (20, (0, 114, 178))):
        Image.new("RGB", (30, height), colour).save(folder / "gallery.png")
        assert not board.look()
        with Image.open(io.BytesIO(board.picture.value)) as picture:
            assert -5 < picture.height - without - 2 * height < 5  # without a gallery a line of one pixel stands there
    assert Image.open(io.BytesIO(board.picture.value)).getpixel((10, picture.height - 10)) == (0, 114, 178)
    (folder / "gallery.png").write_bytes((folder / "gallery.png").read_bytes()[:40])
    assert not board.look() and Image.open(io.BytesIO(board.picture.value)).height == without, "a damaged one is none"
    board.close()


@pytest.mark.parametrize("damage", ["config.json", "metrics.jsonl"])
def test_it_ends_when_the_last_line_is_there_whatever_stands_around_it(shown, tmp_path, damage):
    """An old gallery: a clock went backwards, or files were copied. A byte-order mark. What a power cut leaves."""
    folder = tmp_path / "run"
    begin(folder, epochs=3, sample_every=1)
    Image.new("RGB", (30, 90)).save(folder / "gallery.png")
    os.utime(folder / "gallery.png", (1, 1))
    lines = [json.dumps({"epoch": epoch} | LINE) for epoch in (1, 2, 3)]
    if damage == "config.json":
        text = (folder / "config.json").read_text()
        (folder / "config.json").write_text(text, encoding="utf-8-sig")
    else:
        lines = ["\ufeff" + lines[0], "[4]", "7", "null", lines[1], lines[1][:50] + lines[2], "\0" * 50]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    board = TrainingDashboard(folder, interval=0.02)
    board.thread.join(timeout=60)
    assert not board.thread.is_alive() and [line["epoch"] for line in board.lines] == [1, 2, 3]
    assert "epoch 3 of 3" in board.note.value and "finished" in board.note.value


def test_a_config_that_comes_late_or_is_damaged_for_a_while(shown, tmp_path):
    folder = tmp_path / "run"
    begin(folder, epochs=1)
    good = (folder / "config.json").read_text()
    (folder / "metrics.jsonl").write_text(json.dumps(LINE | {"epoch": 1}) + "\n")
    for bad in ("", "\0" * 40, "[1]", '{"train": 3}', good[:20]):
        (folder / "config.json").write_text(bad)
        board = TrainingDashboard(folder, interval=60)
        assert "has done epoch 1; its config.json is missing or damaged" in board.note.value
        board.close()
    board = TrainingDashboard(folder, interval=60)
    (folder / "config.json").write_text(good)
    assert board.look() and "finished" in board.note.value
    board.close()


def test_files_that_were_changed_by_hand(shown, tmp_path):
    folder = tmp_path / "run"
    begin(folder, epochs=3)
    lines = [LINE | {"epoch": 1}, {"epoch": 2}, LINE | {"epoch": 2, "train_bpd": "x"}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    board = TrainingDashboard(folder, interval=60)
    assert "epoch 1 of 3" in board.note.value
    for odd in ({"epochs": "3"}, {"epochs": 3, "validate_every": "1"}, {}):
        (folder / "config.json").write_text(json.dumps({"train": odd}))
        assert not board.look() and "config.json is missing or damaged" in board.note.value
    begin_again = json.dumps({"train": {"epochs": 3}})
    (folder / "config.json").write_text(begin_again)
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").mkdir()
    assert not board.look() and "its first epoch is under way" in board.note.value
    board.close()


def test_what_ends_the_thread_is_said(shown, tmp_path, monkeypatch):
    board = TrainingDashboard(tmp_path / "run", interval=0.02)

    def fails():
        raise KeyError("odd")

    monkeypatch.setattr(board, "look", fails)
    board.thread.join(timeout=60)
    assert "The dashboard has stopped: KeyError: &#x27;odd&#x27;" in board.note.value


def test_epochs_that_were_not_validated(shown, tmp_path):
    """Every sixth is, in 60 s; the others take 6 s."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"train": {"epochs": 10, "sample_every": 0, "validate_every": 6}}))
    plain = {name: value for name, value in LINE.items() if not name.startswith("validation")} | {"seconds": 6.0}
    lines = [(plain if epoch % 6 else LINE) | {"epoch": epoch} for epoch in range(1, 9)]
    words = {
        1: "Training 6.500 bits per dimension, not validated yet; written",
        6: "Training 6.500, validation 6.000 bits per dimension, accuracy 50.0%; written",
        8: "about 0.5 min left. Training 6.500, validation of epoch 6 6.000 bits per dimension, accuracy 50.0%;",
    }
    for count, expected in words.items():
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:count]))
        board = TrainingDashboard(folder, interval=60)
        assert expected in board.note.value, board.note.value
        board.close()


def test_a_run_of_train_itself(shown, picture_folder, tmp_path):
    model_config, config = tiny(picture_folder, sample_every=2)
    board = TrainingDashboard(tmp_path / "run", interval=0.5)
    lines: list = []
    train(model_config, config, tmp_path / "run", on_epoch=lines.append)
    board.follow()
    assert board.lines == lines and len(lines) == 2
    assert f"validation {lines[-1]['validation_bpd']:.3f}" in board.note.value
    assert isinstance(board.box, ipywidgets.VBox)


def test_steps_that_float16_skipped_are_said(shown, tmp_path):
    folder = tmp_path / "run"
    begin(folder, epochs=3)
    lines = [LINE | {"epoch": 1}, LINE | {"epoch": 2, "skipped_steps": 3}, LINE | {"epoch": 3, "skipped_steps": 1}]
    for count, words in ((1, "2030-01-01T00:00:00Z."), (3, " 4 steps were skipped, since float16 overflowed.")):
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:count]))
        board = TrainingDashboard(folder, interval=60)
        assert board.note.value.endswith(words)
        board.close()
