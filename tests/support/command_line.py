"""The command line as data, and the commands that a text shows, so that texts can be held to what the program takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
import typer
import yaml

from jobs.cli import app, command_names, load_command

EVERYWHERE = frozenset({"--help", "-h"})
"""Options that every command has."""


@dataclass(frozen=True, slots=True)
class ShownCommand:
    """One invocation of statecast as a text shows it."""

    command: str | None
    """None for statecast's own options."""
    options: tuple[str, ...]
    shown: str
    where: str


@cache
def commands() -> Mapping[str | None, frozenset[str]]:
    """Return all commands with their options; under None the options of statecast itself."""
    root: Any = typer.main.get_command(app)
    found: dict[str | None, frozenset[str]] = {name: _options(load_command(name)) for name in command_names()}
    found[None] = _options(root)
    found["help"] = frozenset()
    return found


def _options(command: Any) -> frozenset[str]:
    named = (option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts))
    return frozenset(option for option in named if option.startswith("-")) | EVERYWHERE


def problems(shown: ShownCommand) -> list[str]:
    """Return what of a shown command the command line does not take."""
    known = commands().get(shown.command)
    if known is None:
        return [f"{shown.where}: there is no command {shown.command}: {shown.shown}"]
    return [
        f"{shown.where}: {shown.command or 'statecast'} has no option {option}: {shown.shown}"
        for option in shown.options
        if option not in known
    ]


def shown_commands(file: Path, name: str) -> Iterator[ShownCommand]:
    """Yield every invocation of statecast that a file shows.

    In Markdown: in code, not in prose. In YAML and HCL: in arguments and scripts, and in comments between backticks. Elsewhere (shell,
    Python, unit files, Dockerfile): wherever `statecast` stands as a program, as a list of words, or between backticks.
    """
    text = file.read_text(encoding="utf-8")
    match file.suffix:
        case ".md":
            lines = list(_markdown_code(text))
        case ".yaml" | ".yml":
            lines = [*_backticked(text), *_yaml_lines(text)]
        case ".tf" | ".hcl":
            lines = [*_backticked(text), *_hcl_lines(text)]
        case ".py":
            lines = [*_backticked(text), *_python_lines(text)]
        case _:
            lines = [*_backticked(text), *(line for line in _joined(text).splitlines() if not line.lstrip().startswith(("#", ";")))]
    for line in lines:
        yield from _invocations(line, name)


def loose_options(text: str) -> Iterator[str]:
    """Yield the options that Markdown shows alone, without a command: `--read-limit` between backticks."""
    for code in re.findall(r"`(--[a-z][^`]*)`", text):
        yield re.split(r"[\s=,/]", code, maxsplit=1)[0]


# Not where the word is kubectl's namespace.
_PROGRAM = re.compile(r"(?:^|(?<!--namespace)(?<!-n)[\s=\"'$(;|&\[])(?:[\w./{}$-]*/)?statecast(?=[\s\"']+[-a-z])")


def _invocations(line: str, where: str) -> Iterator[ShownCommand]:
    for found in _PROGRAM.finditer(line):
        words = _words(line[found.end() :])
        if not words:
            continue
        command = None if words[0].startswith("-") else words[0]
        if command is not None and not re.fullmatch(r"[a-z][a-z-]*", command):
            continue
        options = tuple(word.split("=", 1)[0] for word in words if re.match(r"--?[a-z]", word))
        yield ShownCommand(command, options, f"statecast {' '.join(words)}"[:160], where)


def _words(rest: str) -> list[str]:
    """Return the words of one command, up to where the shell begins another one or a comment."""
    rest = re.split(r"\s#\s|&&|\|\||[;|>`]|\s--\s", rest.strip().lstrip("\"'"), maxsplit=1)[0]
    try:
        words = shlex.split(rest)
    except ValueError:
        words = rest.replace('"', " ").replace("'", " ").split()
    return [word.strip("[](),.:") for word in words if word.strip("[](),.:")]


def _joined(text: str) -> str:
    return re.sub(r"\\\n\s*", " ", text)


def _markdown_code(text: str) -> Iterator[str]:
    fenced = False
    for line in _joined(text).splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line
        else:
            yield from re.findall(r"`([^`]+)`", line)


def _backticked(text: str) -> Iterator[str]:
    yield from re.findall(r"`([^`\n]+)`", text)


def _yaml_lines(text: str) -> Iterator[str]:
    for document in yaml.safe_load_all(text):
        yield from _yaml_strings(document)


def _yaml_strings(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        # A container of the image without a command of its own: the arguments are statecast's.
        if node.get("image") == "statecast" and "command" not in node and "args" in node:
            yield f"statecast {shlex.join(node['args'])}"
        for value in node.values():
            yield from _yaml_strings(value)
    elif isinstance(node, list):
        if "statecast" in node:
            yield shlex.join(str(word) for word in node)
        for value in node:
            yield from _yaml_strings(value)
    elif isinstance(node, str) and "statecast " in node:
        # Patches are documents within a string; a shell command is a line of its own.
        inner = yaml.safe_load(node) if node.lstrip().startswith(("- op:", "apiVersion:")) else None
        if inner is None:
            yield from _joined(node).splitlines()
        else:
            yield from _yaml_strings(inner)


def _hcl_lines(text: str) -> Iterator[str]:
    for words, each in re.findall(r'\bargs\s*=\s*(?:concat\()?\[([^\]]*)\](?:, \[for \w+ in [\w.]+ : "([^"]*)"\]\))?', text):
        yield "statecast " + " ".join(word.strip().strip('"') for word in [*words.split(","), each])
    assert hcl2.loads(text) is not None


def _python_lines(text: str) -> Iterator[str]:
    # A list that is put together from others does not show its command.
    for words in re.findall(r"[\[(]([^\[\]()*]*[\"']statecast[\"'],[^\[\]()*]*)[\])]", text):
        yield " ".join(re.findall(r"[\"']([^\"']*)[\"']", words))
    yield from (line for line in _joined(text).splitlines() if re.match(r"\s*(?:\$ )?statecast [a-z-]", line))
