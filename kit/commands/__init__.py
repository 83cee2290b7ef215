"""One file a command. A command is a function `run`, and its signature is its command line:

    (file, /)               an argument by its place        (*files)         one or more of them
    (split="validation")    a flag with its default         (mirror=False)   --mirror, --no-mirror
    (options: Classifier)   a flag for each field           (**given)        each field of the configs, if typed

What `--help` says of a flag is what the docstring of the function, or of the class, says under `Args:`.
"""

import argparse
import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Iterator

from utils import UsageError
from utils.model import ModelConfig

from ..runs import RunConfig

CONFIGS = (ModelConfig, RunConfig)
GIVEN_BY_DATA = "num_classes"  # the one field of them that nobody types


class Parser(argparse.ArgumentParser):
    def parse_known_args(self, args, namespace=None):  # type: ignore[override]
        return super().parse_known_args([spelled_our_way(argument) for argument in args], namespace)

    def error(self, message):
        raise UsageError(f"{message} (see {self.prog} --help)")


def spelled_our_way(argument: str) -> str:
    """W&B's agent writes --nr_filters=40 and --flip=True."""
    flag, equals, value = argument.partition("=")
    if not flag.startswith("--"):
        return argument
    flag = flag.replace("_", "-")
    if value.lower() in ("true", "false"):
        return flag if value.lower() == "true" else flag.replace("--", "--no-", 1)
    return flag + equals + value


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


def parameters(command: Callable) -> Iterator[inspect.Parameter]:
    return iter(inspect.signature(command).parameters.values())


def add_flags(parser: argparse.ArgumentParser, command: Callable) -> None:
    """Gives the parser what the command's signature says."""
    sentences, positional = documented(command), (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
    for parameter in parameters(command):
        name, kind = parameter.name, parameter.annotation
        if parameter.kind == parameter.VAR_KEYWORD:
            for config in CONFIGS:
                for field in dataclasses.fields(config):
                    if field.name != GIVEN_BY_DATA:
                        add_flag(parser, field.name, field.type, argparse.SUPPRESS, documented(config))
        elif dataclasses.is_dataclass(kind):
            for field in dataclasses.fields(kind):
                add_flag(parser, field.name, field.type, field.default, documented(kind))
        elif parameter.kind in positional:
            nargs = "+" if parameter.kind == parameter.VAR_POSITIONAL else None
            choices = typing.get_args(kind) or None
            parser.add_argument(name, nargs=nargs, choices=choices, help=sentences[name])
        else:
            add_flag(parser, name, kind, parameter.default, sentences)


def add_flag(parser: argparse.ArgumentParser, name: str, kind, default, sentences: dict[str, str]) -> None:
    """A flag of this type, required if it has no default."""
    flag, sentence = "--" + name.replace("_", "-"), sentences[name]
    required = default in (inspect.Parameter.empty, dataclasses.MISSING)
    told = not required and default not in (None, "", (), False, argparse.SUPPRESS)
    more: dict = {"required": required, "help": f"{sentence} (default: {default})" if told else sentence}
    kind = next((part for part in typing.get_args(kind) if part is not type(None)), kind)  # of `int | None`
    if kind is bool:
        more["action"] = argparse.BooleanOptionalAction
    elif default == ():  # several times
        more["action"], default = "append", []
    else:
        more["type"] = kind if kind in (int, float) else str
    if not required:
        more["default"] = default
    if kind is not bool:
        more["metavar"] = {int: "N", float: "X"}.get(kind, name.upper())
    parser.add_argument(flag, **more)


def given(values: dict) -> dict:
    """Those of a parser's values that are fields of the configs."""
    own = {field.name for config in CONFIGS for field in dataclasses.fields(config)}
    return {name: value for name, value in values.items() if name in own}


def call(command: Callable, values: dict) -> None:
    """The command, with what its parser has read."""
    places: list = []
    names: dict = {}
    for parameter in parameters(command):
        if parameter.kind == parameter.VAR_KEYWORD:
            names |= given(values)
        elif isinstance(parameter.annotation, type) and dataclasses.is_dataclass(parameter.annotation):
            fields = (field.name for field in dataclasses.fields(parameter.annotation))
            names[parameter.name] = parameter.annotation(**{name: values[name] for name in fields})
        elif parameter.kind == parameter.VAR_POSITIONAL:
            places += values[parameter.name]
        elif parameter.kind == parameter.POSITIONAL_ONLY:
            places.append(values[parameter.name])
        else:
            names[parameter.name] = values[parameter.name]
    command(*places, **names)
