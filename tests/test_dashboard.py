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

from kit.runs import read_metrics
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
    begin(folder, epochs=1, sample_every=1)
    board = TrainingDashboard(folder, interval=0.02)
    without = Image.open(io.BytesIO(board.picture.value)).height
    Image.new("RGB", (30, 90)).save(folder / "gallery.png")
    os.utime(folder / "gallery.png", (1, 1))  # of an earlier epoch
    (folder / "metrics.jsonl").write_text(json.dumps(LINE | {"epoch": 1}) + "\n")
    wait_for(lambda: "finished" in board.note.value, seconds=120)
    assert not board.look() and board.thread.is_alive(), "the last epoch's gallery is still to come"
    temporary = folder / "new.png"
    Image.new("RGB", (30, 20), (0, 114, 178)).save(temporary)
    os.replace(temporary, folder / "gallery.png")
    board.thread.join(timeout=60)
    with Image.open(io.BytesIO(board.picture.value)) as picture:
        assert 15 < picture.height - without < 25  # without a gallery a line of one pixel stands there
        assert picture.getpixel((10, picture.height - 10)) == (0, 114, 178)


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
