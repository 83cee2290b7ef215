from pathlib import Path

from tqdm.auto import tqdm

from utils.device import pick_device
from utils.training import check_seed

from .. import course
from ..platforms import load_model


def run(
    out: str, /, checkpoint: str, device: str = "auto", samples: int = 25, seed: int = 0, guidance: float = 0.0
) -> None:
    """a folder for the course's own evaluation scripts

    Args:
        out: a folder that is new or empty.
        checkpoint: shipped weights, a run's name, or a .safetensors file.
        device: `auto`, `cpu`, `cuda` or `mps`.
        samples: pictures of each class; the course wants 25.
        seed: fixes the random choices.
        guidance: of the samples, as of `generate`; the model that classifies is the same.
    """
    check_seed(seed)
    model = load_model(checkpoint, pick_device(device))
    with tqdm(total=model.config.image_size, desc="rows", leave=False, disable=None) as bar:
        course.export(model, out, checkpoint, samples, seed, guidance, on_row=lambda _i, _images: bar.update())
    print(f"{out}: {checkpoint} for the course's scripts; {Path(out) / 'README.txt'} says what to paste")
