"""A public name stands for one thing: who searches for it finds that, and nothing else."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_two_modules_define_a_public_class_or_function_of_one_name() -> None:
    """In all that is installed."""
    modules: dict[str, list[str]] = defaultdict(list)
    for package in ("schemas", "pipelines", "jobs", "statecast"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for statement in ast.parse(path.read_bytes()).body:
                if isinstance(statement, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not statement.name.startswith("_"):
                    modules[statement.name].append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in modules.items() if len(found) > 1} == {}
