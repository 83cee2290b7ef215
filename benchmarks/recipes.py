"""`python -m benchmarks.recipes`: what a second of compute is worth under each training recipe, in small networks.

Every recipe has the same time, not the same number of epochs: one whose steps are dearer makes fewer of them. What a
step costs is measured before it is first made, in pairs with steps of the first recipe, so a busy machine slows both.
"""

import argparse
import copy
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from utils import mixture, training
from utils.classify import Scores, class_log_likelihoods
from utils.data import ImageDataset, load_split, shifted, to_float
from utils.layers import DownRightShiftedConv2d, DownShiftedConv2d, ShiftedConv2d
from utils.model import ConditionalPixelCNN
from utils.training import TrainConfig

from . import common
from .common import Kept, spread

RESULTS = Path(__file__).with_name("recipes.json")
LATTICE = 8  # pixels: the chroma blocks of a 4:2:0 JPEG, 16 wide, halved with the picture from 64x64 to 32x32
MOVED = (1, 4, 8)  # pixels to the right
EMA_DECAY, WARMUP = 0.99, 100  # of runs so short
BASE = dict(nr_filters=24, nr_logistic_mix=5, dropout=0.0, turn=0.0, ema_decay=EMA_DECAY, warmup=WARMUP)


@dataclass(frozen=True)
class Recipe:
    """What differs from the preset `best` with the fields of `BASE`.

    Args:
        says: what it is, for the table.
        given: fields of the two configs.
        rate: the share of the learning rate at a share of the time.
        batch: pictures in a step at a share of the time; None is the config's.
        pictures: what a batch (B, 3, 32, 32) becomes at a share of the time.
        build: from the fresh network and its config to its optimiser.
        tells_place: the network is told each pixel's row and column, counted modulo so many pixels; 0: it is not.
        moves: pictures are moved by up to so many pixels, and `tells_place` says by how many.
        tells_flip: a mirrored picture has labels of its own.
    """

    says: str
    given: dict = field(default_factory=dict)
    rate: Callable[[float], float] = lambda share: 0.5 * (1 + math.cos(math.pi * share))
    batch: Callable[[float], int] | None = None
    pictures: Callable[[Tensor, float], Tensor] = lambda x, share: x
    build: Callable[[ConditionalPixelCNN, TrainConfig], torch.optim.Optimizer] = training.build_optimizer
    tells_place: int = 0
    moves: int = 0
    tells_flip: bool = False


def without_weight_norm(model: ConditionalPixelCNN, config: TrainConfig) -> torch.optim.Optimizer:
    for module in model.modules():
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
    return training.build_optimizer(model, config)


def schedule_free(model: ConditionalPixelCNN, config: TrainConfig) -> torch.optim.Optimizer:
    from schedulefree import AdamWScheduleFree  # pip install schedulefree

    return AdamWScheduleFree(model.parameters(), lr=config.lr, warmup_steps=WARMUP)


def crops(x: Tensor) -> Tensor:
    """A random quarter of each picture: (B, 3, 32, 32) -> (B, 3, 16, 16)."""
    down, right = torch.randint(0, x.shape[2] // 2 + 1, (2, len(x)))
    half = x.shape[2] // 2
    return torch.stack([p[:, i : i + half, j : j + half] for p, i, j in zip(x, down, right, strict=True)])


def halved(x: Tensor) -> Tensor:
    return mixture.to_levels(F.avg_pool2d(x, 2))


def first(share_of_time: float, change: Callable[[Tensor], Tensor]) -> Callable[[Tensor, float], Tensor]:
    return lambda x, share: change(x) if share < share_of_time else x


def trapezoid(share: float, falls_from: float = 0.6) -> float:
    return min(1.0, (1 - share) / (1 - falls_from))


def with_momentum(model: ConditionalPixelCNN, config: TrainConfig, momentum: float) -> torch.optim.Optimizer:
    optimizer = training.build_optimizer(model, config)
    for group in optimizer.param_groups[:-1]:
        group["momentum"] = momentum
    return optimizer


class ToldPlace(nn.Module):
    """A first layer that also reads the row and the column modulo `period`, one-hot."""

    def __init__(self, layer: ShiftedConv2d, period: int):
        super().__init__()
        self.layer, self.period = layer, period
        self.moves = torch.zeros(2, 1, dtype=torch.long)  # (2, B): how far down and right

    def forward(self, x: Tensor) -> Tensor:
        period, pixels = self.period, torch.arange(x.shape[2], device=x.device)
        rows, columns = (F.one_hot((pixels - by[:, None]) % period, period).to(x) for by in self.moves)  # (B, S, P)
        rows, columns = rows.mT[..., None], columns.mT[:, :, None]  # (B, P, S, 1), (B, P, 1, S)
        shape = (len(x), period, *x.shape[2:])
        return self.layer(torch.cat([x, rows.expand(shape), columns.expand(shape)], dim=1))


def tell_place(model: ConditionalPixelCNN, period: int) -> None:
    size, channels = model.config.nr_filters, 4 + 2 * period
    model.u_first = ToldPlace(DownShiftedConv2d(channels, size, (2, 3)), period)
    model.ul_first_above = ToldPlace(DownShiftedConv2d(channels, size, (1, 3)), period)
    model.ul_first_left = ToldPlace(DownRightShiftedConv2d(channels, size, (2, 1)), period)


ADAM = dict(optimizer="adam", lr=0.02)
RECIPES = {
    "muon": Recipe("Muon, 0.02, batches of 8, cosine"),
    "adam": Recipe("Adam, 0.02", ADAM),
    "schedule-free": Recipe("schedule-free AdamW, 0.02", ADAM, rate=lambda share: 1.0, build=schedule_free),
    "muon-0.05": Recipe("Muon, 0.05", dict(lr=0.05)),
    "others-0.02": Recipe("Adam for the other parameters at 0.02, not 0.005", dict(adam_lr=0.02)),
    "others-0.001": Recipe("the same at 0.001", dict(adam_lr=0.001)),
    "every-site": Recipe("the class at every site", dict(fusion="all")),
    "batch-4": Recipe("batches of 4", dict(batch_size=4)),
    "batch-16": Recipe("batches of 16", dict(batch_size=16)),
    "batch-grows": Recipe("batches of 4, from half the time on of 16", batch=lambda share: 4 if share < 0.5 else 16),
    "momentum-0.9": Recipe("momentum 0.9", build=lambda m, c: with_momentum(m, c, 0.9)),
    "decay-0.1": Recipe("weight decay 0.1", dict(weight_decay=0.1)),
    "decay-0.5": Recipe("weight decay 0.5", dict(weight_decay=0.5)),
    "decay-3": Recipe("weight decay 3", dict(weight_decay=3.0)),
    "plain": Recipe("no weight normalisation", build=without_weight_norm),
    "plain-decay-0.5": Recipe("no weight normalisation, decay 0.5", dict(weight_decay=0.5), build=without_weight_norm),
    "trapezoid": Recipe("constant, from 60 % of the time on falling linearly", rate=trapezoid),
    "crops": Recipe(
        "16x16 crops, 32 a step, for 40 % of the time",
        batch=lambda share: 32 if share < 0.4 else 8, pictures=first(0.4, crops),
    ),
    "halved": Recipe(
        "pictures of half the size, 32 a step, for 30 % of the time",
        batch=lambda share: 32 if share < 0.3 else 8, pictures=first(0.3, halved),
    ),
    "place": Recipe("told the place in the lattice of 8", tells_place=LATTICE),
    "place-in-picture": Recipe("told the place in the picture", tells_place=32),
    "moved": Recipe("moved by up to 4 pixels, not told", dict(shift=4)),
    "moved-told": Recipe("moved by up to 4 pixels, told by the place", tells_place=LATTICE, moves=4),
    "flip-told": Recipe("told whether it is mirrored", tells_flip=True),
    "no-flip": Recipe("not mirrored", dict(flip=False)),
}  # fmt: skip


Step = Callable[[], object]


def relative_cost(step: Step, reference: Step, pairs: int = 30) -> float:
    """How many times as long as `reference` a step takes: the median of pairs, one right after the other."""
    step(), reference()
    found = []
    for _ in range(pairs):
        times = []
        for each in (step, reference):
            started = time.perf_counter()
            each()
            times.append(time.perf_counter() - started)
        found.append(times[0] / times[1])
    return statistics.median(found)


def step_of(model: ConditionalPixelCNN, recipe: Recipe, config: TrainConfig, x: Tensor, y: Tensor) -> Step:
    """Training steps of a copy of the network, always on the same batch."""
    model = copy.deepcopy(model)
    optimizer, scaler = recipe.build(model, config), torch.amp.GradScaler("cpu", enabled=False)
    if hasattr(optimizer, "train"):
        optimizer.train()  # type: ignore[operator]
    return lambda: training.train_step(model, x, y, optimizer, scaler, torch.bfloat16, config.grad_clip)


def begun(recipe: Recipe, data: ImageDataset, seed: int) -> tuple[ConditionalPixelCNN, TrainConfig]:
    num_classes = len(data.classes) * (1 + recipe.tells_flip)
    model_config, config = training.configs_for("best", num_classes, **BASE | recipe.given, seed=seed)
    torch.manual_seed(seed)
    model = ConditionalPixelCNN(model_config)
    if recipe.tells_place:
        tell_place(model, recipe.tells_place)
    training.initialise(model, data.images, data.labels, seed)
    return model.train(), config


def trained(recipe: Recipe, data: ImageDataset, seed: int, steps: int) -> tuple[ConditionalPixelCNN, dict]:
    """-> the averaged network after the time of so many steps of the recipe `muon`, and what it did in that time."""
    first = RECIPES["muon"]
    model, config = begun(first, data, seed)
    x, y = to_float(data.images[: config.batch_size]), data.labels[: config.batch_size]
    reference = step_of(model, first, config, x, y)

    model, config = begun(recipe, data, seed)
    optimizer = recipe.build(model, config)
    averaged = copy.deepcopy(model).eval().requires_grad_(False)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    own_average = hasattr(optimizer, "eval")  # schedule-free
    if own_average:
        optimizer.train()  # type: ignore[operator]
    costs: dict[torch.Size, float] = {}
    order, step, seen, spent = torch.empty(0, dtype=torch.long), 0, 0, 0.0
    while (share := spent / steps) < 1:
        count = recipe.batch(share) if recipe.batch else config.batch_size
        if len(order) < count:
            order = torch.cat([order, torch.randperm(len(data))])
        places, order = order[:count], order[count:]
        x, y = to_float(data.images[places]), data.labels[places]
        if config.flip:
            mirrored = torch.rand(len(x)) < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
            y = y + len(data.classes) * mirrored if recipe.tells_flip else y
        moves = torch.zeros(2, len(x), dtype=torch.long)
        if most := config.shift or recipe.moves:
            moves = torch.randint(-most, most + 1, moves.shape)
            x = shifted(x, *moves)
        x = recipe.pictures(x, share)
        rate = recipe.rate(share) * min(1.0, (step + 1) / config.warmup)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * group.get("relative_lr", 1.0) * (1.0 if own_average else rate)
        for layer in model.modules():
            if isinstance(layer, ToldPlace):
                layer.moves = moves
        if x.shape not in costs:
            costs[x.shape] = relative_cost(step_of(model, recipe, config, x, y), reference)
        training.train_step(model, x, y, optimizer, scaler, torch.bfloat16, config.grad_clip)
        training.update_average(averaged, model, config.ema_decay, step)
        step, seen, spent = step + 1, seen + len(x), spent + costs[x.shape]
    if own_average:
        optimizer.eval()  # type: ignore[operator]
        averaged.load_state_dict(model.state_dict())
    return averaged, {"steps": step, "pictures seen": seen, "cost of a step": [round(c, 3) for c in costs.values()]}


def judged(model: ConditionalPixelCNN, data: ImageDataset, moved: bool) -> dict:
    """Bits per dimension and accuracy; with `moved` accuracy on pictures moved to the right, too, the edge repeated."""
    for layer in model.modules():
        if isinstance(layer, ToldPlace):
            layer.moves = torch.zeros(2, 1, dtype=torch.long)

    def log_likelihoods(*args, **kwargs) -> Tensor:
        return class_log_likelihoods(*args, **kwargs)[:, : len(data.classes)]  # of pictures that are not mirrored

    def scores(pixels: int) -> tuple[float, Scores]:
        right = torch.full((len(data),), pixels)
        there = ImageDataset(shifted(data.images, 0 * right, right), data.labels, data.classes, data.names)
        return training.validate(model, there, torch.bfloat16, log_likelihoods)

    bits, found = scores(0)
    of_moved = {str(pixels): scores(pixels)[1].accuracy for pixels in MOVED} if moved else {}
    return {"bits": bits, "accuracy": found.accuracy, "accuracy moved": of_moved}


def table(results: dict) -> str:
    rows = []
    for name, recipe in RECIPES.items():
        runs = [run for key, run in results.items() if key.rpartition(",")[0] == name]
        if not runs:
            continue
        columns = [[100 * run["accuracy moved"][str(m)] for run in runs if run["accuracy moved"]] for m in MOVED]
        rows.append({
            "recipe": recipe.says,
            "bits per dimension": spread([run["bits"] for run in runs], 3),
            "accuracy, %": spread([100 * run["accuracy"] for run in runs], 1),
            "moved by 1, 4, 8 pixels, %": ", ".join(f"{statistics.mean(column):.0f}" for column in columns if column),
            "pictures seen": f"{statistics.mean(run['pictures seen'] for run in runs):,.0f}",
            "runs": str(len(runs)),
        })  # fmt: skip
    return common.table(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", help=f"of {', '.join(RECIPES)}; all where none is named")
    parser.add_argument("--steps", type=int, default=1000, help="of the recipe `muon`; the others have the same time")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each recipe")
    parser.add_argument("--moved", action="store_true", help="judge moved pictures too")
    parser.add_argument("--out", type=Path, default=RESULTS, help="what is found there is not made again")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = Kept(args.out)
    train, validation = (load_split("cpen455", split) for split in ("train", "validation"))
    for seed in range(args.seeds):
        for name in args.recipes or RECIPES:
            if (key := f"{name},{seed}") in results:
                continue
            model, run = trained(RECIPES[name], train, seed, args.steps)
            results.keep(key, run | judged(model, validation, args.moved))
    print(table(results))


if __name__ == "__main__":
    main()
