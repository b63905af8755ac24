"""The locks name what is installed by version and hash, and no registry."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ("constraints.txt", "examples/constraints.txt")


def _pins(lock: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Return each package's requirement and hashes, by the package's name."""
    text = re.sub(r"\\\n\s*", "", (ROOT / lock).read_text())
    found: dict[str, tuple[Requirement, list[str]]] = {}
    for line in text.splitlines():
        if not line.strip().startswith("#"):
            pin, *hashes = re.split(r"\s*--hash=", line.strip())
            requirement = Requirement(pin)
            found[canonicalize_name(requirement.name)] = (requirement, [str(one) for one in hashes])
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_pinned_by_version_and_hash(lock: str) -> None:
    """Else an installer that requires hashes refuses the whole lock."""
    for requirement, hashes in _pins(lock).values():
        assert re.fullmatch(r"==[^*]+", str(requirement.specifier)), requirement
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in hashes), requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_registry(lock: str) -> None:
    """Where packages come from is for the machine's own settings to say."""
    text = (ROOT / lock).read_text()
    assert "://" not in text and "--index-url" not in text and "--find-links" not in text


def test_the_lock_has_all_that_the_project_declares() -> None:
    """`make lock` was run after the last change of dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    declared = [
        *project["project"]["dependencies"],
        *(text for texts in (*extras.values(), project["dependency-groups"]["audit"]) for text in texts),
    ]
    pins = _pins("constraints.txt")
    for text in declared:
        requirement = Requirement(text)
        pin, _ = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(str(pin.specifier).removeprefix("=="), prereleases=True), text
