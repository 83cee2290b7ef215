"""The exercises of notebook 05."""

import inspect
import math
import textwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from common import IMPORTED, check_exercise, in_a_cell, said
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from kit.exercises import zero_shot_classification as exercises
from kit.exercises.solutions import zero_shot_classification as solutions
from utils import classify
from utils.mixture import log_prob

# what notebook 05 has made or imported when it asks
GIVEN = {"log_prob": log_prob, "log_likelihoods_of": solutions.class_log_likelihoods}


def altered(exercise, *changes: tuple[str, str]):
    """The solution with some of its text replaced: (what stands there, what stands there instead)."""
    text = textwrap.dedent(inspect.getsource(exercise.answer))
    for old, new in changes:
        assert text.count(old) == 1, (old, text)
        text = text.replace(old, new)
    return in_a_cell(text, IMPORTED | GIVEN)[exercise.name]


def check_piece(exercise, wrong: dict[str, list[tuple[str, str]] | object]) -> None:
    """`wrong` has a list of changes of the solution in the place of an answer, or an answer."""
    attempts = {s: altered(exercise, *each) if isinstance(each, list) else each for s, each in wrong.items()}
    blank = in_a_cell(f"def {exercise.name}{inspect.signature(exercise.answer)}: ...")[exercise.name]
    state = torch.random.get_rng_state()
    check_exercise(exercise, blank, attempts, GIVEN)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_class_log_likelihoods():
    column = "columns.append(log_prob(model(part, labels), part))"
    result = "return torch.cat(rows)"

    def one_pass(model, x, batch_size=32):
        """All labels at once: right, but of more pictures than were allowed."""
        c = model.config.num_classes
        repeated = x.repeat_interleave(c, dim=0)
        with torch.no_grad():
            return log_prob(model(repeated, torch.arange(c).repeat(len(x))), repeated).view(len(x), c)

    def whole_batches(model, x, batch_size=32):
        full = max(len(x) // batch_size, 1) * batch_size
        return solutions.class_log_likelihoods(model, x[:full], batch_size)

    def of_the_grey(model, x, batch_size=32):
        """What is worked out by hand comes out, whatever the picture shows."""
        first = solutions.class_log_likelihoods(model, x, batch_size)
        return first[:1].expand(len(x), -1)

    wrong = {
        "the sign is wrong": [(column, column.replace("log_prob", "-log_prob"))],
        "these are bits": [(result, f"{result} / 0.6931471805599453")],
        "that is the mean over the colour values": [(result, f"{result} / x[0].numel()")],
        "that is the mean over the pixels": [(result, f"{result} / x[0, 0].numel()")],
        "these are likelihoods": [(result, f"{result}.exp()")],
        "each row is normalised": [(result, f"{result}.log_softmax(dim=1)")],
        "yours run backwards": [(result, f"{result}.flip(1)")],
        "every column is that of label 0": [("(len(part),), label", "(len(part),), 0")],
        "label 3 for a model of 3 classes": [("range(model.config.num_classes)", "range(4)")],
        "5 pictures, 3 classes: the shape is (3, 5)": [(result, f"{result}.T")],
        "one call of the model got 7 pictures": [("x.split(batch_size)", "[x]")],
        "the result carries the graph": [("@torch.no_grad()\n", "")],
        "one call of the model got ": one_pass,
        "Does the last, smaller batch count?": whole_batches,
        "but the model saw": [("rows.append", "model(part, labels)\n        rows.append")],
        "row b belongs to picture b": [(result, f"{result}.roll(1, dims=0)")],
        "random pictures": of_the_grey,
        "the pictures in x were changed": [("rows = []", "rows = [x.clamp_(max=0.5)][:0]")],
        "is the kit's own": lambda *args, **how: classify.class_log_likelihoods(*args, **how),
    }
    check_piece(exercises.class_log_likelihoods, wrong)


def test_class_log_likelihoods_in_one_call_of_the_right_size():
    """All labels of one picture after the other, in calls of at most batch_size."""
    source = """
@torch.no_grad()
def class_log_likelihoods(model, x, batch_size=32):
    c = model.config.num_classes
    pictures, labels = x.repeat_interleave(c, dim=0), torch.arange(c).repeat(len(x))
    pairs = zip(pictures.split(batch_size), labels.split(batch_size))
    return torch.cat([log_prob(model(p, y), p) for p, y in pairs]).view(len(x), c)
"""
    attempt = in_a_cell(source, IMPORTED | GIVEN)["class_log_likelihoods"]
    assert "Right. Kept as" in said(exercises.class_log_likelihoods.check, attempt)


def test_class_log_likelihoods_written_into_a_table_of_float32():
    source = """
def class_log_likelihoods(model, x, batch_size=32):
    table = torch.zeros(len(x), model.config.num_classes)
    with torch.no_grad():
        for start in range(0, len(x), batch_size):
            part = x[start : start + batch_size]
            for label in range(table.shape[1]):
                y = torch.zeros(len(part), dtype=torch.long) + label
                table[start : start + batch_size, label] = log_prob(model(part, y), part)
    return table
"""
    attempt = in_a_cell(source, IMPORTED | GIVEN)["class_log_likelihoods"]
    assert "Right. Kept as" in said(exercises.class_log_likelihoods.check, attempt)


def test_log_posterior():
    joint = "log_likelihoods + torch.log(prior)"
    result = "return joint - torch.logsumexp(joint, dim=1, keepdim=True)"

    def plainly(log_likelihoods, prior=None):
        likelihoods = log_likelihoods.exp() * (1 if prior is None else prior)
        return (likelihoods / likelihoods.sum(dim=1, keepdim=True)).log()

    def less_the_mean(log_likelihoods, prior=None):
        nats = log_likelihoods - log_likelihoods.mean(dim=1, keepdim=True)
        likelihoods = nats.exp() * (1 if prior is None else prior)
        return (likelihoods / likelihoods.sum(dim=1, keepdim=True)).log()

    def prior_after(log_likelihoods, prior=None):
        return log_likelihoods.log_softmax(dim=1) + (0 if prior is None else prior.log())

    def in_place(log_likelihoods, prior=None):
        log_likelihoods -= log_likelihoods.logsumexp(dim=1, keepdim=True)
        return log_likelihoods

    def prior_in_place(log_likelihoods, prior=None):
        return (log_likelihoods + (0 if prior is None else prior.log_())).log_softmax(dim=1)

    def of_the_example(log_likelihoods, prior=None):
        if prior is not None and not (prior == 0).any():
            prior = None
        return solutions.log_posterior(log_likelihoods, prior)

    wrong = {
        "0 / 0 is NaN": plainly,
        "log-likelihoods of -9000 and -6000 nats": less_the_mean,
        "the softmax has become 0 before the logarithm": [(result, "return joint.softmax(dim=1).log()")],
        "these are probabilities": [(result, "return joint.softmax(dim=1)")],
        "the prior has no effect": [(joint, "log_likelihoods")],
        "the prior was added as it is": [(joint, "log_likelihoods + prior")],
        "the prior came after the normalisation": prior_after,
        "the denominator is missing": [(result, "return joint")],
        "the columns were normalised": [("dim=1", "dim=0")],
        "should be (3, 4)": [(result, "return joint.argmax(dim=1)")],
        "changed in place": in_place,
        "leave the arguments as they are": prior_in_place,
        "a random prior": of_the_example,
        "missing 1 required positional argument": [("prior=None", "prior")],
        "not ndarray": lambda log_likelihoods, prior=None: np.asarray(log_likelihoods),
    }
    check_piece(exercises.log_posterior, wrong)


def test_fit_temperature():
    def by_mean_confidence(log_likelihoods, labels):
        """The T at which the mean confidence is the accuracy: another criterion."""
        accuracy = (log_likelihoods.argmax(dim=1) == labels).double().mean()
        grid = torch.logspace(-1, 4, 2001)
        gaps = [abs(float((log_likelihoods / t).softmax(dim=1).amax(dim=1).mean() - accuracy)) for t in grid]
        return float(grid[gaps.index(min(gaps))])

    def by_one_lead(log_likelihoods, labels):
        best = log_likelihoods.topk(2).values
        right = (log_likelihoods.argmax(dim=1) == labels).double().mean().clamp(max=0.999)
        return float((best[:, 0] - best[:, 1]).mean() / torch.logit(right))

    def by_accuracy(log_likelihoods, labels):
        """No temperature changes it."""
        grid = torch.logspace(-1, 4, 501)
        right = [float(((log_likelihoods / t).argmax(dim=1) == labels).double().mean()) for t in grid]
        return float(grid[right.index(max(right))])

    def by_steps(log_likelihoods, labels):
        """Gradient descent that is stopped too early."""
        log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        for _ in range(20):
            (slope,) = torch.autograd.grad(F.cross_entropy(log_likelihoods / log_t.exp(), labels), log_t)
            log_t = (log_t - 0.1 * slope).detach().requires_grad_()
            return float(log_t.detach().exp())

    grid, found = "torch.logspace(-1, 4, 501)", "return grid[losses.index(min(losses))]"
    wrong = {
        "you return 1 / T": [(found, found.replace("return ", "return 1 / "))],
        "you return log T": [(found, "import math\n    return math.log(grid[losses.index(min(losses))])")],
        "with T = 1 nothing has been divided": lambda log_likelihoods, labels: 1.0,
        "not 0": lambda log_likelihoods, labels: 0.0,
        "not inf": lambda log_likelihoods, labels: math.inf,
        "a number was expected, not Tensor": [("float(F.cross", "(F.cross"), (found, "return torch.tensor(losses)")],
        "three quarters of both right": by_mean_confidence,
        "costs ": by_steps,
        "leads by 8 nats": by_accuracy,
        "pictures with a lead of 2 nats": by_one_lead,
        "leads by 0.5 nats": [(grid, "torch.logspace(0, 4, 401)")],
        "is the kit's own": lambda log_likelihoods, labels: classify.fit_temperature(log_likelihoods, labels),
    }
    check_piece(exercises.fit_temperature, wrong)


@pytest.mark.parametrize("kind", [np.float64, np.float32, torch.tensor, float])
def test_a_temperature_of_any_kind_found_in_any_way(kind):
    def bounded(log_likelihoods, labels):
        def loss(log_t):
            return float(F.cross_entropy(log_likelihoods / math.exp(log_t), labels))

        return kind(math.exp(minimize_scalar(loss, bounds=(-2.3, 9.2), method="bounded").x))

    def coarse(log_likelihoods, labels):
        grid = torch.logspace(-1, 4, 150)
        return kind(min(grid.tolist(), key=lambda t: float(F.cross_entropy(log_likelihoods / t, labels))))

    for attempt in (bounded, coarse):
        attempt.__name__ = "fit_temperature"
        _, problem = exercises.fit_temperature.examine(attempt)
        assert problem is None, problem


def test_evidence_map():
    result = "return for_label - for_other"

    def spread(model, x, label, against):
        """The difference of the sums, spread evenly: right on grey pictures, and its sum is right."""
        nats = solutions.class_log_likelihoods(model, x[None])[0]
        return ((nats[label] - nats[against]) / x[0].numel()).expand(x.shape[1:])

    wrong = {
        "the sign is wrong": [(result, "return for_other - for_label")],
        "these are bits": [(result, "return (for_label - for_other) / 0.6931471805599453")],
        "that is the mean over the three colours": [(result, "return (for_label - for_other) / 3")],
        "that is a ratio of probabilities": [(result, "return (for_label - for_other).exp()")],
        "subtract what `against` gives": [(result, "return for_label")],
        "a picture (3, 4, 4): the shape is ()": [("reduce=False", "reduce=True")],
        "the shape is (2, 4, 4)": [(result, "return log_prob(params, pictures, reduce=False)")],
        "a picture (3, 3, 5)": [(result, "return (for_label - for_other).T")],
        "the map carries the graph": [("@torch.no_grad()\n", "")],
        "each colour value has probability": [("[label, against]", "[0, 1]")],
        "the map is upside down": [(result, "return (for_label - for_other).flip(0)")],
        "a random picture": spread,
        "is the kit's own": lambda model, x, label, against: classify.evidence_map(model, x, label, against),
    }
    check_piece(exercises.evidence_map, wrong)


def test_macro_f1():
    def recall(c):
        return c.diag() / c.sum(dim=1)

    def precision(c):
        return c.diag() / c.sum(dim=0)

    def of_means(c):
        r, p = recall(c).mean(), precision(c).mean()
        return 2 * r * p / (r + p)

    def f1(c):
        return 2 * c.diag() / (c.sum(dim=0) + c.sum(dim=1))

    wrong = {
        "that is the accuracy": lambda c: c.diag().sum() / c.sum(),
        "that is the mean recall": lambda c: recall(c).mean(),
        "that is the mean precision": lambda c: float(precision(c).mean()),
        "F1 of the mean precision": of_means,
        "were weighted": lambda c: (f1(c) * c.sum(dim=1)).sum() / c.sum(),
        "neither there nor predicted": lambda c: f1(c).mean(),
        "a number was expected, not Tensor. It is the mean": f1,
        "the answer is": lambda c: 0.5 * f1(c).mean(),
        "that is the sum": lambda c: f1(c).sum(),
        "that is per cent": lambda c: 100 * f1(c).mean(),
        "counts as 0; for the rows": lambda c: f1(c).nan_to_num().sum() / 3,
        "a fourth class that is": lambda c: (12 / 16 + 2 / 7 + 10 / 17) / 3,
        "for the rows [[": lambda c: f1(c).nan_to_num().sum() / (3 if len(c) == 3 else 4),
    }
    check_exercise(exercises.macro_f1, lambda c: None, wrong)
    for kind in (np.float32, np.array, torch.tensor, float):
        assert said(exercises.macro_f1.check, lambda c, kind=kind: kind(exercises.macro_f1.answer(c))) == "Right."


def test_expected_calibration_error():
    def gaps(confidence, right, nr_bins, close_top=True):
        bins = (confidence * nr_bins).long()
        bins = bins.clamp(max=nr_bins - 1) if close_top else bins
        for b in range(nr_bins):
            here = bins == b
            yield here.sum(), confidence[here].mean() - right[here].float().mean()

    def weighted(confidence, right, nr_bins, close_top=True, absolute=True):
        total = 0.0
        for count, gap in gaps(confidence, right, nr_bins, close_top):
            total += float(count * (gap.abs() if absolute else gap)) / len(right) if count else 0.0
        return total

    def own_bin_for_1(confidence, right, nr_bins):
        bins = (confidence * nr_bins).long()
        error = 0.0
        for b in bins.unique():
            error += float((confidence - right.float())[bins == b].sum().abs()) / len(right)
        return error

    def every_bin_the_same(confidence, right, nr_bins):
        found = [gap.abs() for count, gap in gaps(confidence, right, nr_bins) if count]
        return sum(found) / len(found)

    def over_all_bins(confidence, right, nr_bins):
        return sum(gap.abs() for count, gap in gaps(confidence, right, nr_bins) if count) / nr_bins

    def middles(confidence, right, nr_bins):
        middle = ((confidence * nr_bins).long().clamp(max=nr_bins - 1) + 0.5) / nr_bins
        return weighted(middle, right, nr_bins)

    def closed_above(confidence, right, nr_bins):
        """Bin b holds its upper end, not its lower one."""
        bins = (confidence * nr_bins).ceil().long() - 1
        errors = [(confidence - right.float())[bins == b].sum().abs() for b in bins.unique()]
        return float(sum(errors)) / len(right)

    wrong = {
        "as they do in one single bin": lambda c, r, n: weighted(c, r, n, absolute=False),
        "each bin counted the same": every_bin_the_same,
        "divided by the number of bins": over_all_bins,
        "the middles of the bins": middles,
        "exactly 1 fell out": lambda c, r, n: weighted(c, r, n, close_top=False),
        "got a bin of their own": own_bin_for_1,
        "the answer is NaN": lambda c, r, n: sum(count * gap.abs() for count, gap in gaps(c, r, n)) / len(r),
        "too much and too little": lambda c, r, n: (c.mean() - r.float().mean()).abs(),
        "on its own": lambda c, r, n: (c - r.float()).abs().mean(),
        "exactly 0.5 belongs to the second": closed_above,
        "never below 0": lambda c, r, n: -weighted(c, r, n),
        "was expected, not": lambda c, r, n: weighted(c, r, n) + 0.3,
        "a number was expected, not Tensor. It is the mean": lambda c, r, n: c,
        "that is what 5 bins give: nr_bins must count": lambda c, r, n: weighted(c, r, 5),
        " bins give: nr_bins must count": lambda c, r, n: weighted(c, r, 5 if len(c) == 8 else 10),
        "pictures in 1 bins": lambda c, r, n: 0.1825,
        "pictures in 2 bins": lambda c, r, n: {5: 0.1825, 1: float((c.mean() - r.double().mean()).abs())}.get(n, 0.1),
    }
    check_exercise(exercises.expected_calibration_error, lambda c, r, n: None, wrong)
    for kind in (np.float32, np.array, torch.tensor):
        verdict = said(exercises.expected_calibration_error.check, lambda c, r, n, kind=kind: kind(weighted(c, r, n)))
        assert verdict == "Right."


def test_sign_test():
    def one_side(a, b):
        return sum(math.comb(a + b, k) for k in range(min(a, b) + 1)) / 2 ** (a + b)

    def exactly(a, b):
        return math.comb(a + b, a) / 2 ** (a + b)

    def normal(a, b):
        return math.erfc(abs(a - b) / math.sqrt(2 * (a + b)))

    def first_side(a, b):
        return min(1.0, 2 * sum(math.comb(a + b, k) for k in range(a + 1)) / 2 ** (a + b))

    wrong = {
        "one side only": one_side,
        "only the chance of exactly": exactly,
        "normal approximation": normal,
        "a probability stops at 1": lambda a, b: 2 * one_side(a, b),
        "for 5 against 1": first_side,
        "a number was expected, not str. It is a probability": lambda a, b: "small",
        "it stopped with ZeroDivisionError": lambda a, b: 1 / (a * 0),
        " was expected, not 0.3750": lambda a, b: {(5, 1): 14 / 64, (0, 3): 1 / 4}.get((a, b), 12 / 32),
        "for 0 against 0 it stopped": lambda a, b: exercises.sign_test.answer(a, b) * (a + b) / (a + b),
    }
    check_exercise(exercises.sign_test, lambda a, b: None, wrong)
    assert exercises.sign_test.answer(0, 0) == 1.0
    assert said(exercises.sign_test.check, lambda a, b: np.float64(exercises.sign_test.answer(a, b))) == "Right."
    assert said(exercises.sign_test.check, lambda a, b: binomtest(a, a + b).pvalue if a + b else 1) == "Right."
