"""`python -m benchmarks.labels`: from likelihood to label. What each way of training for it gains in accuracy, and what
it costs in bits per dimension, in a small network.

Every way goes on from the same network, which was trained for the bits alone, and has the same time. Two more like it,
from other seeds, are averaged with it, and the average is distilled into one.
"""

import argparse
import copy
import functools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from kit.resume import likeliest_wrong
from utils import mixture, training
from utils.checkpoints import load_model, save_model, write_atomically
from utils.classify import class_log_likelihoods
from utils.data import ImageDataset, load_split
from utils.figures import PALETTE, style
from utils.model import ConditionalPixelCNN
from utils.training import SOFTNESS

from . import common
from .common import Kept, spread
from .going_on import GoingOn, Loss, generative, gone_on
from .recipes import RECIPES, judged, relative_cost, trained

RESULTS = Path(__file__).with_name("labels.json")
RATES, BATCH = dict(lr=2e-3, adam_lr=5e-4), 8
TEACHERS = 3
ALONE, TOGETHER = f"each of {TEACHERS} such networks", f"the average of {TEACHERS} such networks"
# (N, 2, C): log p(x | y) of the training pictures, as they are and mirrored, under the network that all go on from or
# averaged over the teachers
Reference = Tensor
# of (model, x, y, reference (B, C), weight): what is minimised and the bits per dimension, (B,) each
LabelLoss = Callable[..., tuple[Tensor, Tensor]]


def hybrid(model, x: Tensor, y: Tensor, reference: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Bits per dimension + weight * cross-entropy over all labels."""
    others = (y[:, None] + torch.arange(reference.shape[1])) % reference.shape[1]  # (B, C), its own first
    return training.hybrid_loss(model, x, others, weight)


def two_labels(model, x: Tensor, y: Tensor, reference: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """As `hybrid`, over the true label and its rival, as `train --hybrid` does: half the passes."""
    return training.hybrid_loss(model, x, torch.stack([y, likeliest_wrong(reference, y)], dim=1), weight)


def of_labels(model, x: Tensor, labels: Tensor) -> Tensor:
    """log p(x | label) of each picture under each of its labels: (B, L), as these."""
    pictures = x.repeat_interleave(labels.shape[1], dim=0)
    return mixture.log_prob(model(pictures, labels.flatten()), pictures).view(labels.shape)


def contrastive(model, x: Tensor, y: Tensor, reference: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """The margin over the rival has to grow beyond the frozen reference's, however large that is already (the form of
    Rafailov et al. 2023, "Direct Preference Optimization", with labels in the place of answers)."""
    labels = torch.stack([y, likeliest_wrong(reference, y)], dim=1)
    nats = of_labels(model, x, labels)
    gained = nats - reference.gather(1, labels)
    bits = mixture.bits_per_dim(-nats[:, 0], x.shape[-1])
    return bits - weight * F.logsigmoid((gained[:, 0] - gained[:, 1]) / SOFTNESS), bits


def distilled(model, x: Tensor, y: Tensor, reference: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """As `hybrid`, with what the teachers' average says in the place of the label (Hinton et al. 2015)."""
    nats = of_labels(model, x, torch.arange(reference.shape[1]).expand_as(reference))
    bits = mixture.bits_per_dim(-nats.gather(1, y[:, None])[:, 0], x.shape[-1])
    return bits + weight * F.cross_entropy(nats / SOFTNESS, (reference / SOFTNESS).softmax(1), reduction="none"), bits


@dataclass(frozen=True)
class Way:
    loss: LabelLoss | None = None
    weight: float = 0.0

    def told(self, reference: Reference) -> Loss:
        """The loss with what the reference says of each picture."""
        if self.loss is None:
            return generative
        loss = self.loss
        return lambda model, x, y, which: loss(model, x, y, reference[which], self.weight)


WAYS = {"generative": Way()} | {
    f"{loss.__name__}, {weight:g}": Way(loss, weight)
    for loss in (hybrid, two_labels, contrastive, distilled)
    for weight in (0.05, 0.2, 1.0, 4.0)
}


def averaged(models: Sequence[ConditionalPixelCNN]) -> Callable[..., Tensor]:
    """As `class_log_likelihoods`, the mean over these networks in the place of the one that is given."""

    def log_likelihoods(_, x: Tensor, **how) -> Tensor:
        return torch.stack([class_log_likelihoods(model, x, **how) for model in models]).mean(dim=0)

    return log_likelihoods


def reference_of(model: ConditionalPixelCNN, data: ImageDataset) -> Reference:
    x, _ = data.tensors()
    return torch.stack([class_log_likelihoods(model, view, precision=torch.bfloat16) for view in (x, x.flip(3))], dim=1)


def start_of(path: Path, data: ImageDataset, seed: int, steps: int) -> ConditionalPixelCNN:
    """The network in the file `path`, of another seed than 0 in one beside it; trained where it is missing."""
    path = path.with_stem(f"{path.stem}-{seed}") if seed else path
    if not path.exists():
        model, _ = trained(RECIPES["muon"], data, seed, steps)
        model.class_names = data.classes
        save_model(model, path)
    return load_model(path)


def table(results: dict) -> str:
    rows = []
    for name in ["start", ALONE, TOGETHER, *WAYS]:
        if runs := [run for key, run in results.items() if key.rpartition(", seed ")[0] == name]:
            rows.append({
                "way, weight": name.replace("_", " "),
                "bits per dimension": spread([run["bits"] for run in runs], 3),
                "accuracy, %": spread([100 * run["accuracy"] for run in runs], 1),
                "pictures seen": f"{statistics.mean(run['pictures seen'] for run in runs):,.0f}",
                "runs": str(len(runs)),
            })  # fmt: skip
    return common.table(rows)


def draw(results: dict) -> Figure:
    """Accuracy against bits: one line a way, one dot a weight, the means over the seeds."""
    style()
    figure, axis = plt.subplots(figsize=(8, 4))
    points: dict[str, list[tuple[float, float]]] = {}  # of each way, by rising weight
    for name in ["start", ALONE, TOGETHER, *WAYS]:
        if runs := [run for key, run in results.items() if key.rpartition(", seed ")[0] == name]:
            at = statistics.mean(run["bits"] for run in runs), 100 * statistics.mean(run["accuracy"] for run in runs)
            points.setdefault(name.partition(", ")[0].replace("_", " "), []).append(at)
    for (way, dots), colour in zip(points.items(), PALETTE, strict=False):
        axis.plot(*zip(*dots, strict=True), ".-", color=colour, label=way)
    axis.set(xlabel="bits per dimension", ylabel="accuracy, %")
    axis.grid(color="0.9")
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.labels", description=__doc__.splitlines()[0])
    parser.add_argument("ways", nargs="*", help=f"of {'; '.join(WAYS)}; all where none is named")
    parser.add_argument("--start", type=Path, required=True, help="the network that all go on from; trained if missing")
    parser.add_argument("--start-steps", type=int, default=6000, help="of its training")
    parser.add_argument("--steps", type=int, default=1000, help="of the generative way; the others have the same time")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each way")
    parser.add_argument("--out", type=Path, default=RESULTS, help="what is found there is not made again")
    args = parser.parse_args()
    torch.set_num_threads(1)
    train, validation = (load_split("cpen455", split) for split in ("train", "validation"))
    start = start_of(args.start, train, 0, args.start_steps)
    results, names = Kept(args.out), args.ways or list(WAYS)
    if "start, seed 0" not in results:
        results.keep("start, seed 0", judged(start, validation, False) | {"pictures seen": 0})
    if any(WAYS[name].loss is distilled for name in names):
        teachers = [start, *(start_of(args.start, train, seed, args.start_steps) for seed in range(1, TEACHERS))]
        for seed, teacher in enumerate(teachers):
            if (key := f"{ALONE}, seed {seed}") not in results:
                results.keep(key, judged(teacher, validation, False) | {"pictures seen": 0})
        if (key := f"{TOGETHER}, seed 0") not in results:
            bits, scores = training.validate(start, validation, torch.bfloat16, averaged(teachers))
            results.keep(key, {"bits": bits, "accuracy": scores.accuracy, "pictures seen": 0})

    @functools.cache
    def reference(network: ConditionalPixelCNN) -> Reference:  # minutes, once, and only for a run that is missing
        return reference_of(network, train)

    for seed in range(args.seeds):
        for name in names:
            if (key := f"{name}, seed {seed}") not in results:
                networks = teachers if WAYS[name].loss is distilled else [start]
                loss = WAYS[name].told(torch.stack([reference(network) for network in networks]).mean(dim=0))
                ways = [GoingOn(copy.deepcopy(start), train, BATCH, RATES, each) for each in (loss, generative)]
                cost = 1.0 if loss is generative else relative_cost(*(way.step for way in ways))
                steps = round(args.steps / cost)
                model = gone_on(start, train, BATCH, RATES, steps, seed, loss)
                run = {"pictures seen": steps * BATCH, "cost of a step": round(cost, 3)}
                results.keep(key, run | judged(model, validation, False))
    print(table(results))
    figure = draw(results)
    write_atomically(args.out.with_suffix(".png"), functools.partial(figure.savefig, format="png", dpi=150))
    plt.close(figure)


if __name__ == "__main__":
    main()
