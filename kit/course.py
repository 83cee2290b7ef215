"""A folder in which the course's own evaluation scripts run with a model of this kit.

The scripts may use the course's packages only, and their folder holds modules called `utils` and `model` of its own.
So the network goes there as one file, `model.py`, joined from the sources of `utils`, and the weights as a plain
state dict, which `load_state_dict` takes.
"""

import ast
import contextlib
import inspect
import os
import pprint
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

import utils
from utils import UsageError
from utils.checkpoints import with_classes
from utils.data import CPEN455_CLASSES
from utils.model import ConditionalPixelCNN
from utils.sampling import generate

from .platforms import template
from .runs import save_state
from .samples import new_folder, save_samples

SOURCES = ("layers", "fusion", "mixture", "model", "sampling")  # each needs those before it only
IMAGE_SIZE = 32  # what the course's scripts resize to
PER_CLASS = 25


def export(
    model: ConditionalPixelCNN,
    folder: str | Path,
    checkpoint: str,
    per_class: int = PER_CLASS,
    seed: int = 0,
    guidance: float = 0.0,
    on_row: Callable[[int, torch.Tensor], object] | None = None,
) -> None:
    """Lays the folder, new or empty, down, whole or not at all: the model, which came from `checkpoint`, and samples,
    `per_class` of each class, drawn as by `sampling.generate`, which calls `on_row`.

    Raises UsageError: the folder is in use, or the model is not one of 32x32 pictures of the course's classes.
    """
    model = with_classes(model, CPEN455_CLASSES, checkpoint, "the course")
    if (size := model.config.image_size) != IMAGE_SIZE:
        raise UsageError(
            f"the course's scripts give {IMAGE_SIZE}x{IMAGE_SIZE} pictures; {checkpoint} reads {size}x{size}"
        )
    if per_class < 1:
        raise UsageError(f"--samples must be at least 1, not {per_class}")
    folder = Path(os.path.abspath(new_folder(folder)))

    labels = torch.arange(len(CPEN455_CLASSES)).repeat_interleave(per_class)
    generator = torch.Generator().manual_seed(seed)
    images = generate(model, labels, generator=generator, on_row=on_row, guidance=guidance)
    values = {"checkpoint": checkpoint, "size": IMAGE_SIZE}
    values |= {"per_class": per_class, "seed": seed, "guidance": guidance}
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        save_state({k: t.cpu() for k, t in model.state_dict().items()}, temporary / "models/conditional_pixelcnn.pth")
        (temporary / "model.py").write_text(single_file(model, per_class, seed, guidance), encoding="utf-8")
        (temporary / "README.txt").write_text(template("course_readme.txt").format(**values), encoding="utf-8")
        save_samples(images, labels, temporary / "samples")
        if folder != Path.cwd():
            with contextlib.suppress(OSError):
                folder.rmdir()  # if it is empty
        if folder.exists():  # a system has left something there
            for part in temporary.iterdir():
                os.replace(part, folder / part.name)
        else:
            os.replace(temporary, folder)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}; nothing was left there") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def single_file(model: ConditionalPixelCNN, per_class: int = PER_CLASS, seed: int = 0, guidance: float = 0.0) -> str:
    """`model.py`: the sources of `utils` without their imports of each other, and what the scripts call."""
    parts = [template("course_head.txt"), "\n\n", inspect.getsource(UsageError)]
    for name in SOURCES:
        source = (Path(utils.__file__).parent / f"{name}.py").read_text(encoding="utf-8")
        parts.append(f"\n# ---- {name}\n\n{without_relative_imports(source)}")
    config = pprint.pformat(model.config.to_dict(), sort_dicts=False)
    parts.append(template("course_tail.txt").format(config=config, per_class=per_class, seed=seed, guidance=guidance))
    return "".join(parts)


def without_relative_imports(source: str) -> str:
    """Takes `from .layers import ...` out; where a whole module is imported, its name comes to mean the one file."""
    lines = source.splitlines(keepends=True)
    for node in reversed(ast.parse(source).body):  # from the end, so that line numbers stay true
        if isinstance(node, ast.ImportFrom) and node.level:
            modules = [alias.name for alias in node.names if not node.module and alias.name in SOURCES]
            lines[node.lineno - 1 : node.end_lineno] = [f"{name} = sys.modules[__name__]\n" for name in modules]
    return "".join(lines)
