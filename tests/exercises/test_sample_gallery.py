"""The exercises of notebook 06."""

import numpy as np
import torch
from common import check_exercise, said

from kit.exercises import sample_gallery as exercises
from utils import mixture
from utils.data import to_bytes


def log_pixels(model, x, y):
    with torch.no_grad():
        return mixture.log_prob(model(x, y), x, reduce=False)  # (B, H, W)


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
        },
        given={"to_bytes": to_bytes},
    )


def test_log_prob_of_rest():
    check_exercise(
        exercises.log_prob_of_rest,
        lambda model, x, y, nr_given: None,
        {
            "all rows are in it": lambda model, x, y, n: log_pixels(model, x, y).sum((1, 2)),
            "the rows that were given": lambda model, x, y, n: log_pixels(model, x, y)[:, :n].sum((1, 2)),
            "is missing": lambda model, x, y, n: log_pixels(model, x, y)[:, n + 1 :].sum((1, 2)),
            "the last row that was given": lambda model, x, y, n: log_pixels(model, x, y)[:, n - 1 :].sum((1, 2)),
            "averaged": lambda model, x, y, n: log_pixels(model, x, y)[:, n:].mean((1, 2)),
            "the sign is turned": lambda model, x, y, n: -log_pixels(model, x, y)[:, n:].sum((1, 2)),
            "value for class 0": lambda model, x, y, n: log_pixels(model, x, 0 * y)[:, n:].sum((1, 2)),
            "picture 0 gives": lambda model, x, y, n: log_pixels(model, x, y)[:, :, n:].sum((1, 2)),
            "the shape is": lambda model, x, y, n: log_pixels(model, x, y)[:, n:],
            "3 pictures, 16 rows high, of which": lambda model, x, y, n: log_pixels(model, x, y)[:, 12:].sum((1, 2)),
            "the model saw these rows alone": lambda model, x, y, n: log_pixels(model, x[:, :, n:], y).sum((1, 2)),
            "1 pictures, 8 rows high": lambda model, x, y, n: log_pixels(model, x, y)[:, n - 16 :].sum((1, 2)),
            "not ndarray": lambda model, x, y, n: log_pixels(model, x, y)[:, n:].sum((1, 2)).numpy(),
        },
        given={"mixture": mixture},
    )
    verdict = said(
        exercises.log_prob_of_rest.check,
        lambda model, x, y, n: mixture.log_prob(model(x, y).double(), x.double(), reduce=False)[:, n:].sum((1, 2)),
    )
    assert verdict == "Right."


def test_nearest():
    def distances(samples, training, p=2.0):
        return torch.cdist(samples.flatten(1), training.flatten(1), p=p)

    check_exercise(
        exercises.nearest,
        lambda samples, training, count: ...,
        {
            "farthest": lambda s, t, count: distances(s, t).topk(count).indices,
            "L1": lambda s, t, count: distances(s, t, p=1).topk(count, largest=False).indices,
            "not their distances": lambda s, t, count: distances(s, t).topk(count, largest=False).values,
            "largest product": lambda s, t, count: (s.flatten(1) @ t.flatten(1).T).argsort(
                dim=1, descending=True, stable=True
            )[:, :count],
            "not the nearest first": lambda s, t, count: exercises.nearest.answer(s, t, count).flip(1),
            "the shape is": lambda s, t, count: distances(s, t).topk(count, dim=0, largest=False).indices,
            "neighbour": lambda s, t, count: distances(s[:, :1], t[:, :1]).topk(count, largest=False).indices,
            "count=1: the shape is": lambda s, t, count: exercises.nearest.answer(s, t, 3),
            "there is no training picture": lambda s, t, count: exercises.nearest.answer(s, t, count) + 1000,
            "neighbour 1 should be": lambda s, t, count: exercises.nearest.answer(s, t, 1).expand(-1, count),
            "not topk": lambda s, t, count: distances(s, t).topk(count, largest=False),
            "not bool": lambda s, t, count: True,
        },
    )
    assert said(exercises.nearest.check, lambda s, t, count: exercises.nearest.answer(s, t, count).int()) == "Right."


def test_frechet():
    def with_middle(middle, power=2):
        def attempt(mean1, cov1, mean2, cov2):
            between = (mean1 - mean2).abs().pow(power).sum()
            return between + cov1.trace() + cov2.trace() - middle(cov1, cov2)

        return attempt

    def middle(cov1, cov2):
        values, vectors = torch.linalg.eigh(cov1)
        root = vectors * values.clamp(min=0).sqrt() @ vectors.T
        return 2 * torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum()

    def unclamped(cov1, cov2):
        return 2 * torch.linalg.eigvals(cov1 @ cov2).real.sqrt().sum()

    def of_each_root(cov1, cov2):
        return 2 * torch.linalg.eigvalsh(cov1).sqrt().sum() * torch.linalg.eigvalsh(cov2).sqrt().sum()

    def of_two_dimensions(cov1, cov2):
        product = cov1 @ cov2
        return middle(cov1, cov2) if len(cov1) in (1, 8) else 2 * (product.trace() + 2 * product.det().sqrt()).sqrt()

    def of_known_inputs(mean1, cov1, mean2, cov2):
        return 10.0 if len(mean1) == 1 else exercises.frechet.answer(mean1, cov1, mean2, cov2)

    check_exercise(
        exercises.frechet,
        lambda mean1, cov1, mean2, cov2: None,
        {
            "must be squared": with_middle(middle, power=1),
            "counts too": lambda m1, c1, m2, c2: exercises.frechet.answer(m1, c1, m1, c2),
            "no root at the end": lambda *moments: exercises.frechet.answer(*moments) ** 0.5,
            "subtracted twice": with_middle(lambda c1, c2: middle(c1, c2) / 2),
            "is missing": with_middle(lambda c1, c2: 0),
            "its root was asked for": with_middle(lambda c1, c2: 2 * (c1 @ c2).trace()),
            "root is taken of each entry": with_middle(lambda c1, c2: 2 * (c1 @ c2).diagonal().sqrt().sum()),
            "product of the traces": with_middle(of_each_root),
            "clamp": with_middle(unclamped),
            "variances 1 and 4 give": with_middle(lambda c1, c2: 7 * middle(c1, c2)),
            "not diagonal it gives 10": lambda *moments: 10.0,
            "a number was expected": lambda m1, c1, m2, c2: torch.stack([m1, m2]),
            "for two Gaussians in": with_middle(of_two_dimensions),
            "for two Gaussians in 1 dimensions": of_known_inputs,
        },
    )
    for kind in (np.float64, np.array, lambda value: torch.tensor([[value]], dtype=torch.float64)):
        assert said(exercises.frechet.check, lambda *m, kind=kind: kind(exercises.frechet.answer(*m))) == "Right."
