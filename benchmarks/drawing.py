"""`python -m benchmarks.drawing`: what makes drawn pictures better, in drawing and in training.

Each setting draws the same number of pictures. The CNN of `benchmarks.quality` judges them: does it name the class that
was asked for, how far are its features from those of training pictures that it has not seen (Fréchet distance,
extrapolated to infinitely many drawn ones), and how far is a picture from the one most like it (variety).

Settings of training go on from the checkpoint for so many steps; `more of the same` is what they are compared with.
"""

import argparse
import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from utils import mixture, training
from utils.checkpoints import load_model
from utils.classify import score
from utils.data import load_split
from utils.model import ConditionalPixelCNN
from utils.sampling import generate

from . import common
from .cascade import FINE_BATCH, FINE_RATES, CoarseToFine, loss_given_coarse
from .cnn import held_and_rest, outputs, train_cnn
from .common import Kept
from .going_on import Loss, generative, gone_on
from .measures import frechet_distances, nearest_other

RESULTS = Path(__file__).with_name("drawing.json")
REAL = "validation pictures"
COARSE_STEPS = 4000
DRAWN_AT_ONCE = 64


def with_temperatures(model: ConditionalPixelCNN, component: float, spread: float) -> ConditionalPixelCNN:
    """The network whose samples at temperature 1 are those of `model` at two temperatures, one for the choice of the
    component (logits / T), one for the spread around its mean (scale * T)."""
    changed = copy.deepcopy(model)
    k = model.config.nr_logistic_mix
    conv, late = changed.head.conv, changed.fusion.maps["params"]
    with torch.no_grad():
        for tensor in (conv.parametrizations.weight.original0, conv.bias, late.weight.T):
            tensor[:k] /= component
        mixture.parts(conv.bias[None, :, None, None]).log_scales.add_(math.log(spread))
    return changed


# of (model, x, y): what the network reads in place of the pictures x
Corrupt = Callable[[ConditionalPixelCNN, Tensor, Tensor], Tensor]


def noisy(levels: float) -> Corrupt:
    """Normal noise of so many of the 256 levels."""
    return lambda model, x, y: mixture.to_levels(x + torch.randn_like(x) * levels / 127.5)


def own_pixels(share: float) -> Corrupt:
    """In this share of the rows the model's own pixels, each drawn given the true ones before it."""

    @torch.no_grad()
    def corrupt(model: ConditionalPixelCNN, x: Tensor, y: Tensor) -> Tensor:
        rows = torch.rand(len(x), 1, x.shape[2], 1) < share
        return torch.where(rows, mixture.sample(model(x, y).float()), x)

    return corrupt


def reading(corrupt: Corrupt) -> Loss:
    """The network reads corrupted pictures, and is asked for the true ones."""

    def loss(model: ConditionalPixelCNN, x: Tensor, y: Tensor, which) -> tuple[Tensor, Tensor]:
        bits = mixture.bits_per_dim(-mixture.log_prob(model(corrupt(model, x, y), y), x), x.shape[-1])
        return bits, bits

    return loss


@dataclass(frozen=True)
class Setting:
    """How pictures are drawn, by which network: the checkpoint's, or one that has gone on from it with a loss."""

    component: float = 1.0
    spread: float = 1.0
    guidance: float = 0.0
    loss: Loss | None = None


SETTINGS = {
    "as it is": Setting(),
    "component's temperature 0.7": Setting(component=0.7),
    "spread's temperature 0.9": Setting(spread=0.9),
    "both 0.9": Setting(component=0.9, spread=0.9),
    "guidance 0.5": Setting(guidance=0.5),
    "guidance 1": Setting(guidance=1.0),
    "guidance 2": Setting(guidance=2.0),
    "guidance 3": Setting(guidance=3.0),
    "guidance 5": Setting(guidance=5.0),
    "more of the same": Setting(loss=generative),
    "noise of 2 levels": Setting(loss=reading(noisy(2))),
    "noise of 8 levels": Setting(loss=reading(noisy(8))),
    "own pixels in a quarter of the rows": Setting(loss=reading(own_pixels(0.25))),
    "coarse to fine": Setting(loss=loss_given_coarse),
}


def table(results: dict) -> str:
    rows = []
    for name in (name for name in (REAL, *SETTINGS) if name in results):
        found = results[name]
        shares = {of: f"{share:.0%}" for of, share in found["recognised"].items()}
        distance = {"Fréchet distance": f"{found['Fréchet distance']:.1f}"}
        rows.append({"setting": name} | shares | distance | {"to the nearest other": found["to the nearest other"]})
    return common.table(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drawing", description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="*", help=f"of {'; '.join(SETTINGS)}; all where none is named")
    parser.add_argument("--checkpoint", default="cpen455")
    parser.add_argument("--per-class", type=int, default=128, help="pictures to draw")
    parser.add_argument("--steps", type=int, default=1000, help="of the settings of training")
    parser.add_argument("--epochs", type=int, default=20, help="of the CNN")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="what is found there is not made again")
    args = parser.parse_args()
    train, validation = (load_split("cpen455", split) for split in ("train", "validation"))
    held, rest = held_and_rest(train, args.seed)
    cnn = train_cnn(*rest.tensors(), len(train.classes), args.epochs, torch.device("cpu"), args.seed)
    reference = outputs(cnn, held.tensors()[0])[0]
    results = Kept(args.out)

    def judged(images: Tensor, labels: Tensor) -> dict:
        features, logits = outputs(cnn, images)
        recall = score(logits.argmax(1), labels, len(train.classes)).recall
        return {
            "recognised": dict(zip(train.classes, recall, strict=True)),
            "Fréchet distance": frechet_distances({"drawn": features}, reference)[0]["extrapolated"],
            "to the nearest other": float(nearest_other(features).median()),
            "pictures": len(images),
            "checkpoint": args.checkpoint,
        }

    results.keep(REAL, judged(*validation.tensors()))
    labels = torch.arange(len(train.classes)).repeat(args.per_class)
    for name in args.settings or SETTINGS:
        if name in results:
            continue
        setting, model = SETTINGS[name], load_model(args.checkpoint)
        generator = torch.Generator().manual_seed(args.seed)
        parts, found = labels.split(DRAWN_AT_ONCE), {}
        if setting.loss is loss_given_coarse:
            both = CoarseToFine(model, train, args.steps, COARSE_STEPS, args.seed)
            found = {"bits per dimension": both.bits_per_dim(validation)}
            images = [both.generate(part, generator) for part in parts]
        else:
            if setting.loss:
                model = gone_on(model, train, FINE_BATCH, FINE_RATES, args.steps, args.seed, setting.loss)
                found = {"bits per dimension": training.validate(model, validation, torch.bfloat16)[0]}
            model = with_temperatures(model, setting.component, setting.spread)
            images = [generate(model, part, generator=generator, guidance=setting.guidance) for part in parts]
        row = judged(torch.cat(images), labels) | found
        results.keep(name, row)
    print(table(results))


if __name__ == "__main__":
    main()
