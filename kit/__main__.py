"""The command line: `python -m kit COMMAND`, or by the path of this folder, from anywhere: `python .../kit COMMAND`.

What needs a package is imported inside, so that one that is missing is named in a line.
"""

import argparse
import ast
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # this kit's packages come first: the current folder may hold a `utils.py` of its own
    HERE = Path(__file__).resolve().parent
    sys.path[:] = [str(HERE.parent), *(place for place in sys.path if place != str(HERE))]
    __package__ = HERE.name

from utils import UsageError, first_process

from . import console

COMMANDS = (
    "demo", "train", "evaluate", "generate", "classify", "data", "fid", "submit", "leaderboard", "course-export",
    "sweep", "report", "page", "doctor", "release", "grade",
)  # fmt: skip
NO_MEMORY = ("out of memory", "allocate memory", "enough memory")  # CUDA's and MPS's, Linux's, Windows'


def build_parser(typed: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """It knows every command, and the flags of those that are typed: to look them up takes PyTorch."""
    from .commands import Parser, add_flags

    parser = Parser(prog="python -m kit", description="A class-conditional PixelCNN++: train, draw, classify.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = name.replace("-", "_")
        tree = ast.parse(Path(__file__).with_name("commands").joinpath(f"{module}.py").read_text(encoding="utf-8"))
        run = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "run")
        summary = str(ast.get_docstring(run)).partition("\n")[0]
        command = commands.add_parser(name, help=summary, description=summary)
        if name in typed:
            run_command = importlib.import_module(f".commands.{module}", __package__).run
            add_flags(command, run_command)
            command.set_defaults(run_command=run_command)
    return parser


def complain(text: str) -> None:
    if first_process():
        print(" ".join(map(str.strip, text.splitlines())), file=sys.stderr)


def run(argv: list[str]) -> int:
    """The exit status of a command; raises what is wrong with its input or with this machine."""
    args = build_parser(argv).parse_args(argv)  # --help ends here

    from . import distributed
    from .commands import call
    from .runs import Stopped
    from .train import Diverged

    try:
        with distributed.joined():
            call(args.run_command, vars(args))
    except Diverged as error:
        complain(f"error: {error}")
        return 1
    except Stopped as stopped:
        complain(f"stopped and saved: {stopped}; the same command with --resume goes on")
        return 0 if "time limit" in str(stopped) else 130
    return 0


def main(argv: list[str] | None = None) -> int:
    console.any_letter()
    try:
        try:
            return run(sys.argv[1:] if argv is None else argv)
        finally:
            print(end="", flush=True)  # a reader that has gone is noticed here, not at the interpreter's exit
    except UsageError as error:
        complain(f"error: {error}")
    except ImportError as error:  # a platform's own image may lack a package that only some commands need
        package = str(error.name).partition(".")[0]
        missing = "is missing" if isinstance(error, ModuleNotFoundError) else f"does not work here ({error})"
        complain(f"error: package {package!r} {missing}: {console.install()}")
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # a shell's word for it
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        complain(f"error: {where}{error.strerror or error}")
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in NO_MEMORY):
            raise
        complain("error: there is not enough memory: ask for fewer pictures at once, or a smaller model")
    except KeyboardInterrupt:
        complain("interrupted; a training run goes on from its last checkpoint with --resume")
        return 130
    return 2


if __name__ == "__main__":
    sys.exit(main())
