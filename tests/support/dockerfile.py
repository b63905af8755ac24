"""Reads a Dockerfile into stages and instructions, as far as this project's uses the format. Builds nothing, runs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

KNOWN = frozenset({"ARG", "FROM", "RUN", "COPY", "WORKDIR", "ENV", "USER", "LABEL", "ENTRYPOINT", "CMD"})
"""Instructions that this reader understands; another one is an error, not skipped."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, its continuation lines joined."""

    name: str
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Stage:
    """What stands from one FROM to the next."""

    base: str
    name: str | None
    instructions: tuple[Instruction, ...]

    def of(self, name: str) -> list[str]:
        """Return the texts of all instructions of this name."""
        return [instruction.text for instruction in self.instructions if instruction.name == name]


def parse_dockerfile(text: str) -> tuple[Stage, ...]:
    """Return the stages in order.

    Raises:
        ValueError: an instruction that this reader does not know, or one before the first FROM.
    """
    stages: list[tuple[str, str | None, list[Instruction]]] = []
    for instruction in _instructions(text):
        if instruction.name not in KNOWN:
            raise ValueError(f"line {instruction.line}: {instruction.name} is not known here")
        if instruction.name == "FROM":
            base, _, name = instruction.text.partition(" AS ")
            stages.append((base.strip(), name.strip() or None, []))
        elif not stages:
            raise ValueError(f"line {instruction.line}: {instruction.name} before the first FROM")
        else:
            stages[-1][2].append(instruction)
    return tuple(Stage(base, name, tuple(found)) for base, name, found in stages)


def _instructions(text: str) -> list[Instruction]:
    found: list[Instruction] = []
    pending = ""
    begun = 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not (line.strip() or pending):
            continue
        begun = begun if pending else number
        pending += line.strip()
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        name, _, rest = pending.partition(" ")
        found.append(Instruction(name.upper(), rest.strip(), begun))
        pending = ""
    return found


def is_ignored(path: str, patterns: list[str]) -> bool:
    """Return whether .dockerignore's patterns leave a path out of the build context; the last that matches decides."""
    ignored = False
    levels = [str(parent) for parent in reversed(PurePosixPath(path).parents) if str(parent) != "."] + [path]
    for pattern in patterns:
        negated = pattern.startswith("!")
        wanted = pattern.removeprefix("!").rstrip("/")
        if any(_matches(level, wanted) for level in levels):
            ignored = not negated
    return ignored


def _matches(level: str, pattern: str) -> bool:
    parts, wanted = level.split("/"), pattern.split("/")
    if wanted[0] == "**":
        return any(_matches("/".join(parts[start:]), "/".join(wanted[1:])) for start in range(len(parts)))
    return len(parts) == len(wanted) and all(fnmatchcase(part, want) for part, want in zip(parts, wanted, strict=True))


def read_ignore(file: Path) -> list[str]:
    """Return the patterns of a .dockerignore."""
    return [line.strip() for line in file.read_text().splitlines() if line.strip() and not line.startswith("#")]
