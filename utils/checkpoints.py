"""Saving and loading of weights: atomic, and never by executing what is in a file.

Weights are safetensors; the model's config and its classes' names are JSON in the file's metadata.
"""

import contextlib
import copy
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from . import UsageError, at_home, class_order, composed
from .model import ConditionalPixelCNN, ModelConfig

FOLDER = Path(__file__).resolve().parents[1] / "checkpoints"
RUNS = FOLDER / "runs"
# the shipped weights, and the data set that each was trained on
SHIPPED = {"cartoons": "cartoons", "cartoons-hard": "cartoons-hard"}
SHIPPED |= dict.fromkeys(("cpen455", "cpen455-hybrid", "cpen455-64x64"), "cpen455")
METADATA_KEY = "conditional-pixelcnn"


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """`write(temporary)`, then fsync and rename: at any moment `path` is the old file or the new one, whole.

    Raises UsageError when the disk is full or not writable; the old file is as it was, nothing is left beside it.
    """
    path = Path(path)
    if not path.name:
        raise UsageError(f"cannot save {str(path)!r}: a file's name is missing")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch.save turns a full disk into RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        if "inline_container" in reason or "PytorchStreamWriter" in reason:
            reason = "the disk is full or not writable"
        raise UsageError(f"cannot save {path}: {reason}; what was there before is unchanged") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def save_model(model: ConditionalPixelCNN, path: str | Path, dtype: torch.dtype | None = None) -> None:
    """Writes weights and config to `path`; `dtype` (torch.float16, say) makes the file smaller."""
    tensors = {name: t.detach().cpu().to(dtype or t.dtype).contiguous() for name, t in model.state_dict().items()}
    about = {"config": model.config.to_dict(), "class_names": list(model.class_names)}
    metadata = {METADATA_KEY: json.dumps(about)}  # one key: several would be written in random order
    content = save(tensors, metadata)  # not `save_file`, whose files nobody else may read, whatever the umask says
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def load_model(name_or_path: str | Path, device: str | torch.device = "cpu") -> ConditionalPixelCNN:
    """The model saved under a shipped name, in a run's folder or in a file; float32, in eval mode.

    Raises UsageError if there is no such file, it is damaged, holds a pickle, or belongs to another architecture:
    shapes are compared before any memory is taken for the model.
    """
    path = find_weights(name_or_path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            if METADATA_KEY not in metadata:
                raise UsageError(f"{path} holds no weights of this kit (no {METADATA_KEY!r} in its metadata)")
            try:
                about = json.loads(metadata[METADATA_KEY])
                config = ModelConfig.from_dict(about["config"])
                class_names = tuple(composed(str(name)) for name in about["class_names"])
                if len(class_names) != config.num_classes:
                    raise UsageError(f"{len(class_names)} names for {config.num_classes} classes")
            except (KeyError, TypeError, ValueError) as error:
                raise UsageError(f"{path}: the model's config in it is not valid: {error}") from None
            with torch.device("meta"):
                model = ConditionalPixelCNN(config)
            if shapes != {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}:
                raise UsageError(f"{path}: the weights in it do not fit the architecture that it names")
            model.load_state_dict({name: file.get_tensor(name).float() for name in shapes}, assign=True)
            model.class_names = class_names
    except SafetensorError as error:
        with open(path, "rb") as raw:
            pickled = raw.read(2) in (b"PK", b"\x80\x02", b"\x80\x04")
        hint = "; it looks like a pickle, which could run code and is never opened" if pickled else ""
        raise UsageError(f"{path} is not a readable safetensors file ({error}){hint}") from None
    return model.to(device).eval()


def with_classes(model: ConditionalPixelCNN, class_names: Sequence[str], who: str, whose: str) -> ConditionalPixelCNN:
    """A model, called `who`, whose labels count along `class_names`, the classes of `whose`. Raises UsageError, which
    shows both lists, where these are not its own in any order."""
    order = class_order(class_names, model.class_names, whose, who)
    if tuple(class_names) == model.class_names:
        return model
    model = copy.deepcopy(model)
    for rows in model.fusion.parameters():
        rows.data = rows.data[order]  # (C, size)
    model.class_names = tuple(class_names)
    return model


def given_runs() -> Path | None:
    """Where $PIXELCNN_RUNS says that runs are kept, absolute; None if it is not set, or empty."""
    given = os.environ.get("PIXELCNN_RUNS")
    return Path(os.path.abspath(at_home(given))) if given else None


def shipped(name: str) -> Path:
    """The file of shipped weights; `cartoons-hard` are those of a run that is shipped with its config and metrics."""
    run = FOLDER / name
    return run / "best.safetensors" if run.is_dir() else FOLDER / f"{name}.safetensors"


def find_weights(name_or_path: str | Path, runs: Path | None = None) -> Path:
    """A shipped name, a run's name or folder (its best weights, its last ones where it has no best) or a file -> the
    file; UsageError if there is none. What is both a run's name and a file here is the run, unless it is written as a
    path: `./NAME`, or with its suffix. Runs are in `runs`, in $PIXELCNN_RUNS or in checkpoints/runs."""
    runs = runs or given_runs() or RUNS
    name = str(name_or_path)
    given = shipped(name) if name in SHIPPED else Path(at_home(name))
    places = [runs / given, given]
    if name.startswith(".") or given.suffix == ".safetensors":
        places.reverse()
    for candidate in filter(Path.exists, places):
        if candidate.is_dir():
            best, last = candidate / "best.safetensors", candidate / "last.safetensors"
            lost = not best.is_file() or not best.stat().st_size  # or the run has not been validated yet
            candidate = last if lost and last.is_file() else best
        if not candidate.is_file():
            raise UsageError(f"no weights found for {name!r}: there is no {candidate}")
        if not os.access(candidate, os.R_OK):
            raise UsageError(f"{candidate} cannot be read: its permissions do not let you")
        return candidate
    choices = f"a shipped name ({', '.join(SHIPPED)}), a run in {runs}, or a .safetensors file"
    raise UsageError(f"no weights found for {name!r}: give {choices}")
