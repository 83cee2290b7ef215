import contextlib
from pathlib import Path

from utils import UsageError, class_order, listing, note

from .. import board, distributed, leaderboard
from ..classifier import Classifier
from ..platforms import check_writable, find_weights, load_pictures
from ..runs import read_config


def run(
    options: Classifier,
    out: str,
    dataset: str = "cpen455",
    format: str = "2024",
    fid: float | None = None,
    keep_log_likelihoods: bool = False,
    data_root: str | None = None,
    calibrate: int = 0,
) -> None:
    """the leaderboard's file: labels of a data set's test split

    Args:
        out: a .csv file.
        dataset: `cpen455`, `folder`, `cartoons`, `cartoons-hard` or `cifar10`; its own class numbers are handed in.
        format: `2024` or `2023`, the year of the leaderboard.
        fid: the last row of the 2023 format.
        keep_log_likelihoods: also write log p(x | y), as .npy next to it.
        data_root: the folder of the data, when it is not where the kit looks.
        calibrate: fit a temperature and class biases on N training pictures, of those that a `train_limit` leaves out;
            the biases change labels as well as confidence; 0 fits none.
    """
    models = options.load(calibrate)
    test = load_pictures(dataset, "test", data_root, models[0].config.image_size)
    order = class_order(test.classes, models[0].class_names, "the data set", options.checkpoint)
    leaderboard.rows([], [], format, fid)  # says what is wrong with them before the work starts
    check_writable(Path(out).parent)
    hybrids = [name for name in (options.checkpoint, *options.ensemble) if is_hybrid(name)]
    file = Path(out).absolute()
    team = file.parent.name if file.stem == "submission" else file.stem
    if hybrids and not team.casefold().endswith(board.HYBRID):
        which = f"{listing(hybrids)} was trained with --hybrid, so the labels are not purely generative"
        note(f"{which}: call the file TEAM{board.HYBRID}.csv or TEAM{board.HYBRID}/submission.csv")
    fitted = options.calibration_pictures(models, dataset, data_root, calibrate)
    nats = options.log_likelihoods(models, test.tensors()[0])
    log_p, how = options.judge(models, nats, fitted)
    if distributed.rank():
        return
    labels = log_p[:, order].argmax(dim=1).tolist()
    if keep_log_likelihoods:
        kept = leaderboard.write_log_likelihoods(out, nats.mean(dim=0)[:, order].float())  # as they were computed
        print(f"log-likelihoods in {kept}, a row a picture, in nats")
    leaderboard.write(out, test.names, labels, format, fid, len(test.classes))
    counts = ", ".join(f"{labels.count(label)} {name}" for label, name in enumerate(test.classes))
    print(f"{out}: {dataset} test split, {len(labels)} pictures, {how}, format {format}; {counts}")


def is_hybrid(checkpoint: str) -> bool:
    """Whether weights were also trained to name labels, by their run's settings or, of shipped ones, by their name."""
    file = find_weights(checkpoint)
    with contextlib.suppress(UsageError):  # no run's
        return read_config(file.parent.resolve())[1].hybrid > 0
    return file.stem.endswith(board.HYBRID)
