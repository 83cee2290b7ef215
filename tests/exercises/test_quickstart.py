"""The exercises of notebook 00."""

import numpy as np
import torch
from common import check_exercise, said

from kit.exercises import quickstart as exercises


def test_to_unit():
    def from_darkest_to_brightest(images):
        images = images.float()
        return 2 * (images - images.min()) / (images.max() - images.min()) - 1

    wrong = {
        "byte 0 becomes 0.0000": lambda images: images / 255,
        "byte 51 becomes -0.6016": lambda images: images / 128 - 1,
        "byte 1 becomes -1.0000": lambda images: (images // 127.5) - 1,
        "bytes cannot hold": lambda images: images,
        "neither black nor white anywhere: the shape is (5,)": lambda images: torch.tensor(
            [-1.0, -0.992157, -0.6, 0.003922, 1.0]
        ),
        "neither black nor white anywhere: byte": from_darkest_to_brightest,
        "not ndarray": lambda images: images.numpy() / 127.5 - 1,
    }
    check_exercise(exercises.to_unit, lambda images: ..., wrong)
    assert said(exercises.to_unit.check, lambda images: images.double() / 127.5 - 1) == "Right."


def test_likeliest():
    def of_four(nats):
        return nats[:, :4].argmax(dim=1)

    wrong = {
        "smallest": lambda nats: nats.argmin(dim=1),
        "(2, 4) log-likelihoods: the shape is ()": lambda nats: nats.argmax(),
        "the shape is (4,)": lambda nats: nats.argmax(dim=0),
        "(1, 4) log-likelihoods: the shape is (2,)": lambda nats: torch.tensor([2, 0]),
        "should get label": of_four,
        "the index of a column": lambda nats: nats.amax(dim=1),
        "(1, 4) log-likelihoods: the shape is ()": lambda nats: nats.argmax(dim=1).squeeze(),
        "not list": lambda nats: nats.argmax(dim=1).tolist(),
    }
    check_exercise(exercises.likeliest, lambda nats: ..., wrong)
    assert said(exercises.likeliest.check, lambda nats: nats.argmax(dim=1).int()) == "Right."


def test_lead():
    def over_the_strictly_smaller(nats):
        largest = nats.amax(dim=1, keepdim=True)
        return (largest - nats.masked_fill(nats == largest, -torch.inf).amax(dim=1, keepdim=True))[:, 0]

    def of_neighbours(nats):
        return (nats[:, 0] - nats[:, 1]).abs()

    wrong = {
        "never negative": lambda nats: nats.topk(2, dim=1).values.diff(dim=1)[:, 0],
        "second largest": lambda nats: nats.amax(dim=1) - nats.amin(dim=1),
        "leads by 1.0 nats, not by 100.0": of_neighbours,
        "(1, 4) log-likelihoods: the shape is (2,)": lambda nats: torch.tensor([1.0, 10.0]),
        "leads by 0.0 nats, not by 1000.0": over_the_strictly_smaller,
        "should be (2,)": lambda nats: nats.topk(2, dim=1).values.diff(dim=1).abs(),
        "not ndarray": lambda nats: np.zeros(len(nats)),
        "stopped with TypeError": lambda: None,
    }
    check_exercise(exercises.lead, lambda nats: ..., wrong)
    assert said(exercises.lead.check, lambda nats: exercises.lead.answer(nats.float())) == "Right."
