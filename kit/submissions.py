"""What a class has handed in: which file is whose."""

from collections.abc import Iterable
from pathlib import Path

from utils import UsageError, composed, note
from utils.pictures import is_visible


def handed_in(places: Iterable[str | Path], suffix: str) -> dict[str, list[Path]]:
    """The files that end in `suffix`, by student, both in the order of their names.

    A file is of the student that it is called after; of a folder, each file in it likewise, and all below one of its
    folders are of the student whom that folder is called after, as in nbgrader's `submitted/STUDENT/ASSIGNMENT/`. A
    folder that holds `submitted` stands for that one. Links are left out, with a note: they may lead to another's file.

    Raises UsageError where there is no such file or folder, or nothing in it.
    """
    found: dict[str, list[Path]] = {}
    for place in map(Path, places):
        if not place.exists():
            raise UsageError(f"there is no file or folder {place}")
        if place.is_dir() and (place / "submitted").is_dir():
            place = place / "submitted"
        files = below(place, suffix) if place.is_dir() else [place]
        if not files:
            raise UsageError(f"no {suffix} files in {place}")
        for file in files:
            within = file.relative_to(place).parts if place.is_dir() else (file.name,)
            student = composed(within[0] if len(within) > 1 else file.stem)
            found.setdefault(student, []).append(file)
    return {student: sorted(set(found[student])) for student in sorted(found)}


def below(folder: Path, suffix: str) -> list[Path]:
    """The files with this suffix in a folder and in those below it, hidden ones and links left out."""
    files, links = [], []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.suffix.lower() != suffix or not all(map(is_visible, inside.parts)):
            continue
        linked = any((folder / part).is_symlink() for part in (inside, *inside.parents[:-1]))
        if linked:
            links.append(path)
        elif path.is_file():
            files.append(path)
    if links:
        note(f"links are not followed: {links[0]}" + (f" and {len(links) - 1} more" if len(links) > 1 else ""))
    return files
