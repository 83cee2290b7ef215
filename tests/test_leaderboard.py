"""The leaderboard's file: both formats, byte by byte, and every fault in one found."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import small_model
from PIL import Image

from kit import leaderboard
from kit.__main__ import main
from utils import UsageError, checkpoints, mixture
from utils.classify import fit_calibration
from utils.data import load_split

NAMES = ["test/0000021.jpg", "test/0000027.jpg", "test/0000003.jpg"]
LABELS = [2, 0, 3]


@pytest.fixture
def weights(tmp_path) -> Path:
    checkpoints.save_model(small_model(torch.float32, num_classes=4), tmp_path / "four.safetensors")
    return tmp_path / "four.safetensors"


def test_the_format_of_2024(tmp_path):
    leaderboard.write(tmp_path / "new" / "s.csv", NAMES, LABELS)
    assert (tmp_path / "new" / "s.csv").read_bytes() == b"test/0000021.jpg,2\ntest/0000027.jpg,0\ntest/0000003.jpg,3\n"
    assert leaderboard.check(tmp_path / "new" / "s.csv", NAMES) == LABELS


def test_the_format_of_2023(tmp_path):
    leaderboard.write(tmp_path / "s.csv", NAMES, LABELS, "2023", fid=31.25)
    expected = b"id,label\n0000021.jpg,2\n0000027.jpg,0\n0000003.jpg,3\nfid,31.25\n"
    assert (tmp_path / "s.csv").read_bytes() == expected
    assert leaderboard.check(tmp_path / "s.csv", NAMES, "2023") == LABELS


@pytest.mark.parametrize(
    "content,word",
    [
        ("test/0000021.jpg,2\ntest/0000027.jpg,0\n", "has 3 rows"),
        ("test/0000021.jpg,2\ntest/0000027.jpg,0\ntest/0000003.jpg,3\ntest/0000004.jpg,3\n", "has 4"),
        ("test/0000021.jpg,2\ntest/0000003.jpg,3\ntest/0000027.jpg,0\n", "picture 2 of a submission is"),
        ("test/0000021.jpg,2\ntest/0000021.jpg,2\ntest/0000003.jpg,3\n", "picture 2"),
        ("test/0000021.jpg,2\ntest/0000027.jpg,4\ntest/0000003.jpg,3\n", "0 to 3, not '4'"),
        ("test/0000021.jpg,2\ntest/0000027.jpg,-1\ntest/0000003.jpg,3\n", "0 to 3"),
        ("test/0000021.jpg,2\ntest/0000027.jpg,1.0\ntest/0000003.jpg,3\n", "0 to 3"),
        ("test/0000021.jpg,2\ntest/0000027.jpg\ntest/0000003.jpg,3\n", "0 to 3"),
        ("test/0000021.jpg,2\ntest/0000027.jpg,0,0\ntest/0000003.jpg,3\n", "0 to 3"),
        ("id,label\ntest/0000021.jpg,2\ntest/0000027.jpg,0\ntest/0000003.jpg,3\n", "has 4"),
        ("test/0000021.jpg,2\r\ntest/0000027.jpg,0\r\ntest/0000003.jpg,3\r\n", "LF"),
        ("test/0000021.jpg,2\ntest/0000027.jpg,0\ntest/0000003.jpg,3", "LF"),
        ("", "LF"),
    ],
)
def test_faults_in_2024(tmp_path, content, word):
    (tmp_path / "s.csv").write_bytes(content.encode())
    with pytest.raises(UsageError, match=word):
        leaderboard.check(tmp_path / "s.csv", NAMES)


@pytest.mark.parametrize(
    "content",
    [
        "0000021.jpg,2\n0000027.jpg,0\n0000003.jpg,3\nfid,3\n",
        "id,label\n0000021.jpg,2\n0000027.jpg,0\n0000003.jpg,3\n",
        "id,label\n0000021.jpg,2\n0000027.jpg,0\n0000003.jpg,3\nfid,nan\n",
        "id,label\n0000021.jpg,2\n0000027.jpg,0\n0000003.jpg,3\nfid,many\n",
        "id,label\ntest/0000021.jpg,2\n0000027.jpg,0\n0000003.jpg,3\nfid,3\n",
        "id,label\n",
    ],
)
def test_faults_in_2023(tmp_path, content):
    (tmp_path / "s.csv").write_bytes(content.encode())
    with pytest.raises(UsageError):
        leaderboard.check(tmp_path / "s.csv", NAMES, "2023")


def test_an_invalid_submission_never_replaces_one(tmp_path):
    leaderboard.write(tmp_path / "s.csv", NAMES, LABELS)
    before = (tmp_path / "s.csv").read_bytes()
    with pytest.raises(UsageError, match="appears twice"):
        leaderboard.write(tmp_path / "s.csv", [*NAMES, NAMES[0]], [*LABELS, 1])
    with pytest.raises(UsageError, match="0 to 3"):
        leaderboard.write(tmp_path / "s.csv", NAMES, [0, 1, 4])
    with pytest.raises(UsageError, match="appears twice"):  # one name in two folders is one name in the format of 2023
        leaderboard.write(tmp_path / "s.csv", ["a/1.jpg", "b/1.jpg"], [0, 1], "2023", fid=1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"] and (tmp_path / "s.csv").read_bytes() == before


def test_submit(weights, course_data, tmp_path, capsys):
    with open(course_data / "test.csv") as table:
        rows = table.readlines()
    for n, row in enumerate(rows):  # pictures that differ enough for the model to call them differently
        Image.new("RGB", (64, 64), (60 * n, 255 - 60 * n, 128)).save(course_data / row.split(",")[0])
    (course_data / "test.csv").write_text("".join(reversed(rows)))  # an order that no sorting would give
    flags = ["submit", "--checkpoint", str(weights), "--data-root", str(course_data), "--batch-size=2", "--device=cpu"]
    assert main([*flags, "--out", str(tmp_path / "a.csv"), "--keep-log-likelihoods"]) == 0
    said = capsys.readouterr().out
    assert "cpen455 test split, 5 pictures" in said and str(weights) in said and "format 2024" in said

    model, nats = checkpoints.load_model(weights), []
    names = [row.split(",")[0] for row in reversed(rows)]
    for name in names:
        with Image.open(course_data / name) as picture:
            pixels = np.asarray(picture.convert("RGB").resize((8, 8), Image.Resampling.BILINEAR))
        x = (torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 127.5 - 1).expand(4, -1, -1, -1)
        with torch.no_grad():
            nats.append(mixture.log_prob(model(x, torch.arange(4)), x))
    labels = torch.stack(nats).argmax(dim=1).tolist()
    assert len(set(labels)) > 1  # else the order of the rows would not be tested
    expected = "".join(f"{name},{label}\n" for name, label in zip(names, labels, strict=True))
    assert (tmp_path / "a.csv").read_bytes() == expected.encode()
    kept = np.load(tmp_path / "a.npy", allow_pickle=False)
    np.testing.assert_allclose(kept, torch.stack(nats).numpy(), rtol=1e-5)

    assert main([*flags, "--out", str(tmp_path / "b.csv"), "--format=2023", "--fid=40.5"]) == 0
    lines = (tmp_path / "b.csv").read_text().splitlines()
    assert lines[0] == "id,label" and lines[-1] == "fid,40.5" and not (tmp_path / "b.npy").exists()
    assert [line.split(",") for line in lines[1:-1]] == [
        [Path(name).name, str(label)] for name, label in zip(names, labels, strict=True)
    ]


def test_submit_with_all_that_helps(weights, course_data, tmp_path, capsys):
    """Averaged over two models and two views, tempered, biased, and weighted by a prior: each by hand."""
    other = small_model(torch.float32, num_classes=4, fusion="film")
    checkpoints.save_model(other, tmp_path / "other.safetensors")
    where = ["--data-root", str(course_data), "--device=cpu", "--keep-log-likelihoods", "--out"]
    flags = ["--mirror", "--ensemble", str(tmp_path / "other.safetensors"), "--calibrate=4", "--prior=1,2,3,4"]
    assert main(["submit", "--checkpoint", str(weights), *where, str(tmp_path / "a.csv"), *flags]) == 0
    assert "mirrored" in capsys.readouterr().out

    def nats(x):
        rows = []
        for model in (checkpoints.load_model(weights), checkpoints.load_model(tmp_path / "other.safetensors")):
            for view in (x, x.flip(3)):
                columns = [mixture.log_prob(model(view, torch.full((len(x),), y)), view) for y in range(4)]
                rows.append(torch.stack(columns, dim=1).double())
        return sum(rows) / 4

    test, train = (load_split("cpen455", split, course_data, 8) for split in ("test", "train"))
    with torch.no_grad():
        expected, (x, y) = nats(test.tensors()[0]), train.held_out(4).tensors()
        temperature, bias = fit_calibration(nats(x), y)
    np.testing.assert_allclose(np.load(tmp_path / "a.npy", allow_pickle=False), expected.float(), rtol=1e-5)
    chosen = (expected / temperature + bias + torch.tensor([1.0, 2, 3, 4]).log()).argmax(dim=1).tolist()
    assert (tmp_path / "a.csv").read_text() == "".join(f"{n},{c}\n" for n, c in zip(test.names, chosen, strict=True))


def test_wrong_settings(weights, course_data, tmp_path, capsys):
    def refused(*flags, word):
        capsys.readouterr()
        assert main([*base, *map(str, flags)]) == 2
        said = capsys.readouterr()
        assert said.err.startswith("error: ") and said.err.count("\n") == 1 and word in said.err, said.err

    base = ["submit", "--checkpoint", str(weights), "--data-root", str(course_data)]
    out = tmp_path / "out" / "s.csv"
    refused("--out", out, "--format", "2025", word="unknown format '2025'")
    refused("--out", out, "--format", "2023", word="give --fid")
    refused("--out", out, "--format", "2023", "--fid", "nan", word="give --fid")
    refused("--out", out, "--fid", "3", word="2024 format has no place")
    refused("--out", out, "--data-root", tmp_path / "nowhere", word="not found")
    refused("--out", out.with_suffix(".npy"), "--keep-log-likelihoods", word=".csv")
    checkpoints.save_model(small_model(torch.float32), tmp_path / "three.safetensors")
    refused("--out", out, "--checkpoint", tmp_path / "three.safetensors", word="has others: burger, panda, koala")
    assert not out.parent.exists()
