"""The Fréchet distance: pytorch-fid's own number, and everything that would make it mean something else refused.

The published Inception weights are not needed: the tests draw some for the same architecture.
"""

import hashlib
import os
import pickle
from pathlib import Path
from unittest import mock

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import linalg

from kit import fid
from kit.__main__ import main
from utils import UsageError, data


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Path:
    """A TORCH_HOME whose cache holds stand-in weights under the published file's name."""
    import torchvision
    from pytorch_fid import inception

    torch.manual_seed(0)
    with (
        mock.patch.object(inception, "load_state_dict_from_url"),
        mock.patch.object(torchvision.models.Inception3, "load_state_dict"),
    ):
        network = inception.fid_inception_v3()
    for module in network.modules():  # else every feature is nearly 0, and so is every distance
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.weight, 4.0)
    home = tmp_path_factory.mktemp("torch")
    (home / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(network.state_dict(), home / "hub" / "checkpoints" / fid.WEIGHTS)
    return home


@pytest.fixture
def weights(hub, monkeypatch) -> Path:
    """The stand-in weights, found in torch's cache and taken for the published ones."""
    path = hub / "hub" / "checkpoints" / fid.WEIGHTS
    monkeypatch.setenv("TORCH_HOME", str(hub))
    monkeypatch.delenv("FID_INCEPTION", raising=False)
    monkeypatch.setattr(fid, "DIGEST", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    return path


def save(pixels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def blobs(count, size, seed):
    """Pictures of a few smooth colours, (N, S, S, 3) bytes."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 255
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear").permute(0, 2, 3, 1).numpy()


def write_samples(folder, per_class, size=32, classes=4) -> Path:
    for n, pixels in enumerate(blobs(classes * per_class, size, 1)):
        save(pixels, folder / f"Class{n // per_class}_image_{n % per_class + 1:02d}.png")
    return folder


def write_reference(folder, count, size) -> Path:
    for n, pixels in enumerate(blobs(count, size, 2)):
        save(pixels, folder / f"{n:07d}.png")
    return folder


@pytest.fixture
def as_they_are(monkeypatch):
    """pytorch-fid's network takes pictures in their own size, not enlarged to 299x299: a hundred times as fast."""
    from pytorch_fid.inception import InceptionV3

    default, names = InceptionV3.__init__.__defaults__, InceptionV3.__init__.__code__.co_varnames[1:]
    monkeypatch.setattr(
        InceptionV3.__init__,
        "__defaults__",
        tuple(False if name == "resize_input" else value for name, value in zip(names, default, strict=False)),
    )


def pytorch_fids_own(generated, reference, dims, monkeypatch, capsys) -> float:
    """What `python -m pytorch_fid` prints."""
    from pytorch_fid import fid_score

    flags = ["--dims", dims, "--device=cpu", "--num-workers=0", generated, reference]
    monkeypatch.setattr("sys.argv", ["pytorch_fid", *map(str, flags)])
    capsys.readouterr()
    fid_score.main()
    return float(capsys.readouterr().out.split("FID:")[1])


def test_equals_pytorch_fids_own_command(weights, as_they_are, tmp_path, monkeypatch, capsys):
    generated, reference = write_samples(tmp_path / "g", 20), write_reference(tmp_path / "r", 90, 64)
    theirs = pytorch_fids_own(generated, reference, 64, monkeypatch, capsys)
    (generated / "gallery.png").write_bytes(b"not counted, not even opened")
    assert main(["fid", "--generated", str(generated), "--reference", str(reference), "--dims=64", "--device=cpu"]) == 0
    said = capsys.readouterr().out
    assert theirs > 1 and f"FID {theirs:.3f} ± " in said and "64 dims, 80 generated, 90 reference" in said
    assert all(str(path) in said for path in (generated, reference, weights))
    assert "45 of the reference against 45 others" in said
    assert "limit      not known" in said and "256 samples or more for 64 dims, not 80" in said
    assert "the samples are 32x32, the reference 64x64" in said and "--resize-reference removes it" in said

    score = fid.fid(generated, reference, 64, bootstrap=0, resize_reference=True)
    (generated / "gallery.png").unlink()  # pytorch-fid would count it
    resized = tmp_path / "resized"
    for file in reference.iterdir():  # as the data set does it, by hand
        with Image.open(file) as picture:
            save(np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR)), resized / file.name)
    assert score.value == pytest.approx(pytorch_fids_own(generated, resized, 64, monkeypatch, capsys), rel=1e-9)
    assert score.value != pytest.approx(theirs, rel=1e-3) and not score.notes and "resized to 32x32" in score.text


def test_the_courses_setting(weights, as_they_are, tmp_path, monkeypatch, capsys):
    generated, reference = write_samples(tmp_path / "g", 25), write_reference(tmp_path / "r", 192, 32)
    theirs = pytorch_fids_own(generated, reference, 192, monkeypatch, capsys)
    folders = ["--generated", str(generated), "--reference", str(reference)]
    assert main(["fid", *folders, "--dims=192", "--course", "--bootstrap=0", "--device=cpu"]) == 0
    said = capsys.readouterr().out
    assert theirs > 1 and f"FID {theirs:.3f}   192 dims, 100 generated, 192 reference" in said
    assert "--course takes 100 samples at 192 dims" in said and "±" not in said and "floor" not in said


def test_features_at_192_dims_are_pytorch_fids(weights, tmp_path):
    from pytorch_fid.fid_score import get_activations
    from pytorch_fid.inception import InceptionV3

    files = fid.list_samples(write_samples(tmp_path / "g", 2))
    ours = fid.inception_features(fid.load_network(weights, 192), data.read_images(files, 32, 32))
    theirs = get_activations(files, InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[192]]), 8, 192, "cpu", 0)
    assert ours.shape == (8, 192) and np.array_equal(ours, theirs)


def test_distance_is_the_textbook_formula():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5)), rng.normal(size=(30, 5)) + 1
    (mx, cx), (my, cy) = ((z.mean(0), np.cov(z, rowvar=False)) for z in (x, y))
    expected = ((mx - my) ** 2).sum() + np.trace(cx + cy - 2 * linalg.sqrtm(cx @ cy).real)
    assert fid.frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)
    assert fid.frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-10)
    few, fewer = x[:4], x[:3]  # singular covariances: the root by eigenvalues of C1^(1/2) C2 C1^(1/2)
    (m1, c1), (m2, c2) = ((z.mean(0), np.cov(z, rowvar=False)) for z in (few, fewer))
    values, vectors = np.linalg.eigh(c1)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ c2 @ root).clip(0)).sum()
    assert fid.frechet_distance(few, fewer) == pytest.approx(
        ((m1 - m2) ** 2).sum() + np.trace(c1 + c2) - 2 * shared, rel=1e-6
    )


def test_error_bar_is_the_spread_over_fresh_sets_and_the_floor_that_of_the_reference():
    rng = np.random.default_rng(0)

    def draw(n, mean):
        return rng.normal(mean, size=(n, 3))

    fresh = np.std([fid.frechet_distance(draw(300, 1.0), draw(400, 0.0)) for _ in range(200)])
    error, floor, counts = fid.error_and_floor(draw(300, 1.0), draw(400, 0.0), bootstrap=200)
    assert error == pytest.approx(fresh, rel=0.35)
    assert counts == (200, 200)
    fresh_floors = [fid.frechet_distance(draw(200, 0.0), draw(200, 0.0)) for _ in range(100)]
    assert min(fresh_floors) / 2 < floor < max(fresh_floors)
    assert fid.error_and_floor(draw(30, 1.0), draw(400, 0.0), bootstrap=2)[2] == (30, 370)
    once, again = (fid.error_and_floor(np.eye(9), np.eye(9) * 2, bootstrap=3) for _ in range(2))
    assert once == again


def test_extrapolation_takes_the_bias_away():
    """Normal distributions in 6 dimensions, equal means, standard deviations 2 and 1: the distance is 6 (2 - 1)^2 = 6.
    The reference's own bias, of 40,000, is below 0.001."""
    rng = np.random.default_rng(0)
    y, ends, largest = rng.normal(size=(40_000, 6)), [], []
    for _ in range(12):
        x = 2 * rng.normal(size=(300, 6))
        end, points = fid.extrapolated(x, y, draws=3)
        assert [count for count, _ in points] == fid.set_sizes(300, 6) == [60, 71, 88, 115, 167, 300]
        assert points[-1][1] == pytest.approx(fid.frechet_distance(x, y))
        ends.append(end)
        largest.append(points[-1][1])
    assert abs(np.mean(ends) - 6) < 0.5 * abs(np.mean(largest) - 6)
    assert np.mean(largest) > 6 and abs(np.mean(ends) - 6) < 0.1
    assert fid.extrapolated(x, y, draws=3)[0] == end, "twice the same"


def test_extrapolation_is_the_straight_line_through_the_means(monkeypatch):
    """By hand: a distance of 3 + 40/N ends at 3, whatever the sizes."""
    monkeypatch.setattr(fid, "frechet_distance", lambda x, y: 3 + 40 / len(x))
    end, points = fid.extrapolated(np.zeros((90, 2)), np.zeros((5, 2)), draws=2)
    assert end == pytest.approx(3) and points == [(n, 3 + 40 / n) for n in fid.set_sizes(90, 2)] and len(points) == 6


def test_subsets_have_the_shares_of_the_whole_set(monkeypatch):
    seen = []
    monkeypatch.setattr(fid, "frechet_distance", lambda x, y: seen.append(x) or 1.0)
    labels = np.array([2] * 20 + [5] * 10)
    x = np.stack([labels, np.arange(30)], axis=1)
    fid.extrapolated(x, x, draws=40, labels=labels)
    sizes = fid.set_sizes(30, 2)
    assert sizes[0] == 6 and sizes[-1] == 30
    assert [len(set(subset[:, 1])) for subset in seen] == [*sorted(sizes[:-1] * 40), 30], "nothing twice"
    assert all(abs((subset[:, 0] == 5).sum() - len(subset) / 3) < 1 for subset in seen)
    assert set(np.concatenate(seen[:40])[:, 1]) == set(range(30)) and len({str(subset) for subset in seen}) == 201


def test_exact_shares_leave_no_bias_of_chance_in_the_shares():
    """Four classes far apart, each a quarter of samples and reference: the distance is 0 in the limit."""
    rng = np.random.default_rng(0)
    ends: dict[bool, list[float]] = {True: [], False: []}
    y = 9 * np.repeat(np.eye(4), 5000, axis=0) + rng.normal(size=(20_000, 4))
    labels = np.repeat(range(4), 50)
    for _ in range(8):
        x = 9 * np.eye(4)[labels] + rng.normal(size=(200, 4))
        for with_labels in ends:
            ends[with_labels].append(fid.extrapolated(x, y, labels=labels if with_labels else None)[0])
    assert abs(np.mean(ends[True])) < 0.05 and np.mean(ends[False]) < -0.3


def test_too_few_for_an_extrapolation():
    x = np.random.default_rng(0).normal(size=(255, 64))
    assert fid.set_sizes(255, 64) == [] and fid.set_sizes(256, 64)[0] == 128 and fid.set_sizes(256, 64)[-1] == 256
    assert "not known" in fid.limit(x, x) and "256 samples or more for 64 dims, not 255" in fid.limit(x, x)
    with pytest.raises(UsageError, match="a line over 1/N needs 256"):
        fid.extrapolated(x, x)


def test_the_command_prints_the_limit_with_its_sets(weights, as_they_are, tmp_path, capsys):
    generated, reference = write_samples(tmp_path / "g", 64), write_reference(tmp_path / "r", 90, 32)
    folders = ["--generated", str(generated), "--reference", str(reference)]
    assert main(["fid", *folders, "--dims=64", "--bootstrap=0", "--device=cpu"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("limit ")]
    assert "fitted to sets of 128, 142, 160, 183, 213, 256" in line and "depends on the model" in line
    network = fid.load_network(weights, 64)
    files = (fid.list_samples(generated), sorted(reference.iterdir()))
    x, y = (fid.inception_features(network, data.read_images(each, 32, 32)) for each in files)
    classes = np.repeat(range(4), 64)
    assert line.split()[1] == f"{fid.extrapolated(x, y, draws=64, labels=classes)[0]:.3f}"


def assert_refused(*words, **arguments):
    with pytest.raises(UsageError) as refused:
        fid.fid(**arguments)
    assert all(word in str(refused.value) for word in words), refused.value
    assert "\n" not in str(refused.value)


def test_too_few_pictures(weights, tmp_path):
    generated, reference = write_samples(tmp_path / "g", 25), write_reference(tmp_path / "r", 190, 32)
    folders = {"generated": generated, "reference": reference}
    assert_refused("100 samples are too few for 2048 dims", "rank 99", "--course", **folders)
    assert_refused("100 samples are too few for 192 dims", dims=192, **folders)
    assert_refused("190 reference pictures are too few for 192 dims", dims=192, course=True, **folders)
    assert_refused("100 samples at 192 dims, not 100 at 64", dims=64, course=True, **folders)
    assert_refused("not 100 at 2048", course=True, **folders)
    assert_refused("dims must be one of 64, 192, 768, 2048, not 7", dims=7, **folders)
    assert_refused("at least 2 resamplings", dims=64, bootstrap=1, **folders)
    (note,) = fid.check_counts(100, 192, 192, course=True)
    assert "100 samples at 192 dims" in note and "too large" in note
    assert fid.check_counts(192, 192, 192, course=False) == []


@pytest.mark.parametrize(
    "name,word",
    [
        ("Class0_image_07.png", "of Class0, 3 are due"),  # of an older, larger set
        ("Class0_image_04.png", "are due"),
        ("old.png", "old.png is not a sample"),
        ("Class0_image_01.jpg", "not a sample"),
        ("notes.txt", "not a sample"),
        ("Class0", "not a sample"),
    ],
)
def test_stale_and_foreign_files(tmp_path, name, word):
    generated, reference = write_samples(tmp_path / "g", 3), write_reference(tmp_path / "r", 12, 32)
    if name == "Class0":
        (generated / name).mkdir()
    else:
        (generated / name).write_bytes((generated / "Class0_image_01.png").read_bytes())
    assert_refused(word, generated=generated, reference=reference, dims=64)


def test_folders_that_do_not_fit(weights, tmp_path):
    generated, reference = write_samples(tmp_path / "g", 16), write_reference(tmp_path / "r", 64, 32)
    folders = {"generated": generated, "reference": reference, "dims": 64}
    assert_refused("no samples in", "generate", **folders | {"generated": tmp_path / "nowhere"})
    assert_refused("there is no folder", **folders | {"reference": tmp_path / "nowhere"})
    (tmp_path / "empty").mkdir()
    assert_refused("no pictures in", **folders | {"reference": tmp_path / "empty"})
    (generated / "Class3_image_16.png").unlink()
    assert_refused("stale or missing", **folders)
    save(blobs(1, 16, 3)[0], generated / "Class3_image_16.png")
    assert_refused("not of one square size (16x16, 32x32)", **folders)
    write_samples(generated, 16)
    save(blobs(1, 64, 3)[0], reference / "0000000.png")
    assert_refused("(32x32, 64x64); add --resize-reference", **folders)
    (reference / "0000000.png").write_bytes(b"no picture")
    assert_refused("0000000.png cannot be read", **folders)


def test_weights_are_found_and_checked(weights, tmp_path, monkeypatch, capsys):
    assert fid.find_weights() == weights
    monkeypatch.setattr(fid, "DIGEST", "6726825d")  # as published: the stand-in is another file
    with pytest.raises(UsageError, match="is not the published Inception network"):
        fid.find_weights()
    given = tmp_path / "given.pth"
    monkeypatch.setenv("FID_INCEPTION", str(given))
    with pytest.raises(UsageError, match="where there is no file"):
        fid.find_weights(download=True)
    given.write_bytes(b"something else")
    with pytest.raises(UsageError, match=r"given\.pth is not the published"):
        fid.find_weights()
    monkeypatch.setattr(fid, "DIGEST", hashlib.sha256(b"something else").hexdigest()[:8])
    assert fid.find_weights() == given
    with pytest.raises(UsageError, match="does not hold the Inception network's weights"):
        fid.load_network(given, 64)


def test_without_weights_one_line_says_how_to_get_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.delenv("FID_INCEPTION", raising=False)
    generated, reference = write_samples(tmp_path / "g", 16), write_reference(tmp_path / "r", 64, 32)
    assert main(["fid", "--generated", str(generated), "--reference", str(reference), "--dims=64"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: no Inception weights") and said.err.count("\n") == 1 and not said.out
    assert all(word in said.err for word in ("--download", fid.WEIGHTS, "$FID_INCEPTION", "Kaggle"))
    assert not (tmp_path / "empty").exists()


def test_download_only_when_asked_checked_and_whole(weights, tmp_path, monkeypatch):
    """From a file:// address, which the downloader takes as it takes https."""
    from pytorch_fid import inception

    home = tmp_path / "home"
    monkeypatch.setenv("TORCH_HOME", str(home))
    monkeypatch.setattr(inception, "FID_WEIGHTS_URL", weights.as_uri())
    cached = home / "hub" / "checkpoints" / fid.WEIGHTS
    with pytest.raises(UsageError, match="fid --download fetches them"):
        fid.find_weights()
    good = fid.DIGEST
    monkeypatch.setattr(fid, "DIGEST", "6726825d")
    with pytest.raises(UsageError, match="cannot download"):
        fid.find_weights(download=True)
    assert list(cached.parent.iterdir()) == []
    monkeypatch.setattr(fid, "DIGEST", good)
    assert fid.find_weights(download=True) == cached and cached.read_bytes() == weights.read_bytes()
    monkeypatch.setattr(inception, "FID_WEIGHTS_URL", (tmp_path / "nothing").as_uri())
    cached.unlink()
    with pytest.raises(UsageError, match="cannot download"):
        fid.find_weights(download=True)


def test_download_alone_fetches_the_weights_and_says_where_they_are(weights, tmp_path, monkeypatch, capsys):
    from pytorch_fid import inception

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(inception, "FID_WEIGHTS_URL", weights.as_uri())
    assert main(["fid", "--download"]) == 0
    cached = tmp_path / "hub" / "checkpoints" / fid.WEIGHTS
    assert cached.is_file() and capsys.readouterr().out == f"Inception weights: {cached}\n"
    for flags in ([], ["--generated=x"], ["--reference=x", "--download"]):
        assert main(["fid", *flags]) == 2
        assert "--generated and --reference name two folders" in capsys.readouterr().err


def notebooks_cell(capsys) -> str:
    """What notebook 06 prints about FID, of 256 samples and 90 pictures that are noise."""
    notebook = nbformat.read(Path(__file__).parents[1] / "notebooks" / "06_sample_gallery.ipynb", as_version=4)
    (source,) = [cell.source for cell in notebook.cells if "load_network(" in cell.source and cell.cell_type == "code"]
    samples, x_test = torch.rand(256, 3, 32, 32) * 2 - 1, torch.rand(90, 3, 32, 32) - 1
    labels = torch.arange(4).repeat_interleave(64)
    names = {"samples": samples, "x_test": x_test, "sample_labels": labels, "device": torch.device("cpu")}
    exec(source, names | {"UsageError": UsageError, "to_bytes": data.to_bytes, "extrapolated": fid.extrapolated})
    return capsys.readouterr().out


def test_the_notebook_shows_an_fid_where_the_weights_are(weights, as_they_are, monkeypatch, tmp_path, capsys):
    shown, at_infinity = notebooks_cell(capsys).splitlines()
    value = float(shown.partition("256 samples, 90 test pictures: ")[2])
    assert (
        value > 0
        and at_infinity.startswith("at infinity ")
        and at_infinity.endswith("from sets of 128, 142, 160, 183, 213, 256")
    )
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    missing = notebooks_cell(capsys)
    assert fid.WEIGHTS in missing and missing.endswith("python -m kit fid --download\n")


class Bomb:
    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.system, (f"touch {self.proof}",)


def test_a_pickle_is_not_executed(tmp_path):
    (tmp_path / "bomb.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    with pytest.raises(UsageError, match="does not hold"):
        fid.load_network(tmp_path / "bomb.pth", 64)
    torch.save({"weight": Bomb(tmp_path / "executed")}, tmp_path / "bomb.pth")
    with pytest.raises(UsageError, match="does not hold"):
        fid.load_network(tmp_path / "bomb.pth", 64)
    assert not (tmp_path / "executed").exists()
