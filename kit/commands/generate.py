import csv

import torch
from tqdm.auto import tqdm

from utils import UsageError, composed, listing
from utils.device import pick_device
from utils.figures import gallery, save_png
from utils.training import check_seed

from .. import distributed, page
from ..cuda_graphs import generate_by_graphs
from ..platforms import load_model
from ..samples import new_folder, save_samples


def run(
    checkpoint: str,
    out: str,
    device: str = "auto",
    per_class: int = 8,
    classes: str | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    guidance: float = 0.0,
    cuda_graphs: bool = False,
    for_page: bool = False,
) -> None:
    """draw pictures of every class

    Args:
        checkpoint: shipped weights, a run's name, or a .safetensors file.
        out: a folder that is new or empty; the pictures and gallery.png land in it.
        device: `auto`, `cpu`, `cuda` or `mps`.
        per_class: pictures of each class.
        classes: their names, or numbers that are no class's name, joined by commas, in double quotes where a name
            holds one; all if not given.
        seed: fixes the random choices.
        temperature: 1 samples from the model; lower values vary less, 0 takes the most likely component's means.
        guidance: above 0, prefer what speaks for the class and against the others, the more so the larger: 3 gives
            pictures that are far easier to recognise and vary less. It takes a pass for every class.
        cuda_graphs: draw by CUDA graphs, on one NVIDIA GPU. No GPU has run this yet: that it draws the same, and
            faster, is still to be seen; `make gpu` tells.
        for_page: draw what the page of `python -m kit page` draws at these settings, from its random numbers.
    """
    check_seed(seed)
    if for_page and (guidance or cuda_graphs or device not in ("auto", "cpu")):
        raise UsageError("--for-page draws as the page does: leave out --guidance, --cuda-graphs and GPUs")
    model = load_model(checkpoint, "cpu" if for_page else pick_device(device))
    if cuda_graphs and (next(model.parameters()).device.type != "cuda" or distributed.size() > 1):
        raise UsageError("--cuda-graphs is for one NVIDIA GPU, in one process")
    if cuda_graphs and guidance:
        raise UsageError("--cuda-graphs draws without --guidance: leave one of them out")
    if per_class < 1:
        raise UsageError(f"--per-class must be at least 1, not {per_class}")
    folder = new_folder(out)
    labels = torch.tensor(read_classes(classes, model.class_names)).repeat_interleave(per_class)
    others = distributed.rank() > 0
    with tqdm(total=model.config.image_size, desc="rows", leave=False, disable=True if others else None) as bar:
        how: dict = {"temperature": temperature, "on_row": lambda *_: bar.update()}
        if cuda_graphs:
            images = generate_by_graphs(model, labels, generator=torch.Generator().manual_seed(seed), **how)
        elif for_page:
            images = page.draw(model, labels, seed, **how)
        else:
            images = distributed.generate(model, labels, seed, guidance=guidance, **how)
    if not others:
        save_samples(images, labels, folder)
        save_png(gallery(images, labels, model.class_names), folder / "gallery.png")
        print(f"{len(images)} pictures and gallery.png in {folder}")


def read_classes(text: str | None, class_names: tuple[str, ...]) -> list[int]:
    """The labels of classes named, or numbered, in `text`, all if None. Raises UsageError for one that is not known."""
    if text is None:
        return list(range(len(class_names)))
    known = {str(label): label for label in range(len(class_names))}
    known |= {name: label for label, name in enumerate(class_names)}  # a class called 10 is meant by its name
    text = composed(text)  # as the classes' names are
    parts = [text] if text in known else next(csv.reader([text]), [])
    names = [part if part in known else part.strip() for part in parts]
    for name in names or [text]:
        if name not in known:
            raise UsageError(f"unknown class {name!r}: choose from {listing(class_names)}")
    return [known[name] for name in names]
