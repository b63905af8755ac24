"""The changelog has a section for each version, with a link to it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_version_that_is_built_has_a_section_with_a_date_and_every_section_a_link() -> None:
    """A release by tag refuses a version that has none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "CHANGELOG.md").read_text()
    sections = dict(re.findall(r"^## \[([^]]+)\](.*)$", text, re.MULTILINE))
    links = dict(re.findall(r"^\[([^]]+)\]: (\S+)$", text, re.MULTILINE))
    assert next(iter(sections)) == "Unreleased" and re.fullmatch(r" - 2\d{3}-\d\d-\d\d", sections[project["version"]])
    assert links.keys() == sections.keys() and all(link.startswith(f"{project['urls']['Homepage']}/") for link in links.values())
