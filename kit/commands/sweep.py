import sys

from utils import UsageError

from .. import sweep
from . import Parser, add_flags, given, train


def run(file: str, /, limit: int | None = None) -> None:
    """train a grid of settings, compare them in a table and a figure

    Args:
        file: in W&B's format, as those in sweeps/.
        limit: at most N runs now; the same command goes on.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be at least 1, not {limit}")
    sys.exit(sweep.run(file, settings_of, limit))


def settings_of(flags: list[str]) -> dict:
    """The fields of the configs that `train` gets from such flags, but for those that it may change."""
    parser = Parser(prog="python -m kit train")
    add_flags(parser, train.run)
    args = vars(parser.parse_args(flags))
    model_config, config = train.configs_of(args["preset"], given(args))
    settings = model_config.to_dict() | vars(config)
    return {name: value for name, value in settings.items() if name not in train.FREE_ON_RESUME - {"epochs"}}
