"""Makes the site's page on the command line out of the command line itself. A hook of mkdocs: see `mkdocs.yml`."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import groupby
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from jobs.cli import app, command_names, load_command

PAGE = "reference/command-line.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to those that lie in docs/."""
    files.append(File.generated(config, PAGE, content="\n".join(_page())))
    return files


def _page() -> Iterator[str]:
    root: Any = typer.main.get_command(app)
    yield "# Command line\n"
    yield "What `statecast COMMAND --help` says.\n"
    yield root.help + "\n"
    for panel, commands in groupby(map(load_command, command_names()), key=lambda command: command.rich_help_panel):
        yield f"## {panel}\n"
        for command in commands:
            yield from _command(str(command.name), command)


def _command(name: str, command: Any) -> Iterator[str]:
    context = command.make_context(name, [], resilient_parsing=True)
    yield f"### statecast {name}\n"
    yield f"```text\nstatecast {name} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    yield command.help + "\n"
    shown = [(parameter.rich_help_panel or "Options", parameter.get_help_record(context)) for parameter in command.params]
    records = [(panel, record) for panel, record in shown if record is not None]
    # A panel's options need not lie side by side in the signature; the sort keeps the order within each.
    order = list(dict.fromkeys(panel for panel, _ in records))
    for panel, group in groupby(sorted(records, key=lambda item: order.index(item[0])), key=lambda item: item[0]):
        yield f"| {panel} | |\n|---|---|"
        for _, (names, text) in group:
            yield f"| <code>{_cell(names)}</code> | {_cell(text)} |"
        yield ""


def _cell(text: str) -> str:
    # As entities, which mean the same within a table and within <code>.
    return escape(" ".join(text.split()), quote=False).replace("|", "&#124;")
