"""Exercises of notebook 06: pictures on a sheet, what a completion is worth, nearest neighbours, Fréchet's distance."""

import torch
from torch import Tensor

from utils import mixture
from utils.checkpoints import load_model
from utils.data import to_bytes, to_float

from . import Exercise, blank, wrong_shape


class Sheet(Exercise):
    """Lay pictures out as one sheet of bytes, row by row."""

    hints = (
        "`to_bytes` of utils.data gives uint8. See the pictures as (rows, columns, 3, S, S): the sheet's height is "
        "rows then S, its width columns then S, the colour comes last. One permute, then one reshape.",
    )

    @staticmethod
    def answer(images: Tensor, columns: int) -> Tensor:
        _, colours, size, _ = images.shape
        tiles = to_bytes(images).view(-1, columns, colours, size, size)  # (R, C, 3, S, S)
        return tiles.permute(0, 3, 1, 4, 2).reshape(-1, columns * size, colours)  # (R*S, C*S, 3)

    def problem(self, attempt) -> str | None:
        size, rows, columns = 4, 2, 3
        generator = torch.Generator().manual_seed(0)
        levels = torch.randint(0, 256, (rows * columns, 3, size, size), generator=generator, dtype=torch.uint8)
        sheet = attempt(to_float(levels), columns)
        complaint = blank(sheet) or wrong_shape(sheet, (rows * size, columns * size, 3))
        if complaint:
            return complaint
        if sheet.dtype != torch.uint8:
            return f"the sheet holds {sheet.dtype}, but bytes (torch.uint8) were asked for."
        truth = torch.zeros(rows * size, columns * size, 3, dtype=torch.uint8)
        for n, picture in enumerate(levels):
            top, left = n // columns * size, n % columns * size
            truth[top : top + size, left : left + size] = picture.permute(1, 2, 0)
        difference = (sheet.int() - truth.int()).abs()
        if difference.max() == 0:
            return None
        if difference.max() == 1:
            return "some bytes are one too low: round before you cast, a cast to uint8 cuts the fraction off."
        if torch.equal(sheet, truth.flip(2)):
            return "the colours are in the order blue, green, red."
        if torch.equal(sheet, levels.reshape(sheet.shape)):
            return (
                "a reshape alone leaves the numbers in the order of memory, colour by colour: permute the axes first."
            )
        y, x, colour = difference.nonzero()[0].tolist()
        return (
            f"entry ({y}, {x}, {colour}) is {sheet[y, x, colour]}, but there picture {y // size * columns + x // size} "
            f"has {truth[y, x, colour]}: which axes become the sheet's height, and which its width?"
        )


class LogProbOfRest(Exercise):
    """The log-likelihood of the rows that were not given."""

    hints = (
        "`mixture.log_prob(model(x, y), x, reduce=False)` holds one number a pixel, (B, H, W). Keep the rows from "
        "`nr_given` on and add them up.",
    )

    @staticmethod
    @torch.no_grad()
    def answer(model, x: Tensor, y: Tensor, nr_given: int) -> Tensor:
        log_pixels = mixture.log_prob(model(x, y), x, reduce=False)  # (B, H, W)
        return log_pixels[:, nr_given:].sum(dim=(1, 2))

    def problem(self, attempt) -> str | None:
        model, nr_given = load_model("cartoons"), 12
        generator = torch.Generator().manual_seed(0)
        levels = 128 + (40 * torch.randn(2, 3, 32, 32, generator=generator)).cumsum(dim=3) / 8
        x, y = to_float(levels.round().clamp(0, 255)), torch.tensor([1, 3])
        with torch.no_grad():
            params = model(x, y).double()
            rows = torch.stack(
                [mixture.log_prob(params[:, :, i : i + 1], x[:, :, i : i + 1].double()) for i in range(32)], dim=1
            )  # (B, 32)
            for_first_label = mixture.log_prob(model(x, torch.zeros_like(y)), x, reduce=False)[:, nr_given:].sum((1, 2))
        value = attempt(model, x, y, nr_given)
        complaint = blank(value) or wrong_shape(value, (2,))
        if complaint:
            return complaint

        def equals(other: Tensor) -> bool:
            return torch.allclose(value.detach().double(), other.double(), rtol=1e-4)

        truth = rows[:, nr_given:].sum(dim=1)
        if equals(truth):
            return None
        known = {
            "all rows are in it, the given ones too": rows.sum(dim=1),
            "these are the rows that were given; the others were asked for": rows[:, :nr_given].sum(dim=1),
            "the first row that was not given is missing": rows[:, nr_given + 1 :].sum(dim=1),
            "the last row that was given is in it": rows[:, nr_given - 1 :].sum(dim=1),
            "the pixels are averaged, but log-probabilities of a whole add up": truth / (32 * (32 - nr_given)),
            "the sign is turned: a log-likelihood is below 0 here, its negative is a loss": -truth,
            "the label is not used: this is the value for class 0": for_first_label,
        }
        for sentence, other in known.items():
            if equals(other):
                return sentence + "."
        return (
            f"picture 0 gives {float(value[0]):.1f} nats, but its rows from {nr_given} on have {float(truth[0]):.1f}."
        )


class Nearest(Exercise):
    """The training pictures that are closest to each sample."""

    hints = (
        "Flatten the pictures to (N, 3*S*S) and take torch.cdist: all differences at once would be N*M*3*S*S numbers, "
        "more than your memory. Then `topk` with largest=False; its second answer holds the indices.",
    )

    @staticmethod
    def answer(samples: Tensor, training: Tensor, count: int = 3) -> Tensor:
        distances = torch.cdist(samples.flatten(1), training.flatten(1))  # (N, M)
        return distances.topk(count, largest=False).indices  # (N, count)

    def problem(self, attempt) -> str | None:
        generator = torch.Generator().manual_seed(0)
        training = torch.rand(40, 3, 4, 4, generator=generator) * 2 - 1
        samples = (training[[7, 0, 39, 21, 3]] + 0.3 * torch.randn(5, 3, 4, 4, generator=generator)).clamp(-1, 1)
        # hand-made: from a picture of zeros, one pixel far off (L2 0.9) or all a little off (L2 1.04, but L1 larger)
        samples[4] = 0
        training[10], training[11], training[12] = 0, 0.15, 0.25
        training[10, 1, 2, 2] = 0.9
        count = 3
        found = attempt(samples, training, count)
        complaint = blank(found) or wrong_shape(found, (5, count))
        if complaint:
            return complaint
        if found.is_floating_point():
            return "these are no whole numbers; the indices of the pictures were asked for, not their distances."
        difference = samples.double()[:, None] - training.double()[None]  # (5, 40, 3, 4, 4)
        l2, l1 = difference.square().sum((2, 3, 4)), difference.abs().sum((2, 3, 4))
        truth = l2.argsort(dim=1)[:, :count]
        if torch.equal(found, truth):
            return None
        if torch.equal(found, l2.argsort(dim=1, descending=True)[:, :count]):
            return "these are the pictures farthest away; topk takes the largest unless you say largest=False."
        if torch.equal(found, l1.argsort(dim=1)[:, :count]):
            return "this is the order of the L1 distance (absolute differences); L2 squares them first."
        product = samples.flatten(1) @ training.flatten(1).T
        if torch.equal(found, product.argsort(dim=1, descending=True, stable=True)[:, :count]):
            return "the largest product is not the smallest distance: a picture with large values wins it too often."
        if torch.equal(found.sort(dim=1).values, truth.sort(dim=1).values):
            return "the right pictures, but not the nearest first."
        n, k = (found != truth).nonzero()[0].tolist()
        return f"for sample {n}, neighbour {k} should be picture {truth[n, k]}, not {found[n, k]}."


class Frechet(Exercise):
    """The Fréchet distance of two Gaussians."""

    hints = (
        "The root of cov1: `values, vectors = torch.linalg.eigh(cov1)`, then vectors * sqrt(values) @ vectors.T. "
        "root @ cov2 @ root is symmetric and has the eigenvalues of cov1 @ cov2; torch.linalg.eigvalsh gives them, and "
        "the trace of a root is the sum of their roots. Clamp eigenvalues at 0: rounding makes some slightly negative.",
    )

    @staticmethod
    def answer(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
        values, vectors = torch.linalg.eigh(cov1)
        root = vectors * values.clamp(min=0).sqrt() @ vectors.T  # root @ root = cov1
        middle = torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum()
        return float((mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * middle)

    def problem(self, attempt) -> str | None:
        def number(value) -> float:
            return float(value.detach() if isinstance(value, Tensor) else value)

        def tensor(values) -> Tensor:
            return torch.tensor(values, dtype=torch.float64)

        one = [tensor([0.0]), tensor([[1.0]]), tensor([3.0]), tensor([[4.0]])]
        value = attempt(*one)
        complaint = blank(value)
        if complaint:
            return complaint
        case = "the Gaussians with means 0 and 3, variances 1 and 4"
        by_hand = f"(0 - 3)**2 + 1 + 4 - 2 * sqrt(1 * 4) = 10, not {number(value):.4g}"
        known = {
            4.0: "the difference of the means must be squared",
            1.0: "the difference of the means counts too",
            10**0.5: "no root at the end: it is the squared distance that everybody reports",
            12.0: "the root of the product is subtracted twice",
            14.0: "the root of the product of the covariances is missing",
            6.0: "the product is subtracted, but its root was asked for",
        }
        for wrong, sentence in known.items():
            if abs(number(value) - wrong) < 1e-6:
                return f"{sentence}: {case} give {by_hand}."
        if abs(number(value) - 10) > 1e-6:
            return f"{case} give {by_hand}."

        # two dimensions, covariances that do not commute: tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)) for a 2x2 matrix
        first, second, mean = tensor([[2.0, 0.6], [0.6, 1.0]]), tensor([[1.0, -0.8], [-0.8, 3.0]]), tensor([1.0, -2.0])
        product = first @ second
        middle = (product.trace() + 2 * product.det().sqrt()).sqrt()
        truth = float(5 + first.trace() + second.trace() - 2 * middle)
        value = number(attempt(tensor([0.0, 0.0]), first, mean, second))
        if not abs(value - truth) < 1e-6:
            elementwise = float(5 + first.trace() + second.trace() - 2 * product.diagonal().sqrt().sum())
            roots = [torch.linalg.eigvalsh(cov).sqrt().sum() for cov in (first, second)]
            if abs(value - elementwise) < 1e-6:
                return (
                    "the root is taken of each entry, but it is the root of a matrix: the R with R @ R = cov1 @ cov2."
                )
            if abs(value - float(5 + first.trace() + second.trace() - 2 * roots[0] * roots[1])) < 1e-6:
                return "the trace of a product is not the product of the traces."
            return f"for covariances that are not diagonal it gives {value:.4f}, but {truth:.4f} is right."

        # 4 pictures in 8 features: singular, as with real feature sets that are too small
        few = torch.randn(4, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        singular, mean = torch.cov(few.T), few.mean(dim=0)
        value = number(attempt(mean, singular, mean, singular))
        if not abs(value) < 1e-4:
            return (
                f"a Gaussian is at distance 0 from itself, but with a singular covariance (4 pictures, 8 features) it "
                f"gives {value:.4g}: rounding makes eigenvalues slightly negative; clamp them at 0 before the root."
            )
        return None


sheet = Sheet()
log_prob_of_rest = LogProbOfRest()
nearest = Nearest()
frechet = Frechet()
