"""The page that draws in a browser: its file, and the pictures that Python draws from the same random numbers. What the
page itself does is tested in a browser (tests/browser)."""

import base64
import math
import re
import signal
import subprocess
import sys
import urllib.request
import zlib

import numpy as np
import pytest
import torch
from conftest import small_model
from PIL import Image
from safetensors.torch import load

from kit import page
from kit.__main__ import main
from kit.platforms import KIT
from utils import UsageError
from utils.checkpoints import load_model, save_model
from utils.model import ConditionalPixelCNN, ModelConfig


@pytest.fixture
def model() -> ConditionalPixelCNN:
    model = small_model(torch.float32, fusion="all")
    model.class_names = ("<script>alert(1)</script>", "b", "ć")
    return model


@pytest.mark.parametrize(
    "counter, key, words",
    [  # the known answers that Random123, the code of Salmon et al. 2011, is tested with
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_published_numbers(counter, key, words):
    def parsed(text: str) -> np.ndarray:
        return np.array([int(word, 16) for word in text.split()], dtype=np.uint64)

    both = np.stack([parsed(counter), parsed("0 1 2 3")])
    assert (page.philox(both, parsed(key))[0] == parsed(words)).all()


def test_random_numbers_depend_on_seed_picture_and_pixel_alone():
    numbers = page.uniforms(2**40 + 7, 3, 64, 7)
    assert numbers.shape == (64, 7) and numbers.dtype == torch.float64 and numbers.unique().numel() == 64 * 7
    assert numbers.min() > 0 and numbers.max() < 1
    words = page.philox(np.array([[1, 20, 3, 0]], dtype=np.uint64), np.array([7, 2**8], dtype=np.uint64))[0]
    assert numbers[20, 4:].tolist() == [(int(word) + 0.5) / 2**32 for word in words[:3]]
    assert (numbers != page.uniforms(2**40 + 8, 3, 64, 7)).all() and (
        numbers != page.uniforms(2**40 + 7, 4, 64, 7)
    ).all()
    many = page.uniforms(0, 0, 10_000, 8)
    assert abs(many.mean() - 0.5) < 4 / math.sqrt(12 * many.numel())
    assert abs(np.corrcoef(many[:, 0], many[:, 1])[0, 1]) < 0.04


def by_hand(params: list[float], noise: list[float], temperature: float) -> list[float]:
    """A pixel by the mixture's definition, number by number, in Python's floats."""
    k = len(params) // 10

    def at(colour: int, kind: int) -> float:
        return params[k + 3 * k * colour + kind * k + component]

    scores = [params[c] + temperature * -math.log(-math.log(noise[c])) for c in range(k)]
    component, colours = scores.index(max(scores)), []
    for colour in range(3):
        means = [at(0, 0), at(1, 0), at(2, 0)]
        if colour:
            means[1] += math.tanh(at(0, 2)) * colours[0]
        if colour == 2:
            means[2] += math.tanh(at(1, 2)) * colours[0] + math.tanh(at(2, 2)) * colours[1]
        u = noise[k + colour]
        value = means[colour] + temperature * math.exp(max(at(colour, 1), -7)) * math.log(u / (1 - u))
        colours.append(round((min(max(value, -1), 1) + 1) * 127.5) / 127.5 - 1)
    return colours


def test_python_draws_from_the_pages_numbers(model):
    labels, seed, temperature = torch.tensor([2, 0, 2]), 5, 0.9
    rows = []
    drawn = page.draw(model, labels, seed, temperature, lambda row, _: rows.append(row))
    assert rows == list(range(8)) and drawn.dtype == torch.float64
    halves = {name: tensor.half().double() for name, tensor in model.state_dict().items()}
    model = model.double()
    model.load_state_dict(halves)
    for n, (label, number) in enumerate([(2, 0), (0, 0), (2, 1)]):  # the third is the second picture of its class
        x, noise = torch.zeros(1, 3, 8, 8, dtype=torch.float64), page.uniforms(seed, number, 64, 5)
        for place in range(64):
            with torch.inference_mode():
                params = model(x, torch.tensor([label]))[0, :, place // 8, place % 8].tolist()
            x[0, :, place // 8, place % 8] = torch.tensor(
                by_hand(params, noise[place].tolist(), temperature), dtype=torch.float64
            )
        assert torch.equal(drawn[n], x[0])


def test_command_draws_what_the_page_draws(tmp_path, capsys):
    command = ["generate", "--checkpoint", "cartoons", "--for-page", "--per-class", "1", "--seed", "3"]
    assert main([*command, "--classes", "koala", "--out", str(tmp_path / "out")]) == 0
    (drawn,) = page.draw(load_model("cartoons"), torch.tensor([2]), 3, 1.0, lambda *_: None)
    picture = torch.from_numpy(np.array(Image.open(tmp_path / "out" / "Class2_image_01.png")))
    assert torch.equal(picture.permute(2, 0, 1), ((drawn + 1) * 127.5).round().byte())
    for flags in (["--guidance", "1"], ["--device", "cuda"], ["--seed", str(2**53)]):
        assert main([*command, *flags, "--out", str(tmp_path / "other")]) == 2
        assert "page" in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_one_file_holds_all(model, tmp_path):
    save_model(model, tmp_path / "mine.safetensors")
    assert (
        main(["page", "--checkpoint", str(tmp_path / "mine.safetensors"), "--out", str(tmp_path / "a" / "b.html")]) == 0
    )
    text = (tmp_path / "a" / "b.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=(?!\"data:,\")|://|url\(|fetch\(|import\b", text), (
        "it names nothing outside itself"
    )
    assert "alert(1)" not in text, "names of classes are in the weights alone, which are base64"
    for file in page.FOLDER.glob("*.js"):
        assert text.count(file.read_text(encoding="utf-8")) == 1
    (about, content) = re.search(r'<script id="weights" type="text/plain" (.*?)>(.*?)</script>', text).groups()
    weights = base64.b64decode(content)
    assert about == f'data-bytes="{len(weights)}" data-crc32="{zlib.crc32(weights)}"'
    tensors = load(weights)
    assert all(torch.equal(tensors[name], tensor.half()) for name, tensor in model.state_dict().items())
    assert "&lt;b&gt;&amp;" in page.page(model, "<b>&") and "<b>&" not in page.page(model, "<b>&")


def test_what_the_page_does_not_take(model, tmp_path, capsys):
    (tmp_path / "strange.safetensors").write_bytes(b"PK\x03\x04 a pickle, say")
    big = ConditionalPixelCNN(ModelConfig(4, nr_resnet=1, nr_filters=80))
    save_model(big, tmp_path / "big.safetensors")
    model.head.conv.bias.data[0] = 70_000.0
    save_model(model, tmp_path / "far.safetensors")
    for name, words in (("strange", "not a readable safetensors"), ("big", "at most 3,000,000"), ("far", "65504")):
        out = tmp_path / f"{name}.html"
        assert main(["page", "--checkpoint", str(tmp_path / f"{name}.safetensors"), "--out", str(out)]) == 2
        said = capsys.readouterr()
        assert words in said.err and said.err.count("\n") == 1 and said.out == "" and not out.exists()
    for out in (tmp_path, "new/", "page.htm", "/dev/full"):
        assert main(["page", "--checkpoint", "cartoons", "--out", str(out)]) == 2
        assert "ends in .html" in capsys.readouterr().err
    assert main(["page", "--checkpoint", "nobody", "--out", str(tmp_path / "n.html")]) == 2
    assert page.MOST_PARAMETERS < sum(p.numel() for p in big.parameters()) < 2 * page.MOST_PARAMETERS


def test_serving_ends_with_ctrl_c(model, tmp_path):
    save_model(model, tmp_path / "mine.safetensors")
    (tmp_path / "secret.txt").write_text("not for the web")
    command = ["page", "--checkpoint", tmp_path / "mine.safetensors", "--out", tmp_path / "page.html", "--serve"]
    process = subprocess.Popen(
        [sys.executable, "-m", "kit", *map(str, command)], cwd=KIT, text=True, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout and "page.html" in process.stdout.readline()
        address = process.stdout.readline().split()[0]
        assert address.startswith("http://127.0.0.1:")
        for path in ("", "secret.txt"):
            with urllib.request.urlopen(address + path) as answer:
                assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
                assert answer.read() == (tmp_path / "page.html").read_bytes()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()


def test_too_large_is_said_before_it_is_drawn():
    with pytest.raises(UsageError, match="at most 3,000,000 parameters, this model has"):
        page.rounded(ConditionalPixelCNN(ModelConfig(4, nr_resnet=1, nr_filters=80)))
