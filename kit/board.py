"""A class's submissions, scored and ranked on one half of the test pictures; the other half is kept for the end.

As in Kaggle's competitions: repeated attempts adapt to the half whose score is shown, and only the private half says
how good a classifier is. Which picture is in which half depends on the seed, the pictures' names and labels alone.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from utils import UsageError, composed, note
from utils.classify import score
from utils.data import UNKNOWN, read_rows
from utils.device import pick_device
from utils.pictures import find_pictures, visible

from . import leaderboard
from .console import printable
from .fid import COURSE_DIMS, COURSE_SAMPLES, check_counts, common_size, fid, find_weights
from .samples import list_samples
from .scores import sign_test, wilson_interval
from .submissions import handed_in

HYBRID = "-hybrid"  # ends the name of a team whose training also named labels
MOST_CLASSES = 1000
LARGEST_SAMPLE = 256  # pixels


@dataclass
class Team:
    """What a team has handed in: `predictions` (N,) in the order of the labels, or why there are none; `samples` is
    its folder of samples. `fid` is of so many samples."""

    name: str
    refused: str = ""
    predictions: Tensor | None = None
    claimed_fid: float | None = None
    samples: Path | None = None
    fid: float | None = None
    nr_samples: int | None = None

    @property
    def hybrid(self) -> bool:
        return self.name.casefold().endswith(HYBRID)


@dataclass(frozen=True)
class Standing:
    """A team's scores on one half: `hits` of `count` pictures. `rank` is None for who takes no part; `p_below` compares
    with the next below by a paired sign test, None for the last."""

    hits: int
    count: int
    low: float  # of the accuracy's 95 % interval (Wilson)
    high: float
    macro_f1: float
    rank: int | None = None
    p_below: float | None = None

    @property
    def accuracy(self) -> float:
        return self.hits / self.count


def read_labels(path: str | Path) -> dict[str, int]:
    """The teacher's table: rows `path,label`, with or without a header, as the course's test.csv but with the labels,
    from 0. Raises UsageError, by line, for what is none, and for the students' copy, in which labels are -1."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no file {path}: --labels takes your table of the test pictures' labels")
    leaderboard.check_size(path)
    labels: dict[str, int] = {}
    for place, (number, row) in enumerate(read_rows(path)):
        where, name, text = f"{path}, line {number}", leaderboard.plain(row[0]), row[1].strip() if len(row) == 2 else ""
        if text == str(UNKNOWN):
            raise UsageError(f"{where}: the label of {name} is {UNKNOWN}: these are the students' own copy")
        if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) < MOST_CLASSES):
            if place == 0 and not any(letter.isdigit() for letter in text) and len(row) == 2:
                continue  # a header
            shown = leaderboard.quoted(row)
            raise UsageError(f"{where}: rows are path,label with labels 0 to {MOST_CLASSES - 1}, not {shown}")
        if name in labels:
            raise UsageError(f"{where}: {name} appears twice")
        labels[name] = int(text)
    if len(labels) < 2:
        raise UsageError(f"{path} has {len(labels)} rows of pictures: two halves need at least 2")
    return labels


def public_half(labels: dict[str, int], seed: int) -> Tensor:
    """Of the pictures those that are in the public half: bool (N,). Each class is divided evenly, up to one picture,
    and so are all together."""

    def turn(place: int) -> tuple[int, bytes]:  # at random within each class
        name = names[place]
        return labels[name], hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).digest()

    names = list(labels)
    public = torch.zeros(len(names), dtype=torch.bool)
    public[torch.tensor(sorted(range(len(names)), key=turn)[::2])] = True
    return public


def read_teams(place: Path, labels: dict[str, int]) -> list[Team]:
    """Every team of the folder, by name, with its labels or with the sentence why it is refused. Raises UsageError
    where nothing is handed in at all."""
    if place.exists() and not place.is_dir():
        raise UsageError(f"{place} is no folder: SUBMISSIONS takes one with TEAM.csv or TEAM/submission.csv in it")
    found = handed_in([place], ".csv")
    root = place / "submitted" if (place / "submitted").is_dir() else place
    for path in visible(root):
        if path.is_dir() or path.suffix.lower() == ".csv":
            found.setdefault(composed(path.name if path.is_dir() else path.stem), [])
    return [read_team(name, found[name], root, labels) for name in sorted(found)]


def read_team(name: str, files: list[Path], root: Path, labels: dict[str, int]) -> Team:
    team = Team(printable(name.replace("\\", 2 * "\\")))  # two teams never become one
    if len(files) != 1:
        those = ", ".join(file.relative_to(root).as_posix() for file in files)
        team.refused = f"{len(files)} .csv files, one is due: {those}" if files else "no .csv file; links do not count"
        team.refused = printable(team.refused)
        return team
    (file,) = files
    try:
        found = leaderboard.read(file, list(labels), max(labels.values()) + 1)
        team.predictions, team.claimed_fid = torch.tensor(found.labels), found.claimed_fid
    except UsageError as error:
        team.refused = printable(str(error).replace(str(file), file.name))  # the page needs no folders of this machine
    except OSError as error:
        team.refused = printable(f"{file.name} cannot be read: {error.strerror}")
    samples = (file.with_suffix("") if file.parent == root else file.parent) / "samples"
    if samples.is_dir() and not samples.is_symlink():
        team.samples = samples
    return team


def standings(teams: Sequence[Team], truth: Tensor, half: Tensor) -> dict[str, Standing]:
    """The scores of the teams that have predictions on the pictures of a half, bool (N,), in the order of their
    accuracy and then of their names. Equals share a rank; hybrids have none and come below their equals."""
    labels, nr_classes = truth[half], int(truth.max()) + 1
    named = {team.name: team.predictions[half] for team in teams if team.predictions is not None}
    right = {name: predictions == labels for name, predictions in named.items()}
    hits = {name: int(row.sum()) for name, row in right.items()}
    out_of_rank = {team.name for team in teams if team.hybrid}
    order = sorted(named, key=lambda name: (-hits[name], name in out_of_rank, name))
    ranked = [name for name in order if name not in out_of_rank]
    below = dict(pairwise(ranked))
    found = {}
    for name in order:
        rank = p = None
        if name not in out_of_rank:
            rank = 1 + sum(hits[other] > hits[name] for other in ranked)
        if name in below:
            mine, other = right[name], right[below[name]]
            p = sign_test(int((mine & ~other).sum()), int((other & ~mine).sum()))
        macro_f1 = score(named[name], labels, nr_classes).macro_f1
        interval = wilson_interval(hits[name], len(labels))
        found[name] = Standing(hits[name], len(labels), *interval, macro_f1, rank, p)
    return found


def measure_fids(teams: Sequence[Team], reference: str | Path, progress: Callable | None = None) -> None:
    """Gives each team that has samples their FID, on the course's features. None is there, and a note, without the
    Inception weights, and for samples that are damaged, too few, or of another size than most teams'.
    Raises UsageError for a reference that is none."""
    if not Path(reference).is_dir():
        raise UsageError(f"there is no folder {reference}: --reference takes one of real pictures")
    check_counts(COURSE_DIMS, len(find_pictures(Path(reference))[0]), COURSE_DIMS, course=False)
    measured = [team for team in teams if team.predictions is not None and team.samples is not None]
    if not measured:
        note("no team has a folder samples/ with its .csv file: there is no FID")
        return
    try:
        find_weights()
    except UsageError as error:
        note(f"there is no FID: {error}")
        return
    sizes: dict[str, int] = {}
    for team in measured:
        try:
            assert team.samples
            files = list_samples(team.samples)
            team.nr_samples, sizes[team.name] = len(files), common_size(team.samples, files)
            if not 1 < sizes[team.name] <= LARGEST_SAMPLE:
                raise UsageError(f"a sample's side has 2 to {LARGEST_SAMPLE} pixels, not {sizes.pop(team.name)}")
        except (UsageError, OSError) as error:  # a folder that may not be read, say
            note(f"{team.name}: no FID: {printable(str(error))}")
    counts = Counter(sizes.values())
    usual = max(counts, key=lambda size: (counts[size], size), default=0)
    for team in measured:
        if sizes.get(team.name, usual) != usual:  # the reference is brought to it, and small pictures differ less
            size = sizes.pop(team.name)
            note(f"{team.name}: no FID: its samples are {size}x{size}, most teams' {usual}x{usual}")
        if team.name in sizes and team.samples:
            try:
                measured_fid = fid(
                    team.samples, reference, COURSE_DIMS, course=team.nr_samples == COURSE_SAMPLES, bootstrap=0,
                    resize_reference=True, device=pick_device("auto"), progress=progress,
                )  # fmt: skip
                team.fid = round(measured_fid.value, 3)
            except UsageError as error:
                note(f"{team.name}: no FID: {printable(str(error))}")
