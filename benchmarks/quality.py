"""`python -m benchmarks.quality`: the generative classifier against a small CNN, and its pictures judged by that CNN.

The CNN sees the same training pictures; a tenth of them is held out, for the temperatures and as the real pictures
that drawn ones are compared with: it has trained on neither. All that is reported on is the validation split.
"""

import argparse
import json
import math
import shlex
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn.utils import parametrize
from tqdm.auto import tqdm

from kit.console import any_letter
from kit.fid import frechet_distance
from kit.platforms import machine
from kit.scores import wilson_interval
from utils import UsageError, mixture
from utils.checkpoints import load_model, write_atomically
from utils.classify import calibration_error, fit_temperature, log_posterior, score
from utils.data import ImageDataset, load_split, shifted
from utils.device import autocast, pick_device, pick_precision
from utils.figures import show_images
from utils.model import ConditionalPixelCNN
from utils.sampling import generate

from .common import seconds

WIDTHS = (32, 64, 128, 256)  # 1.17 million parameters
BATCH, LR, WEIGHT_DECAY, SHIFT = 64, 2e-3, 0.05, 2
GREY = 128 / 127.5 - 1  # a byte's level, as every pixel of a picture
COVERED = "lower half grey"
MOVED = (0, 1, 4, 8)  # pixels; the chroma blocks of a 4:2:0 JPEG, halved from 64x64 to 32x32, are 8 wide
SHOWN = 16  # drawn pictures in the figure


class SmallCNN(nn.Module):
    """Two convolutions a scale, four scales; -> features (B, 256) and logits (B, C)."""

    def __init__(self, num_classes: int):
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in zip((3, *WIDTHS), WIDTHS, strict=False):
            for channels in (before, width):
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
        self.body = nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(WIDTHS[-1], num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return features, self.head(features)


def augment(x: Tensor) -> Tensor:
    """Mirrors each picture with probability 1/2 and shifts it by up to `SHIFT` pixels; edges are repeated."""
    x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
    return shifted(x, *torch.randint(-SHIFT, SHIFT + 1, (2, len(x))))


def train_cnn(x: Tensor, y: Tensor, num_classes: int, epochs: int, device: torch.device, seed: int) -> SmallCNN:
    torch.manual_seed(seed)
    cnn = SmallCNN(num_classes).to(device)
    optimizer = torch.optim.AdamW(cnn.parameters(), weight_decay=WEIGHT_DECAY)
    nr_batches = max(1, len(x) // BATCH)
    step, steps = 0, epochs * nr_batches
    for _ in tqdm(range(epochs), desc="CNN", leave=False, disable=None):
        for part in torch.randperm(len(x)).tensor_split(nr_batches):
            for group in optimizer.param_groups:  # warm-up, then cosine
                group["lr"] = LR * min(1.0, (step + 1) / nr_batches) * 0.5 * (1 + math.cos(math.pi * step / steps))
            with autocast(device, pick_precision(device)):
                loss = F.cross_entropy(cnn(augment(x[part]).to(device))[1], y[part].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    return cnn.eval()


@torch.inference_mode()
def outputs(cnn: SmallCNN, x: Tensor) -> tuple[Tensor, Tensor]:
    """Features (N, 256) and logits (N, C), float64 on the CPU."""
    device = next(cnn.parameters()).device
    parts = [cnn(part.to(device)) for part in x.split(4 * BATCH)]
    features, logits = (torch.cat(both).cpu().double() for both in zip(*parts, strict=True))
    return features, logits


@torch.inference_mode()
def row_log_likelihoods(model: ConditionalPixelCNN, x: Tensor) -> Tensor:
    """log p(row | rows above, label) for every picture, label and row: nats (N, C, H), float64 on the CPU.

    No pixel depends on a later one, so the sum over the upper rows alone is exactly the upper part's log-likelihood,
    whatever stands below.
    """
    device = next(model.parameters()).device
    parts = []
    with parametrize.cached():
        for part in tqdm(x.split(32), desc="log-likelihoods", leave=False, disable=None):
            part = part.to(device)
            labels = [torch.full((len(part),), label, device=device) for label in range(model.config.num_classes)]
            columns = [mixture.log_prob(model(part, y), part, reduce=False).sum(dim=2) for y in labels]  # (B, H)
            parts.append(torch.stack(columns, dim=1).cpu().double())
    return torch.cat(parts)


def bits(nats: Tensor, image_size: int) -> Tensor:
    """log p(x | y) (N, C) under a uniform prior -> -log2 p(x) per dimension, (N,)."""
    return mixture.bits_per_dim(math.log(nats.shape[1]) - torch.logsumexp(nats, dim=1), image_size)


def auroc(familiar: Tensor, other: Tensor) -> float:
    """The chance that a familiar picture's score is above another's, by ranks; ties count half. 1-D tensors."""
    ranks = rankdata(torch.cat([familiar, other]).numpy())  # ties share their mean rank
    n, m = len(familiar), len(other)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def frechet(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of the normal distributions fitted to two sets of features, float64 (N, D) and (M, D)."""
    return frechet_distance(a.numpy(), b.numpy())


def nearest(queries: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean square distance of each (N, D) to the nearest of (M, D), and which that is: (N,), (N,)."""
    distances, which = torch.cdist(queries, reference, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1)
    return distances / queries.shape[1] ** 0.5, which


def classification(logits: Tensor, y: Tensor, temperature: float, ms: float) -> dict:
    """Accuracy with its 95 % interval (Wilson), calibration before and after, cost. logits: (N, C)."""
    scores = score(logits.argmax(1), y, logits.shape[1])
    low, high = wilson_interval(int(scores.confusion.diag().sum()), scores.count)
    return {
        "accuracy": scores.accuracy,
        "95 % from": low,
        "to": high,
        "macro F1": scores.macro_f1,
        "calibration error": calibration_error(log_posterior(logits).exp(), y),
        "with temperature": calibration_error(log_posterior(logits / temperature).exp(), y),
        "temperature": temperature,
        "ms an image": ms,
    }


def half_covered(x: Tensor) -> Tensor:
    return torch.cat([x[:, :, : x.shape[2] // 2], torch.full_like(x[:, :, x.shape[2] // 2 :], GREY)], dim=2)


def pictures_of_no_class(x: Tensor, dataset: str, generator: torch.Generator) -> dict[str, Tensor]:
    """Other pictures in the shape of x (N, 3, S, S), on the 256 levels."""
    n, _, size, _ = x.shape
    order = torch.rand(n, 1, size * size, generator=generator).argsort(dim=2).expand(-1, 3, -1)
    sets = {} if dataset == "cartoons" else {"cartoons": load_split("cartoons", "validation", None, size).subset(n)}
    return {name: cartoons.tensors()[0] for name, cartoons in sets.items()} | {
        "uniform noise": torch.randint(0, 256, x.shape, generator=generator) / 127.5 - 1,
        "one colour": (torch.randint(0, 256, (n, 3, 1, 1), generator=generator) / 127.5 - 1).expand_as(x),
        "pixels shuffled": x.flatten(2).gather(2, order).view_as(x),
        "upside down": x.flip(2),
        COVERED: half_covered(x),
    }


def against_the_cnn(model, cnn, args, held: ImageDataset, validation: ImageDataset) -> dict[str, list[dict]]:
    """The sections on classification and on pictures of no class, half covered and moved; without a model the CNN's."""
    (x, y), size, some = validation.tensors(), validation.images.shape[-1], validation.tensors()[0][:BATCH]
    logits = outputs(cnn, x)[1]
    temperature = fit_temperature(outputs(cnn, held.tensors()[0])[1], held.labels)
    ms = 1000 * seconds(lambda: outputs(cnn, some), repeats=5) / len(some)
    sections = {"classification": [{"model": "CNN"} | classification(logits, y, temperature, ms)]}
    if model is None:
        return sections

    nats, of_held = (row_log_likelihoods(model, part).sum(2) for part in (x, held.tensors()[0]))
    ms = 1000 * seconds(lambda: row_log_likelihoods(model, some), repeats=3) / len(some)
    generative = classification(nats, y, fit_temperature(of_held, held.labels), ms)
    sections["classification"].append({"model": args.checkpoint} | generative)

    def own_scores(logits: Tensor, nats: Tensor) -> dict[str, Tensor]:
        """Each (N,), larger for what looks familiar."""
        bpd = bits(nats, size)
        typicality = -(bpd - bits(of_held, size).mean()).abs()
        return {"CNN, largest softmax": log_posterior(logits).amax(1), "log p(x)": -bpd, "typicality": typicality}

    familiar = own_scores(logits, nats)
    sections["pictures of no class, AUROC against validation"] = lines = []
    for name, other in pictures_of_no_class(x, args.dataset, torch.Generator().manual_seed(args.seed)).items():
        other_rows, other_logits = row_log_likelihoods(model, other), outputs(cnn, other)[1]
        scores = own_scores(other_logits, other_rows.sum(2))
        areas = {kind: auroc(familiar[kind], scores[kind]) for kind in scores}
        lines.append({"pictures": name, "count": len(other), "bits/dim": -float(scores["log p(x)"].mean())} | areas)

    def accuracy(scores: Tensor) -> float:
        return score(scores.argmax(1), y, scores.shape[1]).accuracy

    left_out = accuracy(other_rows[:, :, : size // 2].sum(2))  # of the last set, the covered pictures
    sections[f"{COVERED}, accuracy"] = [
        {"model": name, "whole": accuracy(whole), "grey taken as it is": accuracy(covered), "grey left out": exact}
        for name, whole, covered, exact in (
            ("CNN", logits, other_logits, None),
            (args.checkpoint, nats, other_rows.sum(2), left_out),
        )
    ]

    sections["moved to the right, the edge repeated"] = lines = []
    for pixels in MOVED:
        moved = shifted(x, torch.zeros_like(y), torch.full_like(y, pixels))
        of_moved = row_log_likelihoods(model, moved).sum(2) if pixels else nats
        bpd = float(bits(of_moved, size).mean())
        line = {"CNN": accuracy(outputs(cnn, moved)[1]), args.checkpoint: accuracy(of_moved), "bits/dim": bpd}
        lines.append({"pixels": pixels} | line)
    return sections


def of_drawn_pictures(model, cnn, args, train: ImageDataset, held: ImageDataset, validation: ImageDataset) -> dict:
    """The sections on drawn pictures, and the figure: below each its nearest training pictures."""
    generator, classes = torch.Generator().manual_seed(args.seed), validation.classes
    labels = torch.arange(len(classes)).repeat(args.per_class)
    parts = tqdm(labels.split(2 * BATCH), desc="drawing", leave=False, disable=None)
    drawn = torch.cat([generate(model, part, generator=generator).float().cpu() for part in parts])
    pictures = {"drawn": drawn, "validation": validation.tensors()[0], "held": held.tensors()[0]}
    features, logits = ({name: outputs(cnn, x)[i] for name, x in pictures.items()} for i in (0, 1))

    asked = {"drawn": labels, "validation": validation.labels}
    recall = {name: score(logits[name].argmax(1), y, len(classes)).recall for name, y in asked.items()}
    lines = [{"class": name} | {kind: recall[kind][label] for kind in asked} for label, name in enumerate(classes)]
    sections = {"recognised by the CNN": lines}

    count = min(map(len, pictures.values()))
    some = {name: part[torch.randperm(len(part), generator=generator)[:count]] for name, part in features.items()}
    sections["Fréchet distance to held-out training pictures, CNN's features"] = [
        {"pictures": name, "count": count, "distance": frechet(some[name], some["held"])} for name in asked
    ]

    known = train.tensors()[0]
    known = torch.cat([known, known.flip(3)])  # a mirrored copy is a copy
    spaces = {
        "pixels": (known.flatten(1), {name: x.flatten(1) for name, x in pictures.items()}),
        "features": (outputs(cnn, known)[0], features),
    }
    sections["nearest training picture, root mean square distance"] = lines = []
    shown = torch.randperm(len(drawn), generator=generator)[:SHOWN]
    rows = {"drawn": drawn[shown]}
    for space, (reference, queries) in spaces.items():
        (far, which), (usual, _) = (nearest(queries[name], reference) for name in asked)
        line = {f"{name}, {what}": float(d.quantile(q)) for what, q in (("median", 0.5), ("closest", 0.0))
                for name, d in zip(asked, (far, usual), strict=True)}  # fmt: skip
        nearer = float((far < usual.quantile(0.01)).double().mean())
        lines.append({"space": space} | line | {"drawn nearer than 99 % of validation": nearer})
        rows[f"nearest, {space}"] = known[which[shown]]

    import matplotlib.pyplot as plt

    figure = show_images(torch.cat([*rows.values()]), columns=len(shown))
    for n, text in enumerate(rows):
        figure.axes[n * len(shown)].set_title(text, fontsize=7, loc="left")
    write_atomically(args.out.with_suffix(".png"), lambda path: figure.savefig(path, format="png", dpi=120))
    plt.close(figure)
    return sections


def table(rows: list[dict]) -> str:
    """Markdown."""

    def cell(value) -> str:
        return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(rows[0]) + " |", "|---" + "|---:" * (len(rows[0]) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(cell, row.values())) + " |" for row in rows])


def run(args: argparse.Namespace) -> dict:
    device = pick_device(args.device)
    model = None if args.cnn_only else load_model(args.checkpoint, device)
    size = model.config.image_size if model else 32
    train, validation = (load_split(args.dataset, split, args.data_root, size) for split in ("train", "validation"))
    num_classes = len(train.classes)
    if model and model.config.num_classes != num_classes:
        raise UsageError(f"{args.dataset} has {num_classes} classes, {args.checkpoint} {model.config.num_classes}")
    if min(args.epochs, args.per_class) < 1:
        raise UsageError("--epochs and --per-class must be at least 1")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(args.seed))

    def part(which: Tensor) -> ImageDataset:
        return ImageDataset(train.images[which], train.labels[which], train.classes, [train.names[i] for i in which])

    held, rest = part(order[: len(order) // 10]), part(order[len(order) // 10 :])
    started = time.perf_counter()
    cnn = train_cnn(*rest.tensors(), num_classes, args.epochs, device, args.seed)
    results = {
        "machine": machine(device), "date": time.strftime("%Y-%m-%d"),
        "command": shlex.join(["python", "-m", "benchmarks.quality", *args.typed]),
        "split": f"{args.dataset} validation", "checkpoint": None if args.cnn_only else args.checkpoint,
        "counts": {"CNN's training": len(rest), "held out": len(held), "validation": len(validation),
                   "drawn": 0 if args.cnn_only else args.per_class * num_classes},
        "CNN": {"parameters": sum(p.numel() for p in cnn.parameters()), "epochs": args.epochs,
                "seconds of training": time.perf_counter() - started},
    }  # fmt: skip
    results["sections"] = against_the_cnn(model, cnn, args, held, validation)
    if model:
        results["sections"] |= of_drawn_pictures(model, cnn, args, train, held, validation)
    return results


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--checkpoint", default="cpen455", metavar="NAME_OR_PATH")
    parser.add_argument("--dataset", default="cpen455")
    parser.add_argument("--data-root", metavar="DIR")
    parser.add_argument("--epochs", type=int, default=20, help="of the CNN")
    parser.add_argument("--per-class", type=int, default=128, help="pictures to draw")
    parser.add_argument("--cnn-only", action="store_true", help="train and judge the CNN alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).with_name("quality.json"), help="the figure beside it"
    )
    any_letter()
    args = parser.parse_args(arguments)
    args.typed = sys.argv[1:] if arguments is None else arguments
    try:
        results = run(args)
        text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
        write_atomically(args.out, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{results['machine']}, {results['date']}, {results['split']}, {results['counts']}, {results['CNN']}")
    for title, rows in results["sections"].items():
        print(f"\n{title}\n\n{table(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
