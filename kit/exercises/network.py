"""The network of notebook 03, put together from the reader's own pieces."""

import inspect
import types

from utils import model

from .pieces import take

PARTS = ("DownShiftedConv2d", "DownRightShiftedConv2d", "GatedResidualBlock", "Fusion")


def built_network() -> type[model.ConditionalPixelCNN]:
    """`ConditionalPixelCNN` of the reader's pieces, where there are any; prints whose each piece is.

    It is the text of utils/model.py, in which the names of the parts mean the reader's. The parameters have the same
    names, so weights can be loaded from one into the other.
    """
    mine = types.ModuleType("mine.model")
    mine.__package__ = model.__package__  # its imports are relative
    exec(compile(inspect.getsource(model), str(model.__file__), "exec"), mine.__dict__)
    mine.__dict__.update({name: take(name) for name in PARTS})
    mine.ConditionalPixelCNN.forward = take("network_forward")
    return mine.ConditionalPixelCNN
