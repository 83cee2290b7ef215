from common import check_exercise

from kit.exercises import quickstart as exercises


def test_to_unit():
    wrong = {
        "byte 0 becomes 0.0000": lambda images: images / 255,
        "byte 51 becomes -0.6016": lambda images: images / 128 - 1,
        "bytes cannot hold": lambda images: images,
    }
    check_exercise(exercises.to_unit, lambda images: ..., wrong)


def test_likeliest():
    wrong = {
        "smallest": lambda nats: nats.argmin(dim=1),
        "the shape is ()": lambda nats: nats.argmax(),
        "the shape is (4,)": lambda nats: nats.argmax(dim=0),
    }
    check_exercise(exercises.likeliest, lambda nats: ..., wrong)


def test_lead():
    wrong = {
        "never negative": lambda nats: nats.topk(2, dim=1).values.diff(dim=1)[:, 0],
        "second largest": lambda nats: nats.amax(dim=1) - nats.amin(dim=1),
        "stopped with TypeError": lambda: None,
    }
    check_exercise(exercises.lead, lambda nats: ..., wrong)
