"""Terraform modules as data: variables, outputs, calls and references, read by python-hcl2. Knows no provider."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hcl2

TERRAFORM = Path(__file__).parents[2] / "infra" / "terraform"


@dataclass(frozen=True, slots=True)
class Module:
    """One folder of .tf files."""

    folder: Path
    blocks: tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...]
    """Kind, labels and body of every top-level block."""

    @property
    def name(self) -> str:
        """Path below infra/terraform."""
        return str(self.folder.relative_to(TERRAFORM))

    @property
    def text(self) -> str:
        """All its .tf files, without comments."""
        text = "\n".join(file.read_text() for file in sorted(self.folder.glob("*.tf")))
        return re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the blocks of a kind by their last label, or all labels joined by dots where there are two."""
        return {".".join(labels): body for found, labels, body in self.blocks if found == kind}

    @property
    def providers(self) -> dict[str, dict[str, str]]:
        """Required providers with source and version."""
        found: dict[str, dict[str, str]] = {}
        for body in (body for kind, _, body in self.blocks if kind == "terraform"):
            for required in body.get("required_providers", []):
                found |= {plain(name): {plain(k): plain(v) for k, v in value.items()} for name, value in _fields(required)}
        return found


def plain(value: Any) -> str:
    """Return a literal without the quotes that python-hcl2 keeps."""
    return str(value).strip('"')


def _fields(body: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((key, value) for key, value in body.items() if not key.startswith("__"))


def fields(body: dict[str, Any]) -> dict[str, Any]:
    """Return a block's own attributes and blocks."""
    return {plain(key): value for key, value in _fields(body)}


@cache
def modules() -> tuple[Module, ...]:
    """Return all modules and environments."""
    folders = sorted({file.parent for file in TERRAFORM.rglob("*.tf") if ".terraform" not in file.parts})
    return tuple(Module(folder, tuple(_blocks(folder))) for folder in folders)


def _blocks(folder: Path) -> Iterator[tuple[str, tuple[str, ...], dict[str, Any]]]:
    for file in sorted(folder.glob("*.tf")):
        for kind, bodies in fields(hcl2.loads(file.read_text())).items():
            for body in bodies:
                yield from _labelled(kind, body, 2 if kind in ("resource", "data") else 1 if kind in _ONE_LABEL else 0)


_ONE_LABEL = frozenset({"variable", "output", "module", "provider"})


def _labelled(kind: str, body: dict[str, Any], labels: int) -> Iterator[tuple[str, tuple[str, ...], dict[str, Any]]]:
    if labels == 0:
        yield kind, (), body
        return
    for label, inner in _fields(body):
        for found, rest, innermost in _labelled(kind, inner, labels - 1):
            yield found, (plain(label), *rest), innermost
