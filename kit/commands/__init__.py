"""One file a command. A command is a function `run`, and its signature is its command line:

    (file, /)               an argument by its place        (*files)         one or more of them
    (file="", /)            one that may be missing
    (split="validation")    a flag with its default         (mirror=False)   --mirror, --no-mirror
    (options: Classifier)   a flag for each field           (**given)        each field of the configs, if typed

What `--help` says of a flag is what the docstring of the function, or of the class, says under `Args:`.
"""

import argparse
import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Collection, Iterator

from utils import UsageError, at_home

MOST = 2**31  # of whatever is counted; beyond it numbers overflow somewhere
GIVEN_BY_DATA = "num_classes"  # the one field of them that nobody types


class Parser(argparse.ArgumentParser):
    def parse_known_args(self, args, namespace=None):  # type: ignore[override]
        known = self._option_string_actions.items()
        switches = {flag for flag, action in known if isinstance(action, argparse.BooleanOptionalAction)}
        parsed, rest = super().parse_known_args([spelled_our_way(word, switches) for word in args], namespace)
        for name, value in vars(parsed).items():
            if isinstance(value, int) and name != "seed" and abs(value) >= MOST:
                self.error(f"argument --{name.replace('_', '-')}: {value} is far too large")
        return parsed, rest

    def error(self, message):
        raise UsageError(f"{message} (see {self.prog} --help)")


def spelled_our_way(argument: str, switches: Collection[str] = ()) -> str:
    """W&B's agent writes --nr_filters=40 and, of the switches, --flip=True; ~ is the user's folder, also where no shell
    has said so."""
    flag, equals, value = argument.partition("=")
    if not flag.startswith("--"):
        return at_home(argument)
    flag, value = flag.replace("_", "-"), at_home(value)
    if flag in switches and value.lower() in ("true", "false"):
        return flag if value.lower() == "true" else flag.replace("--", "--no-", 1)
    return flag + equals + value


@functools.cache
def documented(thing) -> dict[str, str]:
    """The sentences under `Args:` of its docstring, of a class also those of its bases."""
    sentences: dict[str, str] = {}
    for each in reversed(inspect.getmro(thing)) if inspect.isclass(thing) else [thing]:
        _, _, section = inspect.cleandoc(each.__doc__ or "").partition("\nArgs:\n")
        section = re.split(r"\n(?=\S)", section)[0]  # up to the next heading
        for entry in re.split(r"\n?^ {4}(?=\S)", section, flags=re.MULTILINE)[1:]:
            name, _, sentence = " ".join(entry.split()).partition(": ")
            sentences[name] = sentence.replace("`", "").replace("%", "%%")
    return sentences


def configs() -> tuple[type, ...]:
    from utils.model import ModelConfig

    from ..runs import RunConfig

    return ModelConfig, RunConfig


def flags_of(command: Callable) -> Iterator[tuple[inspect.Parameter, str, typing.Any, typing.Any, str]]:
    """For each flag the parameter that it belongs to, its name, type, default and sentence."""
    for parameter in inspect.signature(command).parameters.values():
        kind: typing.Any = parameter.annotation
        sources: tuple = ()
        if parameter.kind == parameter.VAR_KEYWORD:
            sources = configs()
        elif dataclasses.is_dataclass(kind):
            sources = (kind,)
        else:
            yield parameter, parameter.name, kind, parameter.default, documented(command)[parameter.name]
        for source in sources:
            for field in dataclasses.fields(source):
                if field.name != GIVEN_BY_DATA:
                    default = argparse.SUPPRESS if len(sources) > 1 else field.default
                    yield parameter, field.name, field.type, default, documented(source)[field.name]


def add_flags(parser: argparse.ArgumentParser, command: Callable) -> None:
    """Gives the parser what the command's signature says."""
    for parameter, name, kind, default, sentence in flags_of(command):
        if parameter.kind == parameter.VAR_POSITIONAL:
            parser.add_argument(name, nargs="+", help=sentence)
        elif parameter.kind == parameter.POSITIONAL_ONLY:
            missing = {} if default is parameter.empty else {"nargs": "?", "default": default}
            parser.add_argument(name, choices=typing.get_args(kind) or None, help=sentence, **missing)
        else:
            add_flag(parser, name, kind, default, sentence)


def add_flag(parser: argparse.ArgumentParser, name: str, kind, default, sentence: str) -> None:
    """A flag of this type, required if it has no default."""
    required = default in (inspect.Parameter.empty, dataclasses.MISSING)
    if not required and default not in (None, "", (), argparse.SUPPRESS) and default is not False:
        sentence += f" (default: {default})"
    several = default == ()
    kind = next((part for part in typing.get_args(kind) if part is not type(None)), kind)  # of `int | None`
    how: dict = {"metavar": {int: "N", float: "X"}.get(kind, name.upper()), "type": kind}
    if kind is bool:
        how = {"action": argparse.BooleanOptionalAction}
    if several:
        how["action"], default = "append", list(default)
    if not required:
        how["default"] = default
    parser.add_argument("--" + name.replace("_", "-"), required=required, help=sentence, **how)


def given(values: dict) -> dict:
    """Those of a parser's values that are fields of the configs."""
    own = {field.name for config in configs() for field in dataclasses.fields(config)}
    return {name: value for name, value in values.items() if name in own}


def call(command: Callable, values: dict) -> None:
    """The command, with what its parser has read."""
    places: list = []
    names: dict = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if parameter.kind == parameter.VAR_KEYWORD:
            names |= given(values)
        elif dataclasses.is_dataclass(parameter.annotation):
            own = {field.name: values[field.name] for field in dataclasses.fields(parameter.annotation)}
            names[name] = parameter.annotation(**own)  # type: ignore[operator]
        elif parameter.kind == parameter.VAR_POSITIONAL:
            places += values[name]
        elif parameter.kind == parameter.POSITIONAL_ONLY:
            places.append(values[name])
        else:
            names[name] = values[name]
    command(*places, **names)
