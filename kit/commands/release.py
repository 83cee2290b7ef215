from pathlib import Path

from ..console import quoted


def run(out: str, /) -> None:
    """the kit for students, without the solutions

    Args:
        out: a folder that is new or empty.
    """
    from ..release import TESTS_LEFT_OUT, release  # it needs packages that most commands do not

    folder = Path(out).absolute()
    done = release(folder)
    print(f"{folder}: {len(done.files)} files for students")
    print(f"sealed in kit/exercises: {stems(done.sealed)}")
    print(f"notebooks cleared of outputs, solutions and the answers under Recall: {stems(done.cleared)}")
    print(f"tests left out, of what is withheld and of the kit's own size: {', '.join(TESTS_LEFT_OUT)}")
    print("Sealed is out of sight, not out of reach, so grade with the checks of this copy, the teacher's. Next:")
    print(f"    cd {quoted(folder)} && git init && git add --all && git commit -m {quoted('The kit for students')}")
    print("    git push ADDRESS HEAD:main")


def stems(names: list[str]) -> str:
    """`a, solutions/b`: files by name, without what every one has."""
    inside = [Path(*Path(name).parts[1:]).with_suffix("").as_posix() for name in names]
    return ", ".join(name.removeprefix("exercises/") for name in inside)
