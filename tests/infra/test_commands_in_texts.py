"""Every command in the documents, manifests, templates and examples exists, and so do its options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.command_line import commands, loose_options, problems, shown_commands

ROOT = Path(__file__).parents[2]
TEXTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/**/*.md", "infra/**/*", "examples/**/*")
NOT_TEXTS = frozenset({".json", ".lock", ".png", ".toml", ".txt", ".pyc"})
OF_OTHERS = {
    "--write": "infra/terraform/module_tables.py",
    "--read-write": "neard view-state",
    "--constraint": "pip",
    "--memory": "ray start",
    "--object-store-memory": "ray start",
    "--resources": "ray start",
    "--submission-id": "ray job submit",
}
"""Options of other programs that documents name, by program."""


def _benchmark_options() -> set[str]:
    return {option for file in (ROOT / "benchmarks").glob("*.py") for option in re.findall(r'"(--[a-z-]+)"', file.read_text())}


def _files() -> list[Path]:
    found = {file for pattern in TEXTS for file in ROOT.glob(pattern)}
    return sorted(file for file in found if file.is_file() and file.suffix not in NOT_TEXTS and ".terraform" not in file.parts)


@pytest.mark.parametrize("file", _files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_every_command_and_option_that_a_file_shows_exists(file: Path) -> None:
    """Taken from the command line itself."""
    name = str(file.relative_to(ROOT))
    assert [problem for shown in shown_commands(file, name) for problem in problems(shown)] == []


@pytest.mark.parametrize("file", [file for file in _files() if file.suffix == ".md"], ids=lambda file: str(file.relative_to(ROOT)))
def test_options_shown_alone_exist(file: Path) -> None:
    """Of some command; whose other options are is written down."""
    known = frozenset.union(*commands().values()) | set(OF_OTHERS) | _benchmark_options()
    assert [option for option in loose_options(file.read_text()) if option not in known] == []


@pytest.mark.parametrize("file", [file for file in _files() if "ray job submit --" in file.read_text()], ids=lambda file: file.name)
def test_who_is_told_to_submit_a_job_is_told_what_that_needs(file: Path) -> None:
    """Ray's command line has no `job` without an extra of its own."""
    assert "pip install 'statecast[cluster]'" in file.read_text()


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".md", "```\nstatecast produce --wrong x\n```"),
        (".md", "So `statecast produce --wrong x` does."),
        (".md", "    $ statecast produce \\\n        --wrong x"),
        (".yaml", "image: statecast\nargs: [produce, --wrong=x]"),
        (".yaml", "command: [sh]\nargs: [--, statecast, produce, --wrong=x]"),
        (".yaml", "entrypoint: >-\n  statecast produce\n  --wrong x"),
        (".yaml", 'patch: |-\n  - op: replace\n    value: statecast produce "$X" --wrong x'),
        (".tf", 'locals {\n  args = ["produce", "--wrong", "x"]\n}'),
        (".service", "ExecStart=/opt/statecast/bin/statecast produce --wrong x"),
        ("", "RUN /opt/statecast/bin/statecast produce --wrong x"),
        (".py", 'run(["statecast", "produce", "--wrong", "x"])'),
        (".py", '"""See `statecast produce --wrong`."""'),
    ],
)
def test_a_wrong_option_is_found_in_every_kind_of_text(tmp_path: Path, suffix: str, text: str) -> None:
    """Else the tests above would pass by seeing nothing."""
    file = tmp_path / f"text{suffix}"
    file.write_text(text)
    found = [problem for shown in shown_commands(file, "text") for problem in problems(shown)]
    assert len(found) == 1 and "--wrong" in found[0]


def test_a_wrong_command_is_found(tmp_path: Path) -> None:
    """A command that does not exist is named."""
    file = tmp_path / "text.md"
    file.write_text("`statecast prodoce --to x`")
    assert ["no command prodoce" in problem for shown in shown_commands(file, "text") for problem in problems(shown)] == [True]


def test_prose_is_no_command(tmp_path: Path) -> None:
    """A sentence about statecast is not held to the command line."""
    file = tmp_path / "text.md"
    file.write_text("statecast publishes the state.")
    assert list(shown_commands(file, "text")) == []
