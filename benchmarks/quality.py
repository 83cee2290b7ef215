"""`python -m benchmarks.quality`: the generative classifier against a small CNN, and its pictures judged by that CNN.

The CNN sees the same training pictures; a tenth of them is held out, for the temperatures and as the real pictures
that drawn ones are compared with: it has trained on neither. All that is reported on is the validation split.

Times mean something only on an idle machine: `--time` measures them alone and writes them into the same file.
"""

import argparse
import json
import math
import shlex
import sys
import time
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from kit.console import any_letter
from kit.platforms import machine
from kit.scores import sign_test
from utils import UsageError
from utils.checkpoints import load_model, with_classes, write_atomically
from utils.classify import fit_calibration, fit_temperature, log_posterior, score
from utils.data import load_split, shifted
from utils.device import pick_device
from utils.figures import show_images
from utils.model import ConditionalPixelCNN
from utils.sampling import generate

from .cnn import BATCH, SmallCNN, held_and_rest, outputs, train_cnn
from .common import seconds, table
from .measures import (
    HALVES,
    accuracy,
    auroc,
    bits,
    classification,
    frechet_distances,
    nearest,
    nearest_other,
    pictures_of_no_class,
    right_alone,
    row_log_likelihoods,
    rows_of,
)

MOVED = (0, 1, 4, 8)  # pixels; the chroma blocks of a 4:2:0 JPEG, halved from 64x64 to 32x32, are 8 wide
SHOWN = 16  # drawn pictures in the figure
TIMES = "time to classify a picture"  # the section that `--time` measures


class Setup:
    """The data, the trained CNN and, unless it is judged alone, the generative model with what it says of them."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.device = args, pick_device(args.device)
        self.model = None if args.cnn_only else load_model(args.checkpoint, self.device)
        self.size = self.model.config.image_size if self.model else 32
        self.train, self.validation = (
            load_split(args.dataset, split, args.data_root, self.size) for split in ("train", "validation")
        )
        num_classes = len(self.train.classes)
        if self.model and self.model.config.num_classes != num_classes:
            found = self.model.config.num_classes
            raise UsageError(f"{args.dataset} has {num_classes} classes, {args.checkpoint} {found}")
        if min(args.epochs, args.per_class) < 1:
            raise UsageError("--epochs and --per-class must be at least 1")
        others = args.against or (["cpen455-hybrid"] if args.checkpoint == "cpen455" else [])
        self.others = {name: self.other(name) for name in others if self.model}
        self.x, self.y = self.validation.tensors()
        self.held, self.rest = held_and_rest(self.train, args.seed)

    def other(self, name: str) -> ConditionalPixelCNN:
        model = load_model(name, self.device)
        if model.config.image_size != self.size:
            raise UsageError(f"{name} reads pictures of another size than {self.args.checkpoint}")
        return with_classes(model, self.model.class_names, name, self.args.checkpoint)

    @cached_property
    def cnn(self) -> SmallCNN:
        args = self.args
        return train_cnn(*self.rest.tensors(), len(self.train.classes), args.epochs, self.device, args.seed)

    @cached_property
    def logits(self) -> Tensor:
        return outputs(self.cnn, self.x)[1]

    @cached_property
    def nats(self) -> Tensor:
        return self.log_likelihoods(self.x)

    @cached_property
    def of_held(self) -> Tensor:
        return self.log_likelihoods(self.held.tensors()[0])

    @cached_property
    def of_others(self) -> dict[str, Tensor]:
        return {name: self.log_likelihoods(self.x, model) for name, model in self.others.items()}

    @cached_property
    def calibrated(self) -> Tensor:
        """Logits with temperature and biases fitted to as many training pictures as are judged, chosen as
        `python -m kit evaluate --calibrate` chooses them."""
        fitted = self.train.held_out(len(self.y))
        temperature, bias = fit_calibration(self.log_likelihoods(fitted.tensors()[0]), fitted.labels)
        return self.nats / temperature + bias

    def draw(self, labels: Tensor, guidance: float = 0.0) -> Tensor:
        """A picture for each label, random by the seed."""
        generator = torch.Generator().manual_seed(self.args.seed)
        parts = tqdm(labels.split(2 * BATCH), desc="drawing", leave=False, disable=None)
        drawn = [generate(self.model, part, generator=generator, guidance=guidance) for part in parts]
        return torch.cat(drawn).float().cpu()

    def log_likelihoods(self, x: Tensor, model: ConditionalPixelCNN | None = None) -> Tensor:
        """log p(x | y), nats (N, C)."""
        return row_log_likelihoods(model or self.model, x).sum(2)


def classified(s: Setup) -> dict[str, list[dict]]:
    temperature = fit_temperature(outputs(s.cnn, s.held.tensors()[0])[1], s.held.labels)
    rows = [{"model": "CNN"} | classification(s.logits, s.y, temperature)]
    if s.model:
        generative = classification(s.nats, s.y, fit_temperature(s.of_held, s.held.labels))
        rows.append({"model": s.args.checkpoint} | generative)
    return {"classification": rows}


def compared(s: Setup) -> dict[str, list[dict]]:
    """Pairs of classifiers on the same pictures: how many each names right that the other does not, and the sign
    test's p, exact and two-sided."""
    own, count = s.args.checkpoint, len(s.y)
    mirrored, calibrated = f"{own} --mirror", f"{own} --calibrate {count}"
    labels = {
        "CNN": s.logits.argmax(1),
        own: s.nats.argmax(1),
        mirrored: (s.nats + s.log_likelihoods(s.x.flip(3))).argmax(1),
        calibrated: s.calibrated.argmax(1),
        **{name: nats.argmax(1) for name, nats in s.of_others.items()},
    }
    right = {name: prediction == s.y for name, prediction in labels.items()}
    pairs = [(mirrored, own), (calibrated, own), *((name, own) for name in s.others)]
    pairs += [(own, "CNN"), *((name, "CNN") for name in s.others)]
    rows = []
    for a, b in pairs:
        row: dict = {"A": a, "B": b, "count": count}
        row |= {f"{which}'s accuracy": float(right[name].double().mean()) for which, name in (("A", a), ("B", b))}
        alone = right_alone(right[a], right[b])
        row |= {"labels that differ": int((labels[a] != labels[b]).sum())}
        rows.append(row | {"A alone right": alone[0], "B alone right": alone[1], "p": sign_test(*alone)})
    return {"paired tests": rows}


def worth_of_a_class(s: Setup) -> dict[str, list[dict]]:
    """log2 p(x | y) - log2 p(x) of a whole picture, at most log2 C: what knowing its class saves. A wrong label that
    the model is far too sure of costs many bits; by the calibrated posterior that is less."""
    own, rows = s.args.checkpoint, []
    models = {own: s.nats, f"{own} --calibrate {len(s.y)}": s.calibrated} | s.of_others
    for name, nats in models.items():
        saved = (log_posterior(nats).gather(1, s.y[:, None])[:, 0] + math.log(nats.shape[1])) / math.log(2)
        spread = {"standard error": float(saved.std()) / len(saved) ** 0.5, "median": float(saved.median())}
        line = {"model": name, "count": len(saved), "bits of a picture": float(saved.mean())} | spread
        rows.append(line | {"at most": math.log2(nats.shape[1])})
    return {"what knowing the class is worth": rows}


def of_no_class(s: Setup) -> dict[str, list[dict]]:
    """Pictures of no class told from validation, and half covered ones classified."""

    def own_scores(logits: Tensor, nats: Tensor) -> dict[str, Tensor]:
        """Each (N,), larger for what looks familiar."""
        bpd = bits(nats, s.size)
        typicality = -(bpd - bits(s.of_held, s.size).mean()).abs()
        return {"CNN, largest softmax": log_posterior(logits).amax(1), "log p(x)": -bpd, "typicality": typicality}

    familiar, rows, covered = own_scores(s.logits, s.nats), [], []
    for name, other in pictures_of_no_class(s.x, s.args.dataset, torch.Generator().manual_seed(s.args.seed)).items():
        of_rows, logits = row_log_likelihoods(s.model, other), outputs(s.cnn, other)[1]
        scores = own_scores(logits, of_rows.sum(2))
        areas = {kind: auroc(familiar[kind], scores[kind]) for kind in scores}
        rows.append({"pictures": name, "count": len(other), "bits/dim": -float(scores["log p(x)"].mean())} | areas)
        if (half := name.removesuffix(" grey")) in HALVES:
            seen = rows_of(HALVES[1 - HALVES.index(half)], s.size)
            for who, whole, as_is, left_out in (
                ("CNN", s.logits, logits, None),
                (s.args.checkpoint, s.nats, of_rows.sum(2), of_rows[:, :, seen].sum(2)),
            ):
                shares = [None if part is None else accuracy(part, s.y) for part in (whole, as_is, left_out)]
                how = dict(zip(("whole", "grey taken as it is", "grey left out"), shares, strict=True))
                covered.append({"missing": half, "model": who, "count": len(other)} | how)
    return {"pictures of no class, AUROC against validation": rows, "half covered, accuracy": covered}


def moved_aside(s: Setup) -> dict[str, list[dict]]:
    rows = []
    for pixels in MOVED:
        moved = shifted(s.x, torch.zeros_like(s.y), torch.full_like(s.y, pixels))
        nats = s.log_likelihoods(moved) if pixels else s.nats
        named = {"CNN": accuracy(outputs(s.cnn, moved)[1], s.y), s.args.checkpoint: accuracy(nats, s.y)}
        rows.append({"pixels": pixels} | named | {"bits/dim": float(bits(nats, s.size).mean())})
    return {"moved to the right, the edge repeated": rows}


def drawn_pictures(s: Setup) -> dict[str, list[dict]]:
    """The sections on drawn and on guided pictures, and the figure: below each its nearest training pictures."""
    args, classes = s.args, s.validation.classes
    labels = torch.arange(len(classes)).repeat(args.per_class)
    pictures = {"drawn": s.draw(labels), "guided": s.draw(labels, args.guidance), "validation": s.x}
    features, logits = ({name: outputs(s.cnn, x)[i] for name, x in pictures.items()} for i in (0, 1))
    held = outputs(s.cnn, s.held.tensors()[0])[0]

    asked = {"drawn": labels, "guided": labels, "validation": s.y}
    recall = {name: score(logits[name].argmax(1), y, len(classes)).recall for name, y in asked.items()}
    lines = [{"class": name} | {kind: recall[kind][label] for kind in asked} for label, name in enumerate(classes)]
    sections = {"recognised by the CNN": lines}
    distances = frechet_distances(features, held)
    sections[f"Fréchet distance to {len(s.held)} held-out training pictures, CNN's features"] = distances

    known = s.train.tensors()[0]
    known = torch.cat([known, known.flip(3)])  # a mirrored copy is a copy
    spaces = {
        "pixels": (known.flatten(1), {name: x.flatten(1) for name, x in pictures.items()}),
        "features": (outputs(s.cnn, known)[0], features),
    }
    sections["nearest training picture, root mean square distance"] = lines = []
    shown = torch.randperm(len(labels), generator=torch.Generator().manual_seed(args.seed))[:SHOWN]
    rows: dict[str, Tensor] = {}
    found = {space: {name: nearest(queries[name], reference) for name in pictures}
             for space, (reference, queries) in spaces.items()}  # fmt: skip
    for space, (_, queries) in spaces.items():
        usual = found[space]["validation"][0].quantile(0.01)
        for name, (far, _) in found[space].items():
            line = {"median": float(far.median()), "closest": float(far.min())}
            line |= {"nearer than 99 % of validation": float((far < usual).double().mean())}
            line |= {"median to another of its own set": float(nearest_other(queries[name]).median())}
            lines.append({"space": space, "pictures": name} | line)
    for name in ("drawn", "guided"):
        rows[name] = pictures[name][shown]
        rows |= {f"nearest to {name}, {space}": known[found[space][name][1][shown]] for space in spaces}

    import matplotlib.pyplot as plt

    figure = show_images(torch.cat([*rows.values()]), columns=len(shown))
    for n, text in enumerate(rows):
        figure.axes[n * len(shown)].set_title(text, fontsize=7, loc="left")
    write_atomically(args.out.with_suffix(".png"), lambda path: figure.savefig(path, format="png", dpi=120))
    plt.close(figure)
    return sections


def existing(path: Path, checkpoint: str) -> dict:
    """What an earlier run has left there on these weights, or nothing."""
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return results if isinstance(results, dict) and results.get("checkpoint") == checkpoint else {}


def run(args: argparse.Namespace) -> dict:
    s = Setup(args)
    results = {
        "machine": machine(s.device), "date": time.strftime("%Y-%m-%d"),
        "command": shlex.join(["python", "-m", "benchmarks.quality", *args.typed]),
        "split": f"{args.dataset} validation", "checkpoint": None if args.cnn_only else args.checkpoint,
        "counts": {"CNN's training": len(s.rest), "held out": len(s.held), "validation": len(s.validation),
                   "drawn": 0 if args.cnn_only else args.per_class * len(s.train.classes)},
        "CNN": {"parameters": sum(p.numel() for p in s.cnn.parameters()), "epochs": args.epochs},
        "sections": classified(s),
    }  # fmt: skip
    if s.model:
        for section in (compared, worth_of_a_class, of_no_class, moved_aside, drawn_pictures):
            results["sections"] |= section(s)
        kept = existing(args.out, args.checkpoint).get("sections", {})
        results["sections"] |= {TIMES: kept[TIMES]} if TIMES in kept else {}
    return results


def times(args: argparse.Namespace) -> dict:
    """The file's results with this machine's times; the CNN's weights, which do not change its time, are untrained."""
    if not (results := existing(args.out, args.checkpoint)):
        raise UsageError(f"{args.out} holds no results on {args.checkpoint}: run this without --time first")
    device = pick_device(args.device)
    model = load_model(args.checkpoint, device)
    x = load_split(args.dataset, "validation", args.data_root, model.config.image_size).tensors()[0][:BATCH]
    cnn = SmallCNN(model.config.num_classes).to(device).eval()
    taken = {
        "CNN": seconds(lambda: outputs(cnn, x), repeats=5),
        args.checkpoint: seconds(lambda: row_log_likelihoods(model, x), repeats=3),
    }
    where = {"machine": machine(device), "date": time.strftime("%Y-%m-%d")}
    rows = [{"model": name, "ms an image": 1000 * each / len(x)} | where for name, each in taken.items()]
    return results | {"sections": results["sections"] | {TIMES: rows}}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--checkpoint", default="cpen455", metavar="NAME_OR_PATH")
    parser.add_argument("--dataset", default="cpen455")
    parser.add_argument("--data-root", metavar="DIR")
    parser.add_argument("--epochs", type=int, default=20, help="of the CNN")
    parser.add_argument("--per-class", type=int, default=128, help="pictures to draw")
    parser.add_argument("--guidance", type=float, default=2.0, help="of the guided ones")
    parser.add_argument("--against", action="append", metavar="NAME_OR_PATH", help="other weights for paired tests")
    parser.add_argument("--time", action="store_true", help="measure the times alone, and write them into --out")
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
        results = times(args) if args.time else run(args)
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
