from pathlib import Path

from utils.classify import log_posterior
from utils.data import read_images, to_float

from ..classifier import Classifier
from ..distributed import say


def run(*files: str, options: Classifier) -> None:
    """the class of picture files

    Args:
        files: pictures, of any size.
    """
    models = options.load()
    config, names = models[0].config, models[0].class_names
    x = to_float(read_images([Path(file) for file in files], config.image_size, expected_size=config.image_size))
    nats = options.log_likelihoods(models, x).mean(dim=0)
    for file, row in zip(files, log_posterior(nats, options.prior_of(config.num_classes)).exp(), strict=True):
        chances = "  ".join(f"{name} {p:.4f}" for name, p in zip(names, row.tolist(), strict=True))
        say(f"{file}: {names[int(row.argmax())]}   ({chances})")
