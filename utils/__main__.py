"""The command line: `python -m utils COMMAND`, a thin shell over the package."""

import argparse
import math
import os
import shutil
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import torch

from . import UsageError, checkpoints, classify, course, data, distributed, fid, mixture, submission, sweep, training
from .fusion import parse_sites
from .model import ConditionalPixelCNN, ModelConfig
from .runs import Stopped
from .runtime import KIT, doctor, pick_device, pick_precision, runs_folder, runs_will_vanish

DEMO_RUN = "demo"
# on --resume these may differ from what the run began with: they do not change what is computed
FREE_ON_RESUME = {"epochs", "device", "compile", "checkpoint_every", "sample_every", "fid_every", "wandb"}
FREE_ON_RESUME |= {"data_root", "time_limit"}


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UsageError(f"{message} (see {self.prog} --help)")


def build_parser() -> Parser:
    parser = Parser(prog="python -m utils", description="A class-conditional PixelCNN++: train, draw, classify.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="train on the embedded cartoons, classify, draw: a few minutes on a CPU")
    add_config_flags(demo)
    demo.set_defaults(run_command=run_demo)

    train = commands.add_parser("train", help="train a model")
    train.add_argument("--preset", help=f"default cartoons; one of {', '.join(training.PRESETS)}")
    agents = [os.environ[name] for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID") if name in os.environ]
    agents_run = "/".join(agents) if len(agents) == 2 else None  # the agent of `wandb sweep` names no run on the line
    train.add_argument(
        "--run",
        required=agents_run is None,
        default=agents_run,
        metavar="NAME",
        help="the run's folder is checkpoints/runs/NAME",
    )
    train.add_argument("--resume", action="store_true", help="go on where the run was left")
    add_config_flags(train)
    train.set_defaults(run_command=run_train)

    evaluate = commands.add_parser("evaluate", help="bits per dimension and zero-shot accuracy on a split")
    add_checkpoint_flags(evaluate)
    evaluate.add_argument("--dataset", default="cartoons", help=f"one of {', '.join(data.DATASETS)}")
    evaluate.add_argument("--data-root", metavar="DIR", help="where the data set lies")
    evaluate.add_argument("--split", default="validation", help=f"one of {', '.join(data.SPLITS)}")
    add_classify_flags(evaluate)
    add_calibrate_flag(evaluate)
    evaluate.set_defaults(run_command=run_evaluate)

    generate = commands.add_parser("generate", help="draw pictures of every class")
    add_checkpoint_flags(generate)
    generate.add_argument("--per-class", type=int, default=8, metavar="N")
    generate.add_argument("--classes", help="names or numbers joined by commas; default all")
    generate.add_argument("--out", required=True, metavar="DIR", help="a folder that is new or empty")
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--temperature", type=float, default=1.0)
    generate.set_defaults(run_command=run_generate)

    classify_ = commands.add_parser("classify", help="the class of picture files")
    add_checkpoint_flags(classify_)
    add_classify_flags(classify_)
    classify_.add_argument("files", nargs="+", metavar="FILE")
    classify_.set_defaults(run_command=run_classify)

    data_ = commands.add_parser("data", help="download a data set")
    data_.add_argument("dataset", choices=("cpen455", "cifar10"))
    data_.add_argument("--root", metavar="DIR", help="the data set's folder; default data/cpen455 or data/cifar10")
    data_.add_argument("--url", help="where the archive is; default where its makers publish it")
    data_.set_defaults(run_command=run_data)

    fid_ = commands.add_parser("fid", help="how far samples are from real pictures (Fréchet Inception distance)")
    fid_.add_argument("--generated", required=True, metavar="DIR", help="a folder that generate has written")
    fid_.add_argument("--reference", required=True, metavar="DIR", help="a folder of real pictures")
    fid_.add_argument("--dims", type=int, default=2048, help="features: 2048 (papers), 192 (the course), 768 or 64")
    fid_.add_argument("--course", action="store_true", help="the course's 100 samples at 192 dims, which are too few")
    fid_.add_argument("--resize-reference", action="store_true", help="bring the reference to the samples' size")
    fid_.add_argument("--download", action="store_true", help="fetch the Inception weights if need be, 95 MB")
    fid_.add_argument("--bootstrap", type=int, default=20, metavar="N", help="resamplings for the error bar; 0: none")
    fid_.add_argument("--device", default="auto")
    fid_.set_defaults(run_command=run_fid)

    submit = commands.add_parser("submit", help="the leaderboard's file: labels of the course's test split")
    add_checkpoint_flags(submit)
    submit.add_argument("--out", required=True, metavar="FILE", help="a .csv file")
    submit.add_argument("--format", default="2024", help=f"one of {', '.join(submission.FORMATS)}")
    submit.add_argument("--fid", type=float, metavar="NUMBER", help="the last row of the 2023 format")
    submit.add_argument("--keep-log-likelihoods", action="store_true", help="write log p(x | y) beside it, as .npy")
    submit.add_argument("--data-root", metavar="DIR", help="where the course's data lies")
    add_classify_flags(submit)
    add_calibrate_flag(submit)
    submit.set_defaults(run_command=run_submit)

    course_ = commands.add_parser("course-export", help="a folder for the course's own evaluation scripts")
    course_.add_argument("out", metavar="DIR", help="a folder that is new or empty")
    add_checkpoint_flags(course_)
    course_.add_argument("--samples", type=int, default=course.PER_CLASS, metavar="N", help="for each class")
    course_.add_argument("--seed", type=int, default=0)
    course_.set_defaults(run_command=run_course_export)

    sweep_ = commands.add_parser("sweep", help="train a grid of settings, compare them in a table and a figure")
    sweep_.add_argument("file", metavar="FILE", help="in W&B's format, as those in sweeps/")
    sweep_.add_argument("--limit", type=int, metavar="N", help="at most so many runs now; the same command goes on")
    sweep_.set_defaults(run_command=run_sweep)

    doctor_ = commands.add_parser("doctor", help="what is installed, found and missing here")
    doctor_.set_defaults(run_command=run_doctor)
    return parser


def add_config_flags(parser) -> None:
    """A flag for every field of the two configs; only those that are typed appear in the result."""
    for field in fields(ModelConfig) + fields(training.TrainConfig):
        flag, kind = "--" + field.name.replace("_", "-"), field.type
        if field.name == "num_classes":  # the data set says it
            continue
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)
        else:
            parser.add_argument(flag, type=kind if kind in (int, float) else str, default=argparse.SUPPRESS)


def add_checkpoint_flags(parser) -> None:
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="NAME_OR_PATH",
        help=f"{', '.join(checkpoints.SHIPPED)}, a run's name, or a .safetensors file",
    )
    parser.add_argument("--device", default="auto")


def add_classify_flags(parser) -> None:
    parser.add_argument("--prior", metavar="P0,P1,...", help="a weight for each class; default all the same")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precision", default="float32", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--mirror", action="store_true", help="average with the mirrored picture's log-likelihoods")
    parser.add_argument(
        "--ensemble",
        action="append",
        default=[],
        metavar="NAME_OR_PATH",
        help="average with the log-likelihoods of these weights too; may be given several times",
    )


def add_calibrate_flag(parser) -> None:
    what = "fit temperature and class biases on the last N training pictures"
    parser.add_argument("--calibrate", type=int, default=0, metavar="N", help=what)


def given_config_values(args) -> dict:
    names = {field.name for field in fields(ModelConfig) + fields(training.TrainConfig)}
    return {name: value for name, value in vars(args).items() if name in names}


def print_epoch(line: dict) -> None:
    print(
        f"epoch {line['epoch']:3d}   train {line['train_bpd']:.3f}   validation {line['validation_bpd']:.3f} "
        f"bits/dim, accuracy {line['validation_accuracy']:.1%}   {line['images_per_second']:.0f} images/s",
        flush=True,
    )


def run_train(args) -> None:
    parts = args.run.split("/")
    escapes = any(part in ("", ".", "..") or part != os.path.basename(part) for part in parts)
    if escapes or len(parts) > 2 or parts[0] == DEMO_RUN:
        raise UsageError(f"--run takes a NAME or SWEEP/NAME, other than {DEMO_RUN!r}, not {args.run!r}")
    given = given_config_values(args)
    preset = args.preset or "cartoons"
    if args.resume:
        model_config, config = training.read_config(args.run)
        stored = model_config.to_dict() | vars(config)
        wanted = given if args.preset is None else training.check_preset(preset) | given
        if "fusion" in wanted:
            wanted["fusion"] = list(parse_sites(wanted["fusion"]))
        for name, value in wanted.items():
            if name not in FREE_ON_RESUME and stored[name] != value:
                raise UsageError(
                    f"run {args.run!r} began with {name} = {stored[name]!r}, it cannot resume with {value!r}"
                )
        config = replace(config, **{k: v for k, v in given.items() if k in FREE_ON_RESUME})
    else:
        num_classes = data.number_of_classes(given.get("dataset", "cartoons"), given.get("data_root"))
        model_config, config = training.configs_for(preset, num_classes, **given)
    if runs_will_vanish():
        say(f"warning: runs are kept in {runs_folder()}, which goes with this machine; see python -m utils doctor")
    folder = training.train(model_config, config, args.run, args.resume, print_epoch)
    say(f"done: {folder}\nnext: python -m utils evaluate --checkpoint {args.run} --dataset {config.dataset}")


def run_demo(args) -> None:
    started = time.perf_counter()
    values = given_config_values(args)
    num_classes = data.number_of_classes(values.get("dataset", "cartoons"), values.get("data_root"))
    model_config, config = training.configs_for("cartoons", num_classes, **{"wandb": "off"} | values)
    folder = runs_folder() / DEMO_RUN
    shutil.rmtree(folder, ignore_errors=True)

    print(f"training on {config.dataset} for {config.epochs} epochs", flush=True)
    training.train(model_config, config, DEMO_RUN, on_epoch=print_epoch)
    model = checkpoints.load_model(folder / "last.safetensors", pick_device(config.device))

    print("\nclassifying the test split, by the class under which a picture is likeliest", flush=True)
    test = data.load_split(config.dataset, "test", config.data_root, model_config.image_size)
    x, _ = test.tensors()
    (nats,) = log_likelihoods([model], [x], precision=pick_precision(pick_device(config.device)))
    report(nats, nats, test, model, "test split", "this run's averaged weights")

    print("\ndrawing a gallery", flush=True)
    training.draw_gallery(model, folder / "gallery.png", config.seed)
    python = relative(Path(sys.executable)) if KIT in Path(sys.executable).parents else "python"
    print(
        f"\ndone in {(time.perf_counter() - started) / 60:.1f} minutes. Look at\n"
        f"    {relative(folder / 'gallery.png')}    pictures that the model has drawn\n"
        f"    {relative(folder / 'metrics.jsonl')}  a line for each epoch\n"
        f"    {relative(folder / 'best.safetensors')}  the weights\n"
        f"type next\n"
        f"    {python} -m utils generate --checkpoint {DEMO_RUN} --per-class 4 --out samples\n"
        f"    {python} -m utils evaluate --checkpoint cartoons --split test    the shipped weights, trained longer"
    )


def say(text: str) -> None:
    """Prints once, however many processes there are."""
    if distributed.rank() == 0:
        print(text, flush=True)


def relative(path: Path) -> str:
    """The path as seen from here, which is what people can type."""
    return os.path.relpath(path)


def log_likelihoods(
    models: list[ConditionalPixelCNN],
    views: list[torch.Tensor],
    batch_size: int = 32,
    precision: torch.dtype = torch.float32,
) -> torch.Tensor:
    """`classify.class_log_likelihoods` by every model of every view of the same N pictures, with one progress bar:
    (M V, N, C) in float64 on the CPU, the first model's first."""
    from tqdm.auto import tqdm

    total = len(models) * sum(map(len, views))
    with tqdm(total=total, leave=False, disable=True if distributed.rank() else None) as bar:
        every = [
            classify.class_log_likelihoods(model, view, batch_size, precision, bar.update)
            for model in models
            for view in views
        ]
    return torch.stack(every).double().cpu()


def likelihoods_as_asked(args, models: list[ConditionalPixelCNN], x: torch.Tensor) -> torch.Tensor:
    """`log_likelihoods` of the pictures and, with --mirror, of their mirror images; their mean names a class."""
    precision = pick_precision(next(models[0].parameters()).device, args.precision)
    return log_likelihoods(models, [x, x.flip(3)] if args.mirror else [x], args.batch_size, precision)


def judge(args, models: list[ConditionalPixelCNN], nats: torch.Tensor, dataset: str) -> tuple[torch.Tensor, str]:
    """What `likelihoods_as_asked` came to -> log p(y | x) (N, C) by --calibrate and --prior, and in words how."""
    precision = pick_precision(next(models[0].parameters()).device, args.precision)
    how = f"{', '.join([args.checkpoint, *args.ensemble])}, computed in {str(precision).removeprefix('torch.')}"
    if args.mirror:
        how += ", averaged with the mirrored pictures"
    logits = nats.mean(dim=0)
    if args.calibrate:
        train = data.load_split(dataset, "train", args.data_root, models[0].config.image_size)
        x, y = train.last(args.calibrate).tensors()
        temperature, bias = classify.fit_calibration(likelihoods_as_asked(args, models, x).mean(dim=0), y)
        logits = logits / temperature + bias
        biases = ", ".join(f"{b:+.2f}" for b in bias.tolist())
        how += f", temperature {temperature:.0f}, class biases {biases}: fitted on the last {len(y)} training pictures"
    return classify.log_posterior(logits, read_prior(args.prior, models[0].config.num_classes)), how


def report(
    nats: torch.Tensor,
    logits: torch.Tensor,
    dataset: data.ImageDataset,
    model: ConditionalPixelCNN,
    split: str,
    how: str,
) -> None:
    """Prints bits per dimension by `nats` and, by `logits`, accuracy, F1, recall and confusion. Both: (N, C)."""
    image_size, y = model.config.image_size, dataset.labels
    known = y != data.UNKNOWN
    say(f"{split}, {len(y)} pictures, {how}")
    if not known.any():
        marginal = torch.logsumexp(nats - math.log(nats.shape[1]), dim=1)
        bpd = mixture.bits_per_dim(-marginal.mean(), image_size)
        say(f"bits per dimension  {bpd:.4f}  (over all classes: no label is known, so there is no accuracy)")
        return
    bpd = mixture.bits_per_dim(-nats[known].gather(1, y[known][:, None]).mean(), image_size)
    scores = classify.score(logits.argmax(dim=1), y, model.config.num_classes)
    error = classify.calibration_error(torch.softmax(logits[known], dim=1), y[known])
    say(f"bits per dimension  {bpd:.4f}")
    low, high = classify.wilson_interval(scores.accuracy, scores.count)
    say(f"accuracy            {scores.accuracy:.2%}  of {scores.count}, 95 % interval {low:.1%} to {high:.1%}")
    say(f"macro F1            {scores.macro_f1:.2%}")
    say(f"calibration error   {error:.2%}")
    width = max(map(len, dataset.classes)) + 2
    say("recall and confusion (rows: the truth, columns: what it was taken for)")
    say(" " * (width + 8) + "".join(f"{name:>{width}}" for name in dataset.classes))
    for name, recall, row in zip(dataset.classes, scores.recall, scores.confusion.tolist(), strict=True):
        say(f"{name:<{width}}{recall:>8.1%}" + "".join(f"{n:>{width}d}" for n in row))


def read_prior(text: str | None, num_classes: int) -> torch.Tensor | None:
    if text is None:
        return None
    try:
        prior = torch.tensor([float(part) for part in text.split(",")])
    except ValueError:
        raise UsageError(f"--prior must be {num_classes} numbers joined by commas, not {text!r}") from None
    classify.log_posterior(torch.zeros(1, num_classes), prior)  # says what is wrong with it before the work starts
    return prior


def load_for(args) -> ConditionalPixelCNN:
    return checkpoints.load_model(args.checkpoint, pick_device(args.device))


def load_classifiers(args) -> list[ConditionalPixelCNN]:
    """--checkpoint and what is averaged with it, when all flags that shape a classification are known to be good."""
    if args.batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {args.batch_size}")
    if getattr(args, "calibrate", 0) < 0:
        raise UsageError(f"--calibrate must not be negative, not {args.calibrate}")
    first = load_for(args)
    others = [checkpoints.load_model(name, pick_device(args.device)) for name in args.ensemble]
    for name, other in zip(args.ensemble, others, strict=True):
        if other.class_names != first.class_names or other.config.image_size != first.config.image_size:
            raise UsageError(f"--ensemble {name} knows other classes or sizes of pictures than {args.checkpoint}")
    read_prior(args.prior, first.config.num_classes)
    return [first, *others]


def run_evaluate(args) -> None:
    models = load_classifiers(args)
    model = models[0]
    dataset = data.load_split(args.dataset, args.split, args.data_root, model.config.image_size)
    if len(dataset.classes) != model.config.num_classes:
        raise UsageError(
            f"{args.dataset} has {len(dataset.classes)} classes, {args.checkpoint} knows {model.config.num_classes}"
        )
    nats = likelihoods_as_asked(args, models, dataset.tensors()[0])
    log_p, how = judge(args, models, nats, args.dataset)
    report(nats[0], log_p, dataset, model, f"{args.dataset} {args.split} split", how)


def run_classify(args) -> None:
    models = load_classifiers(args)
    model = models[0]
    size = model.config.image_size
    x = data.to_float(data.read_images([Path(file) for file in args.files], size, expected_size=size))
    prior = read_prior(args.prior, model.config.num_classes)
    log_p = classify.log_posterior(likelihoods_as_asked(args, models, x).mean(dim=0), prior)
    for file, row in zip(args.files, log_p.exp(), strict=True):
        chances = "  ".join(f"{name} {p:.4f}" for name, p in zip(model.class_names, row.tolist(), strict=True))
        say(f"{file}: {model.class_names[int(row.argmax())]}   ({chances})")


def run_generate(args) -> None:
    from tqdm.auto import tqdm

    from .figures import gallery, save_png, save_samples
    from .sampling import generate_shared

    model = load_for(args)
    if args.per_class < 1:
        raise UsageError(f"--per-class must be at least 1, not {args.per_class}")
    out = checkpoints.new_folder(args.out)
    chosen = read_classes(args.classes, model.class_names)
    labels = torch.tensor(chosen).repeat_interleave(args.per_class)
    generator = torch.Generator().manual_seed(args.seed)
    others = distributed.rank() > 0
    with tqdm(total=model.config.image_size, desc="rows", leave=False, disable=True if others else None) as bar:
        images = generate_shared(
            model,
            labels,
            generator=generator,
            temperature=args.temperature,
            on_row=lambda _i, _images: bar.update(),
        )
    if others:
        return
    save_samples(images, labels, out)
    save_png(gallery(images, labels, model.class_names), out / "gallery.png")
    print(f"{len(images)} pictures and gallery.png in {out}")


def run_data(args) -> None:
    from .download import download_cifar10, download_cpen455

    download = download_cpen455 if args.dataset == "cpen455" else download_cifar10
    download(args.root, args.url)


def run_fid(args) -> None:
    from tqdm.auto import tqdm

    with tqdm(desc="pictures", leave=False, disable=None) as bar:
        score = fid.fid(
            args.generated,
            args.reference,
            args.dims,
            course=args.course,
            resize_reference=args.resize_reference,
            download=args.download,
            bootstrap=args.bootstrap,
            device=pick_device(args.device),
            progress=bar.update,
        )
    print(score)


def run_submit(args) -> None:
    models = load_classifiers(args)
    model = models[0]
    test = data.load_split("cpen455", "test", args.data_root, model.config.image_size)
    if model.config.num_classes != len(test.classes):
        raise UsageError(f"cpen455 has {len(test.classes)} classes, {args.checkpoint} knows {model.config.num_classes}")
    submission.rows([], [], args.format, args.fid)  # says what is wrong with them before the work starts
    nats = likelihoods_as_asked(args, models, test.tensors()[0])
    log_p, how = judge(args, models, nats, "cpen455")
    if distributed.rank():
        return
    labels = log_p.argmax(dim=1).tolist()
    if args.keep_log_likelihoods:
        kept = submission.write_log_likelihoods(args.out, nats.mean(dim=0).float())  # as they were computed
        print(f"log-likelihoods in {kept}, a row a picture, in nats")
    submission.write(args.out, test.names, labels, args.format, args.fid)
    counts = ", ".join(f"{labels.count(label)} {name}" for label, name in enumerate(test.classes))
    print(f"{args.out}: cpen455 test split, {len(labels)} pictures, {how}, format {args.format}; {counts}")


def run_course_export(args) -> None:
    from tqdm.auto import tqdm

    model = load_for(args)
    with tqdm(total=model.config.image_size, desc="rows", leave=False, disable=None) as bar:
        course.export(
            model, args.out, args.checkpoint, args.samples, args.seed, on_row=lambda _i, _images: bar.update()
        )
    print(f"{args.out}: {args.checkpoint} for the course's scripts; {Path(args.out) / 'README.txt'} says what to paste")


def run_sweep(args) -> None:
    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit must be at least 1, not {args.limit}")

    parser = build_parser()

    def settings_of(flags: list[str]) -> dict:
        point = parser.parse_args(["train", *map(spelled_our_way, flags)])
        given = given_config_values(point)
        num_classes = data.number_of_classes(given.get("dataset", "cartoons"), given.get("data_root"))
        model_config, config = training.configs_for(point.preset or "cartoons", num_classes, **given)
        settings = model_config.to_dict() | vars(config)
        return {name: value for name, value in settings.items() if name not in FREE_ON_RESUME - {"epochs"}}

    sys.exit(sweep.run(args.file, settings_of, args.limit))


def run_doctor(args) -> None:
    if not doctor():
        raise UsageError("something is to be mended; the lines marked MEND say how")


def read_classes(text: str | None, class_names: tuple[str, ...]) -> list[int]:
    if text is None:
        return list(range(len(class_names)))
    known = {name: label for label, name in enumerate(class_names)}
    known |= {str(label): label for label in range(len(class_names))}
    for name in text.split(","):
        if name not in known:
            raise UsageError(f"unknown class {name!r}: choose from {', '.join(class_names)}")
    return [known[name] for name in text.split(",")]


def complain(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # the first of the processes speaks for all
        print(text, file=sys.stderr)


def spelled_our_way(argument: str) -> str:
    """W&B's agent writes --nr_filters=40 and --flip=True."""
    flag, equals, value = argument.partition("=")
    if not flag.startswith("--"):
        return argument
    flag = flag.replace("_", "-")
    if value.lower() in ("true", "false"):
        return flag if value.lower() == "true" else flag.replace("--", "--no-", 1)
    return flag + equals + value


def main(argv: list[str] | None = None) -> int:
    try:
        given = sys.argv[1:] if argv is None else argv
        args = build_parser().parse_args([spelled_our_way(argument) for argument in given])
        with distributed.joined():
            args.run_command(args)
    except UsageError as error:
        complain("error: " + " ".join(str(error).split()))
        return 2
    except training.Diverged as error:
        complain(f"error: {error}")
        return 1
    except Stopped as stopped:
        complain(f"stopped and saved: {stopped}; the same command with --resume goes on")
        return 0 if "time limit" in str(stopped) else 130
    except KeyboardInterrupt:
        complain("interrupted; a training run goes on from its last checkpoint with --resume")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
