"""The loop: it learns, it resumes where it was, it counts every picture, it stops when it must."""

import copy
import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import ALL_AT_ONCE, TIMING, random_pictures, small_model, tiny
from safetensors.torch import load_file

from kit import distributed, fid, wandb_log
from kit import train as loop
from kit.commands.demo import print_epoch
from kit.platforms import KIT
from kit.resume import begin, rivals_of
from kit.runs import RunConfig, Stopped, read_config, run_configs
from kit.train import Diverged, train
from utils import UsageError, checkpoints, mixture, training
from utils.classify import class_log_likelihoods
from utils.data import ImageDataset, load_split
from utils.layers import data_dependent_init
from utils.model import ModelConfig
from utils.sampling import generate
from utils.training import PRESETS, TrainConfig, learning_rate, validate


def metrics(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_it_overfits_eight_pictures():
    """The cartoons' grain, a normal of 4 levels, has log2(4 sqrt(2 pi e)) = 4.05 bits: less is learned by heart."""
    torch.manual_seed(0)
    x = load_split("cartoons", "validation", image_size=8).tensors()[0][:8]
    y = torch.arange(8) % 4
    config = ModelConfig(4, nr_resnet=1, nr_filters=24, nr_logistic_mix=3, image_size=8, dropout=0.0, fusion="blocks")
    model = training.ConditionalPixelCNN(config)
    with data_dependent_init(model):
        model(x, y)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=500)
    for step in range(500):
        loss = mixture.bits_per_dim(-mixture.log_prob(model(x, y), x).mean(), 8)
        if step == 0:
            first = loss.item()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    assert first > 6 and loss.item() < 3.5
    assert (class_log_likelihoods(model, x).argmax(1) == y).all()


def test_a_run_leaves_what_it_promises(picture_folder, tmp_path):
    seen = []
    configs = tiny(picture_folder, sample_every=2, flip=True, grad_clip=1.0)
    folder = train(*configs, tmp_path / "run", on_epoch=seen.append)
    names = {"config.json", "metrics.jsonl", "last.pt", "last.safetensors", "best.safetensors", "gallery.png"}
    names |= {"previous.pt"}  # of the first epoch
    assert {path.name for path in folder.iterdir()} == names
    assert metrics(folder) == seen and [line["epoch"] for line in seen] == [1, 2]
    assert read_config(folder) == configs
    assert seen[-1]["step"] == 2  # 12 pictures, batches of 16: one step an epoch


def test_the_same_seed_gives_the_same_run(picture_folder, tmp_path):
    a, b = (train(*tiny(picture_folder, seed=3), tmp_path / name) for name in "ab")
    c = train(*tiny(picture_folder, seed=4), tmp_path / "c")
    weights = [load_file(folder / "last.safetensors") for folder in (a, b, c)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_pictures_are_mirrored_and_shifted(picture_folder, tmp_path, monkeypatch):
    seen = []
    step = training.train_step
    monkeypatch.setattr(training, "train_step", lambda model, x, *rest: (seen.extend(x), step(model, x, *rest))[1])
    train(*tiny(picture_folder, epochs=30, flip=True, shift=1), tmp_path / "run")
    pictures = load_split("folder", "train", picture_folder, image_size=8).tensors()[0]
    found = set()
    for x in seen:
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                source = (..., slice(1 - down, 7 - down), slice(1 - right, 7 - right))
                for mirrored in (False, True):
                    originals = pictures.flip(3) if mirrored else pictures
                    if (originals[source] == x[:, 1:7, 1:7]).all(dim=(1, 2, 3)).any():
                        found.add((down, right, mirrored))
    assert len(found) == 18  # all there are


def test_pictures_are_turned_and_the_network_is_told(picture_folder, tmp_path, monkeypatch):
    seen = []
    step = training.train_step

    def look(model, x, y, *rest):
        seen.extend(zip(x, y.tolist(), strict=True))
        return step(model, x, y, *rest)

    monkeypatch.setattr(training, "train_step", look)
    train(*tiny(picture_folder, epochs=20, turn=0.5), tmp_path / "run")
    pictures, labels = load_split("folder", "train", picture_folder, image_size=8).tensors()
    counts = dict.fromkeys(range(4), 0)
    for x, told in seen:
        quarters, label = divmod(told, 2)
        counts[quarters] += 1
        originals = pictures[labels == label]
        assert (torch.stack([p.rot90(quarters, (1, 2)) for p in originals]) == x).all(dim=(1, 2, 3)).any()
    assert sum(counts.values()) == 20 * 12 and abs(counts[0] - 120) < 40 and min(counts.values()) > 15


def test_what_was_told_of_turns_is_judged_and_saved_upright(picture_folder, tmp_path):
    model_config, config = tiny(picture_folder, turn=0.7, hybrid=0.1, fusion="all")
    folder = train(model_config, config, tmp_path / "run")
    model, state = checkpoints.load_model(folder), torch.load(folder / "last.pt", weights_only=True)
    assert model.config == model_config and model.config.num_classes == 2
    whole = state["averaged"]["fusion.maps.params.weight"]
    assert whole.shape[0] == 8 and torch.equal(model.fusion.maps["params"].weight, whole[:2])
    assert not torch.equal(whole[:2], whole[2:4])

    turned = training.ConditionalPixelCNN(replace(model_config, num_classes=8))
    begin(turned, model, None, None, replace(config, init="run"))
    assert torch.equal(turned.fusion.maps["params"].weight, whole[:2].repeat(4, 1))
    view, x, y = training.upright(turned.eval(), 2), random_pictures(3, dtype=torch.float32), torch.tensor([1, 0, 1])
    for weight in turned.parameters():
        weight.data += 0.01  # in place, as an average moves
    with torch.no_grad():
        assert torch.equal(view(x, y), turned(x, y))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("schedule,optimizer", [("step", "adam"), ("cosine", "muon")])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(picture_folder, tmp_path, schedule, optimizer, precision):
    model_config, config = tiny(
        picture_folder,
        epochs=5,
        lr_decay=0.7,
        schedule=schedule,
        optimizer=optimizer,
        precision=precision,
        checkpoint_every=2,
        **ALL_AT_ONCE,
    )
    whole = train(model_config, config, tmp_path / "whole")

    class Interrupted(Exception):
        pass

    def interrupt(line):
        if line["epoch"] == 3:  # one epoch after the last checkpoint, whose lines must go
            raise Interrupted

    with pytest.raises(Interrupted):
        train(model_config, config, tmp_path / "parts", on_epoch=interrupt)
    torch.manual_seed(12345)
    parts = train(model_config, config, tmp_path / "parts", resume=True)

    lines = [[{k: v for k, v in line.items() if k not in TIMING} for line in metrics(f)] for f in (whole, parts)]
    assert lines[0] == lines[1]
    for name in ("last.safetensors", "best.safetensors"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
    states = [torch.load(f / "last.pt", weights_only=True) for f in (whole, parts)]
    flat = [dict(flatten(state)) for state in states]
    assert flat[0].keys() == flat[1].keys() and len(flat[0]) > 200
    for key, value in flat[0].items():
        same = torch.equal(value, flat[1][key]) if isinstance(value, torch.Tensor) else value == flat[1][key]
        assert same, key


def flatten(value, path=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from flatten(inner, f"{path}/{i}")
    else:
        yield path, value


def test_validation_counts_every_picture_once():
    """Seven pictures, batches of three, one label unknown: the mean is over the six that count."""
    model = small_model(torch.float32)
    images = ((random_pictures(7) + 1) * 127.5).round().to(torch.uint8)
    labels = torch.tensor([0, 1, 2, -1, 0, 1, 2])
    bpd, scores = validate(model, ImageDataset(images, labels, ("a", "b", "c"), [""] * 7))
    known = labels >= 0
    x, y = (images.float() / 127.5 - 1)[known], labels[known]
    with torch.no_grad():
        nats = [-mixture.log_prob(model(x[i : i + 1], y[i : i + 1]), x[i : i + 1]).item() for i in range(6)]
        guesses = [
            max(range(3), key=lambda c: mixture.log_prob(model(x[i : i + 1], torch.tensor([c])), x[i : i + 1]).item())
            for i in range(6)
        ]
    assert bpd == pytest.approx(sum(nats) / 6 / (192 * math.log(2)), rel=1e-5)
    assert scores.accuracy == pytest.approx(sum(g == t for g, t in zip(guesses, y.tolist(), strict=True)) / 6)


def test_training_loss_is_the_mean_over_pictures_not_batches(picture_folder, tmp_path, monkeypatch):
    """With a learning rate near zero the epoch's loss is the model's, whatever the batches."""
    results = []
    for batch_size in (5, 12):
        model_config, config = tiny(picture_folder, epochs=1, batch_size=batch_size, lr=1e-12, dropout=0.0)
        folder = train(model_config, config, tmp_path / str(batch_size))
        results.append(metrics(folder)[0]["train_bpd"])
    assert results[0] == pytest.approx(results[1], abs=2e-3)


def test_hybrid_loss_by_hand():
    model = small_model()
    x, y = random_pictures(4), torch.tensor([0, 1, 2, 1])
    for rivals in (torch.tensor([[2], [0], [1], [0]]), torch.tensor([[2, 1], [0, 2], [1, 0], [0, 2]])):
        labels = torch.cat([y[:, None], rivals], dim=1)
        losses, bits = training.hybrid_loss(model, x, labels, weight=0.3)
        for picture, those, loss, own in zip(x, labels, losses, bits, strict=True):
            nats = [mixture.log_prob(model(picture[None], c[None]), picture[None]).item() for c in those]
            expected = -nats[0] / (192 * math.log(2))
            assert own.item() == pytest.approx(expected, rel=1e-6)
            cross_entropy = math.log(sum(math.exp((n - nats[0]) / 20) for n in nats))
            assert loss.item() == pytest.approx(expected + 0.3 * cross_entropy, rel=1e-6)


def test_the_rival_is_the_likeliest_wrong_label_of_the_first_weights(monkeypatch):
    nats = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [-5.0, -7.0, -6.0]])
    monkeypatch.setattr(distributed, "class_log_likelihoods", lambda *_, **__: nats)
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    assert rivals_of(small_model(), images, torch.tensor([0, 1, 0]), torch.float32).tolist() == [1, 0, 2]


def test_each_picture_meets_its_rival_under_its_turn(picture_folder, tmp_path, monkeypatch):
    """Rivals that would not be found by chance, and stay those of the run when it goes on."""
    seen, asked = [], []

    def rivals(_model, _images, labels, _precision):
        asked.append(len(labels))
        return (labels + torch.arange(len(labels)) % 2) % 2  # every other picture is its own rival

    def look(model, x, y, *rest):
        seen.extend(y.tolist())
        return step(model, x, y, *rest)

    step = training.train_step
    monkeypatch.setattr(training, "train_step", look)
    monkeypatch.setattr(loop, "rivals_of", rivals)
    model_config, config = tiny(picture_folder, epochs=1, turn=0.5, hybrid=0.1)
    train(model_config, config, tmp_path / "run")
    monkeypatch.setattr(loop, "rivals_of", None)
    train(model_config, replace(config, epochs=10), tmp_path / "run", resume=True)
    assert asked == [12] and len(seen) == 120
    assert all(own // 2 == rival // 2 for own, rival in seen) and {own // 2 for own, _ in seen} == {0, 1, 2, 3}
    assert sum(own == rival for own, rival in seen) == 60


def test_a_hybrid_phase_starts_from_given_weights_and_reports_bits(picture_folder, tmp_path):
    first = train(*tiny(picture_folder, dropout=0.3), tmp_path / "first")
    start = {"init": str(first / "last.safetensors"), "lr": 1e-12, "epochs": 1, "dropout": 0.0}
    plain = train(*tiny(picture_folder, **start), tmp_path / "plain")
    hybrid = train(*tiny(picture_folder, hybrid=10.0, **start), tmp_path / "hybrid")
    before, after, with_labels = (metrics(folder)[-1] for folder in (first, plain, hybrid))
    assert after["validation_bpd"] == pytest.approx(before["validation_bpd"], abs=1e-4)
    assert with_labels["train_bpd"] == pytest.approx(after["train_bpd"], abs=1e-4), "bits, without the cross-entropy"
    with pytest.raises(UsageError, match=r"--init .* does not fit the run: it has nr_filters 4, not 5$"):
        train(*tiny(picture_folder, nr_filters=5, **start), tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("fusion", ["film,middle,late", "early,late"])
def test_a_run_at_another_size_begins_with_given_weights_unless_they_have_a_size(picture_folder, tmp_path, fusion):
    first = train(*tiny(picture_folder, fusion=fusion), tmp_path / "first")
    start = {"init": str(first / "last.safetensors"), "lr": 1e-12, "epochs": 1, "image_size": 16, "fusion": fusion}
    if "early" in fusion:
        with pytest.raises(UsageError, match=r"--init .* does not fit the run: it has image_size 8, not 16$"):
            train(*tiny(picture_folder, **start), tmp_path / "larger")
        return
    larger = train(*tiny(picture_folder, **start), tmp_path / "larger")
    given, kept = (checkpoints.load_model(folder / "last.safetensors") for folder in (first, larger))
    assert kept.config.image_size == 16
    for name, weight in given.state_dict().items():
        torch.testing.assert_close(kept.state_dict()[name], weight, rtol=0, atol=1e-6)


def test_hybrid_training_raises_accuracy_on_its_pictures(picture_folder, tmp_path):
    """The cross-entropy alone moves the labels apart: it must fall where the bits alone leave it."""
    settings = {"epochs": 6, "lr": 5e-3, "dropout": 0.0, "grad_clip": 1.0}
    x, y = load_split("folder", "train", picture_folder, 8).tensors()
    losses = []
    for hybrid in (0.0, 1.0):
        folder = train(*tiny(picture_folder, hybrid=hybrid, **settings), tmp_path / str(hybrid))
        nats = class_log_likelihoods(checkpoints.load_model(folder / "last.safetensors"), x)
        losses.append(float(torch.nn.functional.cross_entropy(nats / training.SOFTNESS, y)))
    assert losses[1] < losses[0] - 0.05, losses


def test_fid_during_training_by_hand_and_its_failure_costs_a_warning(picture_folder, tmp_path, monkeypatch, capsys):
    """A stand-in for the Inception network whose features are the mean colours."""
    monkeypatch.setattr(fid, "find_weights", lambda: Path("stand-in"))
    monkeypatch.setattr(fid, "load_network", lambda _weights, _dims: Colours())
    folder = train(*tiny(picture_folder, fid_every=2), tmp_path / "run")
    first, second = metrics(folder)
    assert "fid" not in first and second["fid_dims"] == 192 and second["fid_counts"] == [50, 6]
    model = checkpoints.load_model(folder / "last.safetensors")
    samples = generate(model, torch.arange(2).repeat_interleave(25), generator=torch.Generator().manual_seed(0))
    real = load_split("folder", "validation", picture_folder, 8).tensors()[0]
    x, y = (((part + 1) / 2).double().mean(dim=(2, 3)).numpy() for part in (samples, real))  # (N, 3)
    root = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    by_hand = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert second["fid"] == pytest.approx(by_hand, abs=1e-3)

    monkeypatch.setattr(fid, "load_network", lambda *_args: 1 / 0)
    failed = train(*tiny(picture_folder, fid_every=1), tmp_path / "failed")
    assert len(metrics(failed)) == 2 and "fid" not in metrics(failed)[0]
    assert capsys.readouterr().err.count("warning: no FID in this epoch: division by zero") == 2


class Colours(torch.nn.Module):
    def forward(self, x):
        return (x,)


def test_train_limit(picture_folder, tmp_path):
    folder = train(*tiny(picture_folder, train_limit=3, batch_size=1, epochs=1), tmp_path / "run")
    assert metrics(folder)[0]["step"] == 3


def test_a_limit_that_leaves_a_class_out_is_refused(picture_folder, tmp_path):
    with pytest.raises(UsageError, match=r"--train-limit 1 leaves no picture of (dark|light) to learn from: give a"):
        train(*tiny(picture_folder, train_limit=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_of_given_weights_is_named_and_nothing_else(picture_folder, tmp_path):
    first = train(*tiny(picture_folder, epochs=1), tmp_path / "first")
    other = {"init": str(first / "last.safetensors"), "nr_logistic_mix": 2, "nr_resnet": 2, "dropout": 0.1}
    with pytest.raises(UsageError, match=r"last.safetensors does not fit the run: it has (.*)$") as refused:
        train(*tiny(picture_folder, **other), tmp_path / "run")
    assert sorted(str(refused.value).partition("it has ")[2].split("; ")) == [
        "nr_logistic_mix 1, not 2",
        "nr_resnet 1, not 2",
    ]


def test_learning_rates_by_hand():
    step = TrainConfig(lr=1.0, lr_decay=0.5, schedule="step", epochs=10)
    assert [learning_rate(step, s, 10) for s in (0, 9, 10, 25)] == [1, 1, 0.5, 0.25]
    cosine = TrainConfig(lr=1.0, schedule="cosine", epochs=10, warmup=4)
    assert learning_rate(cosine, 0, 10) == pytest.approx(0.25)
    assert learning_rate(cosine, 50, 10) == pytest.approx(0.5)
    assert learning_rate(cosine, 99, 10) < 0.001


def test_the_reports_decay_is_a_constant_learning_rate():
    report = run_configs("report", 4)[1]
    assert learning_rate(report, 199 * 260, 260) / report.lr > 0.999


def test_average_by_hand():
    model = torch.nn.Linear(1, 1, bias=False)
    averaged = copy.deepcopy(model)
    torch.nn.init.constant_(averaged.weight, 1.0)
    torch.nn.init.constant_(model.weight, 2.0)
    training.update_average(averaged, model, 0.5, step=1000)
    assert averaged.weight.item() == pytest.approx(1.5)
    training.update_average(averaged, model, 0.999, step=2)  # early on: (1 + 2) / (10 + 2)
    assert averaged.weight.item() == pytest.approx(1.5 * 0.25 + 2 * 0.75)
    training.update_average(averaged, model, 0.0, step=1000)
    assert averaged.weight.item() == 2.0


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid(preset):
    run_configs(preset, 4)


def test_original_preset_has_the_size_of_the_original_code():
    model, config = run_configs("original", 4)
    assert (model.nr_filters, model.nr_resnet, model.nr_logistic_mix, model.fusion) == (160, 5, 10, ("blocks",))
    assert config.lr_decay == pytest.approx(0.999995 ** math.ceil(4159 / config.batch_size), abs=1e-5)


def test_report_preset_is_the_reports():
    model, config = run_configs("report", 4)
    assert (model.nr_filters, model.nr_resnet, model.nr_logistic_mix) == (100, 2, 5)
    assert model.fusion == ("early", "upstream", "middle", "late")
    assert (config.lr, config.lr_decay, config.batch_size, config.epochs) == (2e-4, 0.999995, 16, 200)
    starter = run_configs("starter", 4)[0]
    assert (starter.nr_filters, starter.nr_resnet, starter.nr_logistic_mix) == (40, 1, 5)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"grad_clip": -1.0}, "grad_clip must be at least 0"),
        ({"ema_decay": 1.0}, "ema_decay must be"),
        ({"schedule": "linear"}, "unknown schedule"),
        ({"optimizer": "sgd"}, "unknown optimizer"),
        ({"adam_lr": 0.0}, "adam_lr must be above 0"),
        ({"optimizer": "muon", "weight_decay": -0.1}, "weight_decay at least 0"),
        ({"optimizer": "muon", "lr": 0.5, "weight_decay": 2.0}, "weight_decay .* below 1 / lr"),
        ({"weight_decay": 0.1}, "weight_decay goes with Muon"),
        ({"hybrid": -0.1}, "hybrid must be at least 0"),
        ({"wandb": "yes"}, "unknown wandb mode"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(UsageError, match=message):
        replace(RunConfig(), **change)


def test_another_optimiser_wants_a_learning_rate_of_its_own():
    for preset, other in (("modern", "adam"), ("report", "muon")):
        with pytest.raises(UsageError, match=f"is not one for {other}: give --lr"):
            run_configs(preset, 4, optimizer=other)
        assert run_configs(preset, 4, optimizer=other, lr=0.003)[1].lr == 0.003
    assert run_configs("modern", 4, optimizer="muon")[1].lr == 0.02
    with pytest.raises(UsageError, match="adam_lr goes with Muon"):
        run_configs("report", 4, adam_lr=0.003)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(picture_folder, tmp_path, monkeypatch):
    model_config, config = tiny(picture_folder, epochs=3, checkpoint_every=1)
    kept = {}

    def poison(line):
        folder = tmp_path / "run"
        kept.update(
            {name: (folder / name).read_bytes() for name in ("last.pt", "last.safetensors", "best.safetensors")}
        )
        exact = mixture.log_prob
        monkeypatch.setattr(mixture, "log_prob", lambda params, x: exact(params, x) * float("nan"))

    with pytest.raises(Diverged, match="NaN or infinite in epoch 2"):
        train(model_config, config, tmp_path / "run", on_epoch=poison)
    for name, content in kept.items():
        assert (tmp_path / "run" / name).read_bytes() == content
    assert len(metrics(tmp_path / "run")) == 1


def test_a_run_that_exists_or_does_not(picture_folder, tmp_path):
    train(*tiny(picture_folder, epochs=1), tmp_path / "run")
    with pytest.raises(UsageError, match="exists already: add --resume"):
        train(*tiny(picture_folder, epochs=1), tmp_path / "run")
    with pytest.raises(UsageError, match=r"no run .* to resume"):
        train(*tiny(picture_folder), tmp_path / "other", resume=True)
    assert not (tmp_path / "other").exists()
    with pytest.raises(UsageError, match=r"no run .* to resume"):
        read_config(tmp_path / "other")


def test_ctrl_c_does_not_cut_off_the_upload_at_the_end(picture_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_log.Tracker, "finish", lambda _self, _best: signal.raise_signal(signal.SIGINT))
    folder = train(*tiny(picture_folder, epochs=1), tmp_path / "run")
    assert len(metrics(folder)) == 1


def test_two_at_one_run(picture_folder, tmp_path):
    """The second is refused and changes nothing; once the first has ended, however it ended, there is no lock."""
    model_config, config = tiny(picture_folder, epochs=3, checkpoint_every=1)
    in_another_process = "import sys; from pathlib import Path; from kit.runs import read_config; "
    in_another_process += "from kit.train import train; "
    in_another_process += "train(*read_config(Path(sys.argv[1])), Path(sys.argv[1]), resume=True)"
    command = [sys.executable, "-c", in_another_process, str(tmp_path / "run")]

    def second(line: dict) -> None:
        if line["epoch"] == 1:
            before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
            ended = subprocess.run(command, cwd=KIT, capture_output=True, text=True)
            assert "another process trains" in ended.stderr
            assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}

    train(model_config, config, tmp_path / "run", on_epoch=second)
    assert [line["epoch"] for line in metrics(tmp_path / "run")] == [1, 2, 3]
    assert subprocess.run(command, cwd=KIT, capture_output=True).returncode == 0


def test_a_state_of_another_architecture(picture_folder, tmp_path):
    train(*tiny(picture_folder, epochs=1), tmp_path / "run")
    with pytest.raises(UsageError, match=r"does not fit its config.json"):
        train(*tiny(picture_folder, nr_filters=5), tmp_path / "run", resume=True)


def test_unlabelled_training_pictures_are_refused(course_data, tmp_path):
    (course_data / "train.csv").write_text((course_data / "test.csv").read_text())
    with pytest.raises(UsageError, match="without a label"):
        train(*run_configs("starter", 4, dataset="cpen455", data_root=str(course_data)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("first,then", [("float32", "float16"), ("bfloat16", "float16"), ("float16", "float32")])
def test_a_run_goes_on_where_auto_is_another_precision(picture_folder, tmp_path, monkeypatch, first, then):
    """Begun on a laptop, resumed on a T4, whose `auto` is float16: only there a gradient is scaled."""
    monkeypatch.setattr("kit.train.pick_precision", lambda *_: getattr(torch, first))
    model_config, config = tiny(picture_folder, epochs=1)
    folder = train(model_config, config, tmp_path / "run")
    monkeypatch.setattr("kit.train.pick_precision", lambda *_: getattr(torch, then))
    train(model_config, replace(config, epochs=2), folder, resume=True)
    assert [line["epoch"] for line in metrics(folder)] == [1, 2]
    scaler = torch.load(folder / "last.pt", weights_only=True)["scaler"]
    assert scaler == ({} if then == "float32" else torch.amp.GradScaler("cpu").state_dict() | {"_growth_tracker": 1})


class TooEager(torch.amp.GradScaler):
    """Begins with a scale at which float16 overflows: that is halved until it does not."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs | {"init_scale": 2.0**34})


def test_a_step_that_overflows_in_float16_is_skipped_and_counted(picture_folder, tmp_path, monkeypatch, capsys):
    averaged = []
    update_average = training.update_average
    monkeypatch.setattr(training, "update_average", lambda *args: (averaged.append(args[3]), update_average(*args)))
    monkeypatch.setattr(torch.amp, "GradScaler", TooEager)
    configs = tiny(picture_folder, precision="float16", epochs=3, **ALL_AT_ONCE | {"batch_size": 1})
    whole = train(*configs, tmp_path / "whole", on_epoch=print_epoch)
    skipped = [line["skipped_steps"] for line in metrics(whole)]
    state = torch.load(whole / "last.pt", weights_only=True)
    assert skipped[0] >= 3 and state["scaler"]["scale"] == 2.0 ** (34 - sum(skipped))
    assert len(set(averaged)) == 36 - sum(skipped) > 0 and not set(averaged) & {0, 1, 2}
    steps = {float(each["step"]) for each in state["optimizer"]["state"].values()}
    assert steps == {36.0 - sum(skipped)}, "the optimiser has not counted them either"
    assert f"{skipped[0]} steps skipped: float16 overflowed\n" in capsys.readouterr().out

    class StopAt:  # in the middle of the epoch that skips
        def __init__(self, _limit):
            self.looks = 0

        def reason(self) -> str:
            self.looks += 1
            return "enough" if self.looks == 3 else ""

        __enter__, __exit__ = (lambda self: self), (lambda *_: None)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr("kit.train.StopRequest", StopAt)
        train(*configs, tmp_path / "parts")
    assert torch.load(tmp_path / "parts" / "last.pt", weights_only=True)["skipped"] == 3
    parts = train(*configs, tmp_path / "parts", resume=True)
    assert [line["skipped_steps"] for line in metrics(parts)] == skipped
    assert (whole / "last.safetensors").read_bytes() == (parts / "last.safetensors").read_bytes()


def test_under_float16_the_loss_the_mixture_and_the_class_tables_are_float32():
    model = small_model(torch.float32, fusion="all")
    x, y = random_pictures(4, dtype=torch.float32), torch.tensor([0, 1, 2, 0])
    exact = mixture.log_prob(model.double()(x.double(), y), x.double())
    model.float()
    with torch.autocast("cpu", torch.float16):
        params = model(x, y)
        losses, bits = training.generative_loss(model, x, y)
        hybrid, _ = training.hybrid_loss(model, x, torch.stack([y, (y + 1) % 3], dim=1), 0.02)
    assert params.dtype == mixture.unpack(params).log_scales.dtype == torch.float32
    assert losses.dtype == bits.dtype == hybrid.dtype == torch.float32
    assert torch.allclose(mixture.log_prob(params, x), exact.float(), rtol=0.01)
    losses.sum().backward()
    tables = dict(model.fusion.maps.named_parameters())
    assert len(tables) > 5 and all(t.dtype == t.grad.dtype == torch.float32 for t in tables.values())
    assert all(bool(t.grad.isfinite().all()) and bool(t.grad.any()) for t in tables.values())
