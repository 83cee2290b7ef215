"""The exercises of notebook 06."""

import time

import numpy as np
import pytest
import torch
from common import check_exercise, in_a_cell, named, pasted, said

from kit.exercises import pieces
from kit.exercises import sample_gallery as exercises
from kit.exercises.solutions import sample_gallery as solutions
from utils import mixture
from utils.data import to_bytes
from utils.mixture import log_prob

GIVEN = {"to_bytes": to_bytes, "log_prob": log_prob, "np": np}


@torch.no_grad()
def log_pixels(model, x, y):
    return log_prob(model(x, y), x, reduce=False)  # (B, H, W)


def verdict(exercise, attempt) -> str:
    return exercise.verdict(named(attempt, exercise.name))


def passes(exercise, attempt) -> bool:
    return verdict(exercise, attempt).endswith("Right.")


def test_sheet():
    def cut_off(images, columns):
        size = images.shape[-1]
        tiles = ((images + 1) * 127.5).to(torch.uint8).view(-1, columns, 3, size, size)
        return tiles.permute(0, 3, 1, 4, 2).reshape(-1, columns * size, 3)

    def filled_column_by_column(images, columns):
        size, rows = images.shape[-1], len(images) // columns
        tiles = to_bytes(images).view(columns, rows, 3, size, size)
        return tiles.permute(1, 3, 0, 4, 2).reshape(rows * size, columns * size, 3)

    def not_permuted(images, columns):
        size = images.shape[-1]
        return to_bytes(images).reshape(-1, columns * size, 3)

    def of_one_grid(images, columns):
        tiles = to_bytes(images).view(2, 3, 3, 4, 4) if len(images) == 6 else to_bytes(images)[:6].view(2, 3, 3, 4, 4)
        return tiles.permute(0, 3, 1, 4, 2).reshape(8, 12, 3)

    def in_three_columns(images, columns):
        return exercises.sheet.answer(images[: len(images) // 3 * 3], 3)

    def of_size_4(images, columns):
        tiles = to_bytes(images)[:, :, :4, :4].reshape(-1, columns, 3, 4, 4)
        return tiles.permute(0, 3, 1, 4, 2).reshape(-1, columns * 4, 3)

    def writing(images, columns):
        return exercises.sheet.answer(images.mul_(-1), columns)

    check_exercise(
        exercises.sheet,
        lambda images, columns: ...,
        {
            "round before you cast": cut_off,
            "which axes become": filled_column_by_column,
            "permute the axes first": not_permuted,
            "blue, green, red": lambda images, columns: exercises.sheet.answer(images, columns).flip(2),
            "bytes (torch.uint8)": lambda images, columns: exercises.sheet.answer(images, columns).float(),
            "the shape is": lambda images, columns: exercises.sheet.answer(images, columns).permute(2, 0, 1),
            "in columns=2: it stopped": of_one_grid,
            "in columns=2: the shape is": in_three_columns,
            " in columns=2: the shape": of_size_4,
            "not ndarray": lambda images, columns: exercises.sheet.answer(images, columns).numpy(),
            "it writes into images": writing,
        },
        given=GIVEN,
    )


def log_prob_of_rest(model, x, y, nr_given): ...  # your code


def summed(chosen, sign=1.0):
    """The log-likelihood of the pixels that `chosen(log_pixels, nr_given)` keeps."""
    return lambda model, x, y, n: sign * chosen(log_pixels(model, x, y), n).flatten(1).sum(1)


def under(labels):
    return lambda model, x, y, n: log_pixels(model, x, labels(y))[:, n:].sum((1, 2))


def of_rows_alone(model, x, y, n):
    if len(x[0, 0]) - n not in (4, 8, 12, 16):
        return solutions.log_prob_of_rest(model, x, y, n)
    return log_pixels(model, x[:, :, n:], y).sum((1, 2))


def with_white_rest(model, x, y, n):
    white = x.clone()
    white[:, :, n:] = 1
    with torch.no_grad():
        return log_prob(model(white, y), x, reduce=False)[:, n:].sum((1, 2))


def writing(model, x, y, n):
    x[:, :, :n] = 0
    return log_pixels(model, x, y)[:, n:].sum((1, 2))


def with_gradient(model, x, y, n):
    return log_prob(model(x, y), x, reduce=False)[:, n:].sum((1, 2))


def test_log_prob_of_rest():
    right = solutions.log_prob_of_rest
    check_exercise(
        exercises.log_prob_of_rest,
        log_prob_of_rest,
        {
            "each colour with probability 0.5, have -20.7944 nats together, not -41.5888: all rows": summed(
                lambda log, n: log
            ),
            "these are the rows that were given": summed(lambda log, n: log[:, :n]),
            "the first row that was not given is missing": summed(lambda log, n: log[:, n + 1 :]),
            "the last row that was given is in it": summed(lambda log, n: log[:, max(n - 1, 0) :]),
            "nr_given counts rows, not pixels": summed(lambda log, n: log.flatten(1)[:, n:]),
            "these are columns": summed(lambda log, n: log[:, :, n:]),
            "pixels are averaged": lambda *args: (
                summed(lambda log, n: log[:, n:])(*args) / args[1][0, 0, args[3] :].numel()
            ),
            "values are averaged": lambda *args: (
                summed(lambda log, n: log[:, n:])(*args) / args[1][0, :, args[3] :].numel()
            ),
            "the sign is turned": summed(lambda log, n: log[:, n:], sign=-1.0),
            "these are bits": summed(lambda log, n: log[:, n:], sign=1 / np.log(2)),
            "value for class 0": under(lambda y: 0 * y),
            "every picture has a label of its own": under(lambda y: y[:1].expand_as(y)),
            "the network saw these rows alone": of_rows_alone,
            "the network must see the rest too": with_white_rest,
            "it writes into x": writing,
            "still carry a gradient": with_gradient,
            "the shape is": lambda model, x, y, n: log_pixels(model, x, y)[:, n:],
            "not ndarray": lambda *args: right(*args).numpy(),
            "have -41.5888 nats together, not 0.0000": lambda model, x, y, n: torch.zeros(len(x)),
            "-41.5888 nats together, not -20.7944": summed(lambda log, n: log[:, 2 if log.shape[1] == 4 else n :]),
            "yours are torch.float32": lambda *args: right(*args).float(),
            "16 rows high, 12 of them given": summed(lambda log, n: log[:, n if log.shape[1] < 16 else 0 :]),
        },
        GIVEN,
    )


def test_right_answers_that_are_spelled_otherwise():
    def by_difference(model, x, y, n):
        return log_pixels(model, x, y).sum((1, 2)) - log_pixels(model, x, y)[:, :n].sum((1, 2))

    def one_by_one(model, x, y, n):
        return torch.cat([log_pixels(model, x[i : i + 1], y[i : i + 1])[:, n:].sum((1, 2)) for i in range(len(x))])

    assert all(passes(exercises.log_prob_of_rest, each) for each in (by_difference, one_by_one))


def test_it_is_kept_with_the_log_prob_that_it_uses(mine):
    source = said(exercises.log_prob_of_rest.solution)
    own = in_a_cell("def log_prob(params, x, reduce=True):\n    return mixture.log_prob(params, x, reduce)\n", GIVEN | {
        "mixture": mixture, "torch": torch,
    })  # fmt: skip
    assert "Kept as" in said(exercises.log_prob_of_rest.check, in_a_cell(source, own)["log_prob_of_rest"])
    text = (mine / "log_prob_of_rest.py").read_text()
    assert "def log_prob(params" in text and "@torch.no_grad()" in text
    assert said(pieces.take, "log_prob_of_rest") == "log_prob_of_rest: yours"


def nearest(samples, training, count): ...  # your code


def ranked(score, index=lambda found: found.indices):
    """The `count` training pictures of the smallest score, (N, 3SS), (M, 3SS) -> (N, M)."""

    def attempt(samples, training, count):
        return index(score(samples.flatten(1), training.flatten(1)).topk(count, largest=False))

    return attempt


def all_differences(samples, training, count):
    difference = samples[:, None] - training[None]
    return difference.square().sum((2, 3, 4)).topk(count, largest=False).indices


def without_itself(samples, training, count):
    distances = torch.cdist(samples.flatten(1), training.flatten(1))
    distances[distances < 1e-3] = torch.inf
    return distances.topk(count, largest=False).indices


def writing_neighbours(samples, training, count):
    training.add_(1)
    return solutions.nearest(samples + 1, training, count)


def of_first_colour(samples, training, count):
    return solutions.nearest(samples[:, 1:2], training[:, 1:2], count)


def test_nearest():
    right = solutions.nearest

    def lucky_by_hand(samples, training, count):  # right by hand and for copies alone
        return right(samples, training, count) if len(training) in (8, 40) else right(samples, -training, count)

    check_exercise(
        exercises.nearest,
        nearest,
        {
            "these are the farthest": ranked(lambda s, t: -torch.cdist(s, t)),
            "L1": ranked(lambda s, t: torch.cdist(s, t, p=1.0)),
            "the indices of the pictures are asked for": ranked(torch.cdist, lambda found: found.values),
            "topk and sort return two tensors": ranked(torch.cdist, lambda found: tuple(found)),
            "the nearest comes first": lambda *args: right(*args).flip(1),
            "are the nearest of one sample, but it gives": ranked(lambda s, t: -(s @ t.T)),
            "largest product": lambda s, t, count: (
                right(s, t, count) if len(t) in (8, 40) else ranked(lambda s, t: -(s @ t.T))(s, t, count)
            ),
            "the shape is": lambda s, t, count: torch.cdist(s.flatten(1), t.flatten(1)).topk(2, 0, False).indices,
            "count: 1: the shape is": lambda s, t, count: right(s, t, 2),
            "there is no training picture": lambda *args: right(*args) + 1000,
            "not bool": lambda s, t, count: True,
            "not ndarray": lambda *args: right(*args).numpy(),
            "all differences": all_differences,
            "and 1.73, are the nearest": without_itself,
            "it writes into its arguments": writing_neighbours,
            "at distances 0, 1.04, 1.13 and 1.73": lambda s, t, count: torch.arange(count).expand(len(s), -1),
            "is its own nearest": lambda s, t, count: right(s[:1], t, count).expand(len(s), -1),
            "for sample": lucky_by_hand,
            "comes twice": lambda s, t, count: right(s, t, 1).expand(-1, count) if len(t) not in (8, 40, 80) else right(
                s, t, count
            ),
        } | {"at distances 0, 1.04": of_first_colour},
        GIVEN,
    )  # fmt: skip
    assert passes(exercises.nearest, lambda *args: right(*args).int())
    assert passes(exercises.nearest, lambda s, t, count: torch.stack([
        (t - each).square().sum((1, 2, 3)).argsort()[:count] for each in s
    ]))  # fmt: skip


def frechet(mean1, cov1, mean2, cov2): ...  # your code


def with_middle(middle, power=2):
    def attempt(mean1, cov1, mean2, cov2):
        between = (mean1 - mean2).abs().pow(power).sum()
        return between + cov1.trace() + cov2.trace() - middle(cov1, cov2)

    return attempt


def root_of(cov):
    values, vectors = torch.linalg.eigh(cov)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def middle(cov1, cov2):
    root = root_of(cov1)
    return 2 * torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum()


def unclamped(cov1, cov2):
    return 2 * torch.linalg.eigvals(cov1 @ cov2).real.sqrt().sum()


def of_each_root(cov1, cov2):
    return 2 * torch.linalg.eigvalsh(cov1).sqrt().sum() * torch.linalg.eigvalsh(cov2).sqrt().sum()


def of_two_dimensions(cov1, cov2):
    product = cov1 @ cov2
    return middle(cov1, cov2) if len(cov1) in (1, 8) else 2 * (product.trace() + 2 * product.det().sqrt()).sqrt()


def of_diagonals(cov1, cov2):
    return 2 * (cov1.diagonal() * cov2.diagonal()).sqrt().sum()


def writing_moments(mean1, cov1, mean2, cov2):
    mean1 -= mean2
    return solutions.frechet(mean1, cov1, torch.zeros_like(mean2), cov2)


def test_frechet():
    right = solutions.frechet

    def of_known_inputs(mean1, cov1, mean2, cov2):
        return 10.0 if len(mean1) == 1 else right(mean1, cov1, mean2, cov2)

    def zero_if_singular(mean1, cov1, mean2, cov2):
        return 0.0 if cov1.det().abs() < 1e-9 else right(mean1, cov1, mean2, cov2)

    def complex_number(*moments):
        return complex(right(*moments), 1e-9)

    check_exercise(
        exercises.frechet,
        frechet,
        {
            "must be squared": with_middle(middle, power=1),
            "counts too": lambda m1, c1, m2, c2: right(m1, c1, m1, c2),
            "no root at the end": lambda *moments: right(*moments) ** 0.5,
            "subtracted twice": with_middle(lambda c1, c2: middle(c1, c2) / 2),
            "is missing": with_middle(lambda c1, c2: 0),
            "its root was asked for": with_middle(lambda c1, c2: 2 * (c1 @ c2).trace()),
            "root is taken of each entry": with_middle(lambda c1, c2: 2 * (c1 @ c2).diagonal().sqrt().sum()),
            "the entries beside the diagonal": with_middle(of_diagonals),
            "product of the traces": with_middle(of_each_root),
            "if they do not commute": with_middle(lambda c1, c2: 2 * (root_of(c1) @ root_of(c2)).trace()),
            "clamp": with_middle(unclamped),
            "variances 1 and 4 give": with_middle(lambda c1, c2: 7 * middle(c1, c2)),
            "not diagonal it gives 10": lambda *moments: 10.0,
            "a number was expected": lambda m1, c1, m2, c2: torch.stack([m1, m2]),
            "for two Gaussians with means of size": with_middle(of_two_dimensions),
            "with means of size 1 it gives 10": of_known_inputs,
            "covariances of 4 and 5 pictures": zero_if_singular,
            "a complex number": complex_number,
            "it writes into its arguments": writing_moments,
            "1 + 4": lambda m1, c1, m2, c2: right(m1, c1, m2, c2) + ((m1 - m2).sum() ** 2 - ((m1 - m2) ** 2).sum()),
        },
        GIVEN,
    )
    for kind in (np.float64, np.array, lambda value: torch.tensor([[value]], dtype=torch.float64)):
        assert passes(exercises.frechet, lambda *moments, kind=kind: kind(right(*moments)))


def test_frechet_by_scipy_is_right_too():
    from scipy.linalg import sqrtm

    def attempt(mean1, cov1, mean2, cov2):
        root = np.real(np.trace(sqrtm((cov1 @ cov2).numpy())))
        return (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * root

    told = verdict(exercises.frechet, attempt)
    assert "2 of 4 is right" in told and ("Right." in told or "singular" in told), told


def fitted(horizontal, which=1, degree=1):
    return lambda counts, distances: np.polyfit(horizontal(np.array(counts, dtype=float)), distances, degree)[which]


def test_at_infinity():
    right = exercises.at_infinity.answer

    def of_two_points(counts, distances):
        few, most = np.argmin(counts), np.argmax(counts)
        return right([counts[few], counts[most]], [distances[few], distances[most]])

    check_exercise(
        exercises.at_infinity,
        lambda counts, distances: ...,
        {
            "slope, not its value": fitted(lambda n: 1 / n, which=0),
            "the line runs over N": fitted(lambda n: n),
            "the distance of the largest set": lambda counts, distances: distances[-1],
            "the mean of the distances": lambda counts, distances: float(np.mean(distances)),
            "two of the points alone": of_two_points,
            "give 0.5000, but -0.5000": lambda counts, distances: max(right(counts, distances), 0.5),
            "but 3.0000 is right": fitted(lambda n: 1 / np.sqrt(n)),
            "but 3.0000 is right.": lambda counts, distances: 2.0,
            "a number was expected, not": lambda counts, distances: np.polyfit(1 / np.array(counts), distances, 1),
            "not str": lambda counts, distances: "text",
        },
        GIVEN,
    )
    for kind in (np.float64, np.array, torch.tensor):
        assert passes(exercises.at_infinity, lambda *given, kind=kind: kind(right(*given)))


@pytest.mark.parametrize("piece", [exercises.log_prob_of_rest, exercises.nearest, exercises.frechet])
def test_a_check_is_quick_and_draws_anew(piece):
    """As quick as 400 passes of its small network, on whatever machine."""
    attempt, model, x = pasted(piece, GIVEN), exercises.small_model(), exercises.random_pictures(2, 8, 8)
    started = time.process_time()
    for _ in range(100):
        model(x, torch.tensor([0, 1]))
    hundred, started = time.process_time() - started, time.process_time()
    verdicts = {said(piece.check, attempt) for _ in range(3)}
    assert len(verdicts) == 1 and time.process_time() - started < 4 * hundred
