import math
import os
from dataclasses import replace

from utils import UsageError
from utils.data import number_of_classes
from utils.fusion import parse_sites
from utils.model import ModelConfig
from utils.training import check_preset

from ..console import typed
from ..distributed import say
from ..platforms import check_name, find_root, runs_folder, runs_will_vanish
from ..runs import OF_THE_RUN, RunConfig, read_config, run_configs
from ..train import train
from .demo import print_epoch

RENAMED = {"paper": "report"}  # of a preset and of its fusion: a run that began so goes on by the same words
# what does not change what has been computed; another part of the validation pictures would change what is best
FREE_ON_RESUME = OF_THE_RUN - {"validate_limit"} | {"epochs"}


def run(run: str | None = None, preset: str | None = None, resume: bool = False, minutes: float = 0, **given) -> None:
    """train a model

    Args:
        run: the run's NAME; its folder is checkpoints/runs/NAME. Only under `wandb agent` it need not be given.
        preset: settings to begin with: `cartoons` (the default), `starter`, `modern`, `best`, `best64`, `report` or
            `original`; flags change single ones.
        resume: continue where the run stopped.
        minutes: give a new run as many epochs as fit into this many minutes here, validation, saving and galleries
            included, FIDs not; 0 takes `--epochs`.
    """
    name = run or name_by_wandbs_agent()
    if not name:
        raise UsageError("the run needs a name: add --run NAME")
    check_name(name)
    if minutes and (resume or "epochs" in given or not 0 < minutes < math.inf):
        raise UsageError("--minutes, above 0, chooses the epochs of a new run: give it without --epochs and --resume")
    model_config, config = resumed(name, preset, given) if resume else configs_of(preset, given)
    if runs_will_vanish():
        say(f"warning: runs are kept in {runs_folder()}, which goes with this machine; see {typed('doctor')}")
    folder = train(model_config, config, name, resume, print_epoch, minutes)
    root = ["--data-root", config.data_root] if config.data_root else []
    say(f"done: {folder}\nnext: {typed('evaluate', '--checkpoint', name, '--dataset', config.dataset, *root)}")


def name_by_wandbs_agent() -> str:
    """SWEEP/RUN where the agent of `wandb sweep` has started this, which names no run on the line; else nothing."""
    agents = [os.environ[name] for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID") if name in os.environ]
    return "/".join(agents) if len(agents) == 2 else ""


def configs_of(preset: str | None, given: dict) -> tuple[ModelConfig, RunConfig]:
    """The configs of a new run: those of the preset, with the given fields replaced."""
    dataset = given.get("dataset", "cartoons")
    num_classes = number_of_classes(dataset, find_root(dataset, given.get("data_root")))
    return run_configs(preset or "cartoons", num_classes, **given)


def resumed(name: str, preset: str | None, given: dict) -> tuple[ModelConfig, RunConfig]:
    """The configs of a run that goes on. Raises UsageError where the given fields, or the preset's, are not its own."""
    model_config, config = read_config(name)
    stored = model_config.to_dict() | vars(config)
    wanted = given if preset is None else check_preset(RENAMED.get(preset, preset)) | given
    if "fusion" in wanted:
        sites = wanted["fusion"]
        wanted = wanted | {"fusion": list(parse_sites(RENAMED.get(sites, sites)))}
    for field, value in wanted.items():
        if field not in FREE_ON_RESUME and stored[field] != value:
            raise UsageError(f"run {name!r} began with {field} = {stored[field]!r}, it cannot resume with {value!r}")
    return model_config, replace(config, **{k: v for k, v in given.items() if k in FREE_ON_RESUME})
