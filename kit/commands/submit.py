"""`python -m kit submit`"""

from utils import UsageError
from utils.data import load_split

from .. import distributed, leaderboard
from ..classifier import Classifier
from ..platforms import find_root
from .evaluate import check_calibrate


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
        keep_log_likelihoods: write log p(x | y) beside it, as .npy.
        data_root: the folder of the course's data, when it is not where the kit looks.
        calibrate: fit temperature and class biases on the last N training pictures; 0 fits none.
    """
    check_calibrate(calibrate)
    models = options.load()
    test = load_split("cpen455", "test", find_root("cpen455", data_root), models[0].config.image_size)
    if models[0].config.num_classes != len(test.classes):
        known = models[0].config.num_classes
        raise UsageError(f"cpen455 has {len(test.classes)} classes, {options.checkpoint} knows {known}")
    leaderboard.rows([], [], format, fid)  # says what is wrong with them before the work starts
    nats = options.log_likelihoods(models, test.tensors()[0])
    log_p, how = options.judge(models, nats, "cpen455", data_root, calibrate)
    if distributed.rank():
        return
    labels = log_p.argmax(dim=1).tolist()
    if keep_log_likelihoods:
        kept = leaderboard.write_log_likelihoods(out, nats.mean(dim=0).float())  # as they were computed
        print(f"log-likelihoods in {kept}, a row a picture, in nats")
    leaderboard.write(out, test.names, labels, format, fid)
    counts = ", ".join(f"{labels.count(label)} {name}" for label, name in enumerate(test.classes))
    print(f"{out}: cpen455 test split, {len(labels)} pictures, {how}, format {format}; {counts}")
