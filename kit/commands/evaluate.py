from ..classifier import Classifier
from ..platforms import find_weights
from ..scores import report


def run(
    options: Classifier,
    dataset: str = "cartoons",
    data_root: str | None = None,
    split: str = "validation",
    calibrate: int = 0,
) -> None:
    """bits per dimension and zero-shot accuracy on a split

    Args:
        dataset: `cartoons`, `cpen455`, `cifar10` or `folder`.
        data_root: the data set's folder, when it is not where the kit looks.
        split: `train`, `validation` or `test`.
        calibrate: fit temperature and class biases on N training pictures, of those that a `train_limit` leaves out;
            0 fits none.
    """
    models = options.load(calibrate)
    pictures = options.pictures(models, dataset, split, data_root)
    nats = options.log_likelihoods(models, pictures.tensors()[0])
    log_p, how = options.judge(models, nats, dataset, data_root, calibrate)
    table = find_weights(options.checkpoint).parent / f"confusion-{dataset}-{split}.csv"
    report(nats[0], log_p, pictures, models[0], f"{dataset} {split} split", how, table)
