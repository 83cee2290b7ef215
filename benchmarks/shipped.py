"""`python -m benchmarks.shipped`: what `evaluate` says of every shipped file, of some under each of its settings."""

import argparse
import itertools
from pathlib import Path

from torch import Tensor

from kit.classifier import Classifier
from kit.scores import sign_test, wilson_interval
from utils import mixture
from utils.checkpoints import SHIPPED
from utils.classify import calibration_error, fit_calibration, log_posterior, score

from .common import Kept
from .measures import right_alone

RESULTS = Path(__file__).with_name("shipped.json")
FIRST = "cpen455"  # the others on the same pictures are compared with it
WITH_SETTINGS = (FIRST, "cpen455-hybrid")
CALIBRATE = 519


def rows_of(name: str, dataset: str, root: str | None) -> tuple[dict[str, dict], dict[str, Tensor], Tensor]:
    """-> what is said of the weights under each setting, the labels that they give then (N,), and the true ones."""
    with_settings = name in WITH_SETTINGS
    options, split = Classifier(name, mirror=with_settings), "validation" if dataset == "cpen455" else "test"
    models = options.load()
    pictures = options.pictures(models, dataset, split, root)
    x, y = pictures.tensors()
    every = options.log_likelihoods(models, x)  # (V, N, C): of the pictures, and of their mirror images
    fitted = options.calibration_pictures(models, dataset, root, CALIBRATE * with_settings)
    if fitted:
        of_fitted = options.log_likelihoods(models, fitted.tensors()[0])
    rows, labels, size = {}, {}, models[0].config.image_size
    bits = float(mixture.bits_per_dim(-every[0].gather(1, y[:, None]).mean(), size))
    for mirror, calibrate in itertools.product((False, True), repeat=2) if with_settings else [(False, False)]:
        logits = every[: 1 + mirror].mean(dim=0)
        if calibrate and fitted:
            temperature, bias = fit_calibration(of_fitted[: 1 + mirror].mean(dim=0), fitted.labels)
            logits = logits / temperature + bias
        key = name + " --mirror" * mirror + f" --calibrate {CALIBRATE}" * calibrate
        labels[key] = logits.argmax(dim=1)
        scores = score(labels[key], y, len(pictures.classes))
        low, high = wilson_interval(int(scores.confusion.diag().sum()), scores.count)
        rows[key] = {
            "parameters": sum(weights.numel() for weights in models[0].parameters()),
            "dataset": dataset,
            "split": split,
            "count": scores.count,
            "size": size,
            "bits per dimension": bits,
            "accuracy": scores.accuracy,
            "95 % from": low,
            "to": high,
            "macro F1": scores.macro_f1,
            "calibration error": calibration_error(log_posterior(logits).exp(), y),
            "forward passes": len(pictures.classes) * (1 + mirror),
        }
    return rows, labels, y


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shipped", description=__doc__)
    parser.add_argument("--data-root", metavar="DIR", help="of cpen455")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    results = Kept(args.out)
    results.clear()  # all is made anew, so that no row is of earlier weights
    for name in sorted(SHIPPED, key=lambda name: name != FIRST):
        dataset = SHIPPED[name]
        rows, labels, y = rows_of(name, dataset, args.data_root if dataset == "cpen455" else None)
        right = {key: labels[key] == y for key in rows}
        if name == FIRST:
            of_first = right[FIRST]
        for key, row in rows.items():
            if dataset == SHIPPED[FIRST] and key != FIRST:
                alone = right_alone(right[key], of_first)
                row |= {"right alone": alone[0], f"{FIRST} right alone": alone[1], "p": sign_test(*alone)}
            results.keep(key, row)


if __name__ == "__main__":
    main()
