"""What several tests share: small models whose every weight matters, and a small real-looking data set."""

import contextlib
import io
import os
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kit.exercises import pieces
from kit.runs import run_configs
from utils import checkpoints
from utils.data import CPEN455_CLASSES
from utils.model import ConditionalPixelCNN, ModelConfig

TINY = {"nr_resnet": 1, "nr_filters": 4, "nr_logistic_mix": 1, "image_size": 8, "device": "cpu"}
# what a resumed run must get right; the last batch of 12 pictures is short
ALL_AT_ONCE = {"batch_size": 5, "dropout": 0.3, "flip": True, "shift": 1, "turn": 0.5, "ema_decay": 0.9, "warmup": 4}
ALL_AT_ONCE |= {"lr": 1e-2}
TIMING = ("images_per_second", "seconds", "seconds_saving", "time")  # the numbers of a run that may differ


def tiny(folder, **overrides):
    """The configs of a run on a picture folder that takes a moment."""
    return run_configs(
        "starter", 2, **(TINY | {"dataset": "folder", "data_root": str(folder), "epochs": 2} | overrides)
    )


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def mine(monkeypatch, tmp_path) -> Path:
    """An empty folder of one's own, where pieces are kept that pass their check."""
    monkeypatch.setattr(pieces, "folder", lambda: tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture(autouse=True)
def _no_wandb(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")  # whatever key this machine has


def small_model(dtype=torch.float64, **config) -> ConditionalPixelCNN:
    """A model of a few filters in which nothing is zero: biases and class maps are drawn at random too."""
    values = {"num_classes": 3, "nr_resnet": 1, "nr_filters": 6, "nr_logistic_mix": 2, "image_size": 8, "dropout": 0.0}
    torch.manual_seed(0)
    model = ConditionalPixelCNN(ModelConfig(**(values | config)))
    model.class_names = (*CPEN455_CLASSES, *model.class_names[4:])[: model.config.num_classes]
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or name.startswith("fusion."):
            torch.nn.init.normal_(parameter, std=0.5)
    return model.to(dtype).eval()


def save_small_model(path: Path, num_classes: int) -> Path:
    model = small_model(torch.float32, num_classes=num_classes)
    model.class_names = ("dark", "light", "other", "more")[:num_classes]
    checkpoints.save_model(model, path)
    return path


def random_pictures(count: int, size: int = 8, dtype=torch.float64, seed: int = 1) -> torch.Tensor:
    levels = torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(seed))
    return levels.to(dtype) / 127.5 - 1


def wait_for(condition, seconds=60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def pixels(png: bytes) -> tuple:
    with Image.open(io.BytesIO(png)) as picture:
        return picture.size, picture.tobytes()


class ColabPage:
    """A page that shows what the main thread sends while it executes a cell or handles a message of the page, and
    nothing else (googlecolab/colabtools issue 3373)."""

    def __init__(self):
        self.listens = False
        self.came: dict = defaultdict(list)

    @contextlib.contextmanager
    def cell(self):
        """Inside of it a cell executes."""
        self.listens = True
        yield
        self.listens = False

    def move(self, control, **state) -> None:
        """Sends what a control sends that was moved, and has it handled."""
        with self.cell():
            control.comm.handle_msg({"content": {"data": {"method": "update", "state": state}}, "buffers": []})

    def shown(self, widget, trait: str = "value") -> list:
        """All that the page has shown of it, one after the other."""
        return self.came[widget.model_id, trait]

    def receive(self, model_id: str, state: dict, binary: dict) -> None:
        if self.listens and threading.current_thread() is threading.main_thread():
            for trait, value in (state | binary).items():
                self.came[model_id, trait].append(value)


@pytest.fixture
def colab(monkeypatch) -> ColabPage:
    """Widgets made from here on believe that they are on Colab, and reach this page only."""
    pytest.importorskip("ipywidgets", minversion="8")  # 7 sends nothing where no kernel runs
    from comm.base_comm import BaseComm

    page = ColabPage()

    class Comm(BaseComm):
        def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
            if data:  # none when it is closed
                paths = [path[0] for path in data["buffer_paths"]]
                page.receive(self.comm_id, data["state"], dict(zip(paths, buffers, strict=True)))

    monkeypatch.setattr("comm.create_comm", Comm)
    monkeypatch.setattr("kit.widgets.base.platform_name", lambda: "colab")
    return page


@pytest.fixture(scope="session")
def chromium():
    """What the tests of `make test-browser` share. It reaches nothing but this machine."""
    from playwright.sync_api import sync_playwright

    (Path(__file__).parent / "browser/shots").mkdir(exist_ok=True)
    nowhere = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--no-proxy-server"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=nowhere)
        yield browser
        browser.close()


@pytest.fixture
def course_data(tmp_path) -> Path:
    """A folder laid out as the course's data: 64x64 JPEGs, one of them greyscale, and three tables."""
    root = tmp_path / "cpen455"
    rng = np.random.default_rng(0)
    number = 0
    for split, count in (("train", 12), ("validation", 6), ("test", 5)):
        (root / split).mkdir(parents=True)
        rows = []
        for i in range(count):
            number += 1
            pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            picture = Image.fromarray(pixels).convert("L" if i == 1 else "RGB")
            name = f"{split}/{number:07d}.jpg"
            picture.save(root / name, quality=95)
            rows.append(f"{name},{-1 if split == 'test' else i % 4}\n")
        (root / f"{split}.csv").write_text("".join(rows))
    return root


def write_pictures(root: Path, counts: dict[str, int], bases: dict[str, int], spread: int) -> Path:
    """A tree `split/CLASS/*.png` of 8x8 pictures, whose bytes lie from a class's base to `spread` above it."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for name, base in bases.items():
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = (base + rng.integers(0, spread, (8, 8, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture
def picture_folder(tmp_path) -> Path:
    """Two classes of different colour."""
    counts = {"train": 6, "validation": 3, "test": 3}
    return write_pictures(tmp_path / "folder", counts, {"dark": 20, "light": 200}, spread=40)
