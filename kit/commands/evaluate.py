from dataclasses import replace

from utils import UsageError
from utils.checkpoints import with_classes

from ..classifier import Classifier
from ..distributed import say
from ..platforms import find_weights
from ..scores import paired, report


def run(
    options: Classifier,
    dataset: str = "cartoons",
    data_root: str | None = None,
    split: str = "validation",
    calibrate: int = 0,
    against: str | None = None,
) -> None:
    """bits per dimension and the accuracy of the generative classifier on a split

    Args:
        dataset: `cartoons`, `cartoons-hard`, `cpen455`, `cifar10` or `folder`.
        data_root: the data set's folder, when it is not where the kit looks.
        split: `train`, `validation` or `test`.
        calibrate: fit a temperature and class biases on N training pictures, of those that a `train_limit` leaves out;
            the biases change labels as well as confidence; 0 fits none.
        against: compare by a paired test with these weights on the same pictures, judged plainly: uniform prior, no
            mirror, no ensemble, no calibration; the same weights again show what such a setting does.
    """
    models = options.load(calibrate)
    pictures = options.pictures(models, dataset, split, data_root)
    if against:
        if (pictures.labels < 0).all():
            raise UsageError(f"--against compares what is right: no label of the {dataset} {split} split is known")
        plain = replace(options, checkpoint=against, prior=None, mirror=False, ensemble=())
        others = [with_classes(plain.load()[0], pictures.classes, f"--against {against}", options.checkpoint)]
        x = plain.pictures(others, dataset, split, data_root).tensors()[0]  # at their own size
    fitted = options.calibration_pictures(models, dataset, data_root, calibrate)
    nats = options.log_likelihoods(models, pictures.tensors()[0])
    log_p, how = options.judge(models, nats, fitted)
    table = find_weights(options.checkpoint).parent / f"confusion-{dataset}-{split}.csv"
    report(nats[0], log_p, pictures, models[0], f"{dataset} {split} split", how, table)
    if against:
        others_labels = plain.log_likelihoods(others, x)[0].argmax(1)
        names = f"{options.checkpoint} as above", f"{against} plainly"
        say(f"paired comparison   {paired(log_p.argmax(1), others_labels, pictures.labels, names)}")
