"""The modules' READMEs have the tables of what they take and give, as the files have it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "infra" / "terraform" / "module_tables.py"
_specification = importlib.util.spec_from_file_location("module_tables", SCRIPT)
assert _specification is not None and _specification.loader is not None
module_tables = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(module_tables)


@pytest.mark.parametrize("folder", module_tables.module_folders(), ids=lambda folder: folder.name)
def test_the_tables_are_those_of_the_files(folder: Path) -> None:
    """`python infra/terraform/module_tables.py --write` makes them."""
    assert (folder / "README.md").read_text() == module_tables.with_tables(folder)


def test_a_default_of_several_lines_is_shown_whole() -> None:
    """In one line, as it is written."""
    folder = next(folder for folder in module_tables.module_folders() if folder.name == "gke")
    assert 'recurrence = "FREQ=WEEKLY;BYDAY=SA,SU" }`' in module_tables.tables(folder)
