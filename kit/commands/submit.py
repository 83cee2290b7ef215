from pathlib import Path

from utils import class_order
from utils.data import CPEN455_CLASSES

from .. import distributed, leaderboard
from ..classifier import Classifier
from ..platforms import check_writable


def run(
    options: Classifier,
    out: str,
    format: str = "2024",
    fid: float | None = None,
    keep_log_likelihoods: bool = False,
    data_root: str | None = None,
    calibrate: int = 0,
) -> None:
    """the leaderboard's file: labels of the course's test split

    Args:
        out: a .csv file.
        format: `2024` or `2023`, the year of the leaderboard.
        fid: the last row of the 2023 format.
        keep_log_likelihoods: also write log p(x | y), as .npy next to it.
        data_root: the folder of the course's data, when it is not where the kit looks.
        calibrate: fit a temperature and class biases on N training pictures, of those that a `train_limit` leaves out;
            the biases change labels as well as confidence; 0 fits none.
    """
    models = options.load(calibrate)
    test = options.pictures(models, "cpen455", "test", data_root)
    leaderboard.rows([], [], format, fid)  # says what is wrong with them before the work starts
    check_writable(Path(out).parent)
    nats = options.log_likelihoods(models, test.tensors()[0])
    log_p, how = options.judge(models, nats, "cpen455", data_root, calibrate)
    if distributed.rank():
        return
    order = class_order(CPEN455_CLASSES, test.classes, "the course", options.checkpoint)  # its numbers are handed in
    labels = log_p[:, order].argmax(dim=1).tolist()
    if keep_log_likelihoods:
        kept = leaderboard.write_log_likelihoods(out, nats.mean(dim=0)[:, order].float())  # as they were computed
        print(f"log-likelihoods in {kept}, a row a picture, in nats")
    leaderboard.write(out, test.names, labels, format, fid)
    counts = ", ".join(f"{labels.count(label)} {name}" for label, name in enumerate(CPEN455_CLASSES))
    print(f"{out}: cpen455 test split, {len(labels)} pictures, {how}, format {format}; {counts}")
