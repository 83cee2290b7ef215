"""The exercises of notebook 00."""

import torch
from torch import Tensor

from . import Exercise, blank, wrong_shape


class ToUnit(Exercise):
    """From bytes to the scale that the network sees."""

    hints = (
        "0 must become -1 and 255 must become 1; what lies between is spread evenly: one division, one subtraction.",
    )

    @staticmethod
    def answer(images: Tensor) -> Tensor:
        return images.float() / 127.5 - 1

    def problem(self, attempt) -> str | None:
        images = torch.tensor([0, 1, 51, 128, 255], dtype=torch.uint8)
        expected = [-1.0, -0.992157, -0.6, 0.003922, 1.0]
        result = attempt(images)
        if sentence := blank(result) or wrong_shape(result, (5,)):
            return sentence
        if not result.is_floating_point():
            return f"the result is {result.dtype}: bytes cannot hold -0.6, so turn them into floats first."
        for byte, is_, should in zip(images.tolist(), result.tolist(), expected, strict=True):
            if abs(is_ - should) > 1e-4:
                return f"byte {byte} becomes {is_:.4f}, but it should become {should:.4f}."
        return None


class Likeliest(Exercise):
    """The label that a picture is given."""

    hints = (
        "Each row holds one picture's log-likelihood under each label. Which column is largest? See torch.argmax.",
    )

    @staticmethod
    def answer(log_likelihoods: Tensor) -> Tensor:
        return log_likelihoods.argmax(dim=1)

    def problem(self, attempt) -> str | None:
        nats = torch.tensor([[-9000.0, -9100.0, -8999.0, -9500.0], [-7000.0, -7001.0, -7600.0, -7900.0]])
        result = attempt(nats)
        if sentence := blank(result) or wrong_shape(result, (2,)):
            return sentence
        if result.tolist() == nats.argmin(dim=1).tolist():
            return "you took the smallest; a log-likelihood nearer to zero is the greater one."
        for row, (is_, should) in enumerate(zip(result.tolist(), [2, 0], strict=True)):
            if is_ != should:
                return f"picture {row} with log-likelihoods {nats[row].tolist()} should get label {should}, not {is_}."
        return None


class Lead(Exercise):
    """How sure the decision is."""

    hints = ("torch.topk(log_likelihoods, 2, dim=1).values gives the two largest of each row, in order.",)

    @staticmethod
    def answer(log_likelihoods: Tensor) -> Tensor:
        first, second = log_likelihoods.topk(2, dim=1).values.unbind(dim=1)
        return first - second

    def problem(self, attempt) -> str | None:
        nats = torch.tensor([[-9000.0, -9100.0, -8999.0, -9500.0], [-7000.0, -7010.0, -7600.0, -7900.0]])
        result = attempt(nats)
        if sentence := blank(result) or wrong_shape(result, (2,)):
            return sentence
        if (result < 0).any():
            return "a lead is never negative: take the larger minus the smaller."
        for row, (is_, should) in enumerate(zip(result.tolist(), [1.0, 10.0], strict=True)):
            if abs(is_ - should) > 1e-3:
                return (
                    f"picture {row} with log-likelihoods {nats[row].tolist()} leads by {should:.0f} nats, "
                    f"not by {is_:.0f}: compare the largest with the second largest."
                )
        return None


to_unit, likeliest, lead = ToUnit(), Likeliest(), Lead()
