"""A folder in which the course's own evaluation scripts run with a model of this kit.

The scripts may use the course's packages only, and their folder holds modules called `utils` and `model` of its own.
So the network goes there as one file, `model.py`, joined from the sources of `utils`, and the weights as a plain
state dict, which `load_state_dict` takes.
"""

import ast
import os
import pprint
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

import utils
from utils import UsageError
from utils.data import CPEN455_CLASSES
from utils.model import ConditionalPixelCNN
from utils.sampling import generate

from .runs import save_state
from .samples import new_folder, save_samples

SOURCES = ("__init__", "layers", "fusion", "mixture", "model", "sampling")  # each needs those before it only
IMAGE_SIZE = 32  # what the course's scripts resize to
PER_CLASS = 25

HEAD = '''"""A class-conditional PixelCNN++ in one file, for the course's evaluation scripts.

Written by `python -m kit course-export`, which joins a package's modules; change those, not this file.
"""

import sys

# `from model import *` leaves everything else of the scripts' own utils as it is
__all__ = ["draw_samples", "get_label", "load_model", "new_model"]
'''

TAIL = '''
# ---- what the scripts call

from pathlib import Path

from PIL import Image

CONFIG = ModelConfig(**{config})
WEIGHTS = Path(__file__).resolve().parent / "models" / "conditional_pixelcnn.pth"


def new_model():
    """The architecture, for `load_state_dict` to fill."""
    return ConditionalPixelCNN(CONFIG)


def load_model(device="cpu"):
    """The trained model."""
    model = new_model()
    model.load_state_dict(torch.load(WEIGHTS, map_location="cpu", weights_only=True))
    return model.to(device).eval()


@torch.no_grad()
def get_label(model, model_input, device):
    """The class under which each picture is likeliest. (B, 3, 32, 32) in [-1, 1] -> int64 (B,)

    The scripts resize without rounding; the model knows the 256 levels of 8-bit pictures.
    """
    x = to_levels(model_input.to(device))
    labels = torch.arange(CONFIG.num_classes, device=device)
    nats = [log_prob(model(x, label.expand(len(x))), x) for label in labels]
    return torch.stack(nats, dim=1).argmax(dim=1)


def draw_samples(model, folder, per_class={per_class}, seed={seed}):
    """Writes Class0_image_01.png ... to `folder`; the pictures that lie in samples/ were drawn so."""
    labels = torch.arange(CONFIG.num_classes).repeat_interleave(per_class)
    images = generate(model, labels, generator=torch.Generator().manual_seed(seed))
    pixels = ((images.cpu() + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    Path(folder).mkdir(parents=True, exist_ok=True)
    for n, label in enumerate(labels.tolist()):
        Image.fromarray(pixels[n]).save(Path(folder) / f"Class{{label}}_image_{{n % per_class + 1:02d}}.png")
'''

README = """A model for the course's evaluation scripts, from checkpoint {checkpoint}.

    model.py                          the network, get_label and draw_samples, in place of the course's model.py
    models/conditional_pixelcnn.pth   its weights, a plain state dict
    samples/                          {per_class} pictures of each class, drawn with seed {seed}

Copy classification_evaluation.py, generation_evaluation.py, dataset.py, utils.py and the folder data/ of the course's
repository to this folder (or this folder's content over a copy of that repository), and put these lines between the
scripts' marks "Begin of your code" and "End of your code".

classification_evaluation.py, first block:

    from model import get_label

classification_evaluation.py, second block:

    model = new_model()

generation_evaluation.py, first block:

    def my_sample(model, gen_data_dir):
        draw_samples(model, gen_data_dir)

generation_evaluation.py, second block:

    model = load_model(device)

Then

    python classification_evaluation.py --mode validation
    python generation_evaluation.py

The second one draws the pictures in samples/ again, the same ones on the same kind of machine, and downloads the
weights of the Inception network when they are not in PyTorch's cache.

The course's scripts resize in floating point, this kit in 8 bits as the pictures are: {size}x{size} pictures differ by
one level of 256 in a part of their values, so the script's accuracy may be a few pictures more or less than that of
python -m kit evaluate.
"""


def export(
    model: ConditionalPixelCNN,
    folder: str | Path,
    checkpoint: str,
    per_class: int = PER_CLASS,
    seed: int = 0,
    on_row: Callable[[int, torch.Tensor], object] | None = None,
) -> None:
    """Lays the folder down, whole or not at all.

    Args:
        folder: new or empty.
        checkpoint: where the model came from, for the README.
        per_class: samples of each class; the course wants 25.
        on_row: called as `sampling.generate` does.

    Raises:
        UsageError: the folder is in use, or the model is not one of 32x32 pictures of four classes.
    """
    config = model.config
    if (config.num_classes, config.image_size) != (len(CPEN455_CLASSES), IMAGE_SIZE):
        raise UsageError(
            f"the course's scripts give {IMAGE_SIZE}x{IMAGE_SIZE} pictures of {len(CPEN455_CLASSES)} classes; "
            f"{checkpoint} knows {config.num_classes} of {config.image_size}x{config.image_size}"
        )
    if per_class < 1:
        raise UsageError(f"--samples must be at least 1, not {per_class}")
    folder = new_folder(folder)

    labels = torch.arange(config.num_classes).repeat_interleave(per_class)
    images = generate(model, labels, generator=torch.Generator().manual_seed(seed), on_row=on_row)
    values = {"checkpoint": checkpoint, "per_class": per_class, "seed": seed, "size": IMAGE_SIZE}
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        save_state({k: t.cpu() for k, t in model.state_dict().items()}, temporary / "models/conditional_pixelcnn.pth")
        (temporary / "model.py").write_text(single_file(model, per_class, seed), encoding="utf-8")
        (temporary / "README.txt").write_text(README.format(**values), encoding="utf-8")
        save_samples(images, labels, temporary / "samples")
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}; nothing was left there") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def single_file(model: ConditionalPixelCNN, per_class: int = PER_CLASS, seed: int = 0) -> str:
    """`model.py`: the sources of `utils` without their imports of each other, and what the scripts call."""
    parts = [HEAD]
    for name in SOURCES:
        source = (Path(utils.__file__).parent / f"{name}.py").read_text(encoding="utf-8")
        parts.append(f"\n# ---- {name.strip('_')}\n\n{without_relative_imports(source)}")
    config = pprint.pformat(model.config.to_dict(), sort_dicts=False)
    parts.append(TAIL.format(config=config, per_class=per_class, seed=seed))
    return "".join(parts)


def without_relative_imports(source: str) -> str:
    """Takes `from .layers import ...` out; where a whole module is imported, its name comes to mean the one file."""
    lines = source.splitlines(keepends=True)
    for node in reversed(ast.parse(source).body):  # from the end, so that line numbers stay true
        if isinstance(node, ast.ImportFrom) and node.level:
            modules = [alias.name for alias in node.names if not node.module and alias.name in SOURCES]
            lines[node.lineno - 1 : node.end_lineno] = [f"{name} = sys.modules[__name__]\n" for name in modules]
    return "".join(lines)
