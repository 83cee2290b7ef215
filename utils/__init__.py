"""The model, as the notebooks build it; each file needs only those above it, and nothing here needs `kit`.

layers, mixture            causal convolutions and the gated block; the discretized mixture of logistics
fusion, model              where a class enters; the network
device, data, cartoons     what to compute with; the data sets
sampling, classify         drawing pixel by pixel; Bayes' rule and its scores
muon, training             the optimiser; losses, steps, presets;   checkpoints, figures: weights; pictures
"""

__version__ = "2026.11.28"  # the day it was published; of several kits, the notebooks' first cell takes the newest


class UsageError(ValueError):
    """An input that the user can mend. Its text is one line: what is wrong and what to do."""
