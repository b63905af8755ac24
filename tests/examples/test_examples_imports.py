"""Examples show what users may rely on: the package `statecast`, and nothing below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
BELOW = {"schemas", "pipelines", "jobs"}


@pytest.mark.parametrize("file", sorted(EXAMPLES.rglob("*.py")), ids=lambda file: file.name)
def test_an_example_imports_nothing_below_the_package(file: Path) -> None:
    """Neither at its begin nor in a function."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    assert not {module.partition(".")[0] for module in modules} & BELOW
