import contextlib
import itertools
import shutil
import time
from pathlib import Path

from utils import UsageError
from utils.checkpoints import load_model
from utils.data import number_of_classes
from utils.device import pick_device

from ..classifier import Classifier
from ..console import shown, typed
from ..platforms import DEMO, find_root, find_weights, load_pictures, runs_folder
from ..runs import Stopped, run_configs, sole_writer
from ..samples import draw_gallery
from ..scores import report
from ..train import train


def run(**given) -> None:
    """train on the embedded cartoons, classify, draw: a few minutes on a CPU"""
    started = time.perf_counter()
    dataset = given.get("dataset", "cartoons")
    root = find_root(dataset, given.get("data_root"))
    model_config, config = run_configs("cartoons", number_of_classes(dataset, root), **{"wandb": "off"} | given)
    test = load_pictures(dataset, "test", root, model_config.image_size)  # before the work starts
    device = pick_device(config.device)
    if config.init:
        find_weights(config.init)
    folder = runs_folder() / DEMO
    aside = folder.with_name(f".{DEMO}.tmp")  # the demo before is there until this one has learned
    with contextlib.ExitStack() as at_the_end:
        at_the_end.enter_context(sole_writer(folder))
        at_the_end.callback(shutil.rmtree, aside, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)  # of a demo that was killed
        print(f"training on {dataset} for {config.epochs} epochs", flush=True)
        try:
            train(model_config, config, aside / DEMO, on_epoch=print_epoch)
        except Stopped as stopped:  # a demo cannot go on
            raise UsageError(f"the demo was stopped: {stopped}; nothing of it is kept") from None
        if folder.exists():
            folder.rename(aside / "before")
        (aside / DEMO).rename(folder)
    model = load_model(folder / "last.safetensors", device)

    print("\nclassifying the test split, by the class under which a picture is likeliest", flush=True)
    fastest = Classifier(DEMO, precision="auto")
    (nats,) = fastest.log_likelihoods([model], test.tensors()[0])
    report(nats, nats, test, model, "test split", "this run's averaged weights")

    print("\ndrawing a gallery", flush=True)
    draw_gallery(model, folder / "gallery.png", config.seed)
    out = next(name for i in itertools.count(1) if not Path(name := f"samples{i if i > 1 else ''}").exists())
    compared = ["--checkpoint", "cartoons" if dataset == "cartoons" else DEMO, "--dataset", dataset]
    compared += ["--data-root", config.data_root] if config.data_root else []
    print(
        f"\ndone in {(time.perf_counter() - started) / 60:.1f} minutes. Look at\n"
        f"    {shown(folder / 'gallery.png')}    pictures that the model has drawn\n"
        f"    {shown(folder / 'metrics.jsonl')}  a line for each epoch\n"
        f"    {shown(folder / 'best.safetensors')}  the weights\n"
        f"type next{'; the second asks the shipped weights, trained longer' if dataset == 'cartoons' else ''}\n"
        f"    {typed('generate', '--checkpoint', DEMO, '--per-class', 4, '--out', out)}\n"
        f"    {typed('evaluate', *compared, '--split', 'test')}"
    )


def print_epoch(line: dict) -> None:
    validation = ""
    if "validation_bpd" in line:
        validation = f"   validation {line['validation_bpd']:.3f} bits/dim, accuracy {line['validation_accuracy']:.1%}"
    print(
        f"epoch {line['epoch']:3d}   train {line['train_bpd']:.3f}{validation or ' bits/dim'}"
        f"   {line['images_per_second']:.0f} images/s"
        + (f"   {line['skipped_steps']} steps skipped: float16 overflowed" if line["skipped_steps"] else ""),
        flush=True,
    )
