import os
import shutil
import sys
import time
from pathlib import Path

from utils.checkpoints import load_model
from utils.data import number_of_classes
from utils.device import pick_device

from ..classifier import Classifier
from ..platforms import KIT, find_root, load_pictures, runs_folder
from ..runs import run_configs
from ..scores import report
from ..train import draw_gallery, train

DEMO_RUN = "demo"


def run(**given) -> None:
    """train on the embedded cartoons, classify, draw: a few minutes on a CPU"""
    started = time.perf_counter()
    dataset = given.get("dataset", "cartoons")
    root = find_root(dataset, given.get("data_root"))
    model_config, config = run_configs("cartoons", number_of_classes(dataset, root), **{"wandb": "off"} | given)
    folder = runs_folder() / DEMO_RUN
    shutil.rmtree(folder, ignore_errors=True)

    print(f"training on {dataset} for {config.epochs} epochs", flush=True)
    train(model_config, config, DEMO_RUN, on_epoch=print_epoch)
    device = pick_device(config.device)
    model = load_model(folder / "last.safetensors", device)

    print("\nclassifying the test split, by the class under which a picture is likeliest", flush=True)
    test = load_pictures(dataset, "test", root, model_config.image_size, model.class_names)
    fastest = Classifier(DEMO_RUN, precision="auto")
    (nats,) = fastest.log_likelihoods([model], test.tensors()[0])
    report(nats, nats, test, model, "test split", "this run's averaged weights")

    print("\ndrawing a gallery", flush=True)
    draw_gallery(model, folder / "gallery.png", config.seed)
    python = os.path.relpath(sys.executable) if KIT in Path(sys.executable).parents else "python"
    print(
        f"\ndone in {(time.perf_counter() - started) / 60:.1f} minutes. Look at\n"
        f"    {os.path.relpath(folder / 'gallery.png')}    pictures that the model has drawn\n"
        f"    {os.path.relpath(folder / 'metrics.jsonl')}  a line for each epoch\n"
        f"    {os.path.relpath(folder / 'best.safetensors')}  the weights\n"
        f"type next\n"
        f"    {python} -m kit generate --checkpoint {DEMO_RUN} --per-class 4 --out samples\n"
        f"    {python} -m kit evaluate --checkpoint cartoons --split test    the shipped weights, trained longer"
    )


def print_epoch(line: dict) -> None:
    print(
        f"epoch {line['epoch']:3d}   train {line['train_bpd']:.3f}   validation {line['validation_bpd']:.3f} "
        f"bits/dim, accuracy {line['validation_accuracy']:.1%}   {line['images_per_second']:.0f} images/s"
        + (f"   {line['skipped_steps']} steps skipped: float16 overflowed" if line["skipped_steps"] else ""),
        flush=True,
    )
