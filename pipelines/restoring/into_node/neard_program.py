"""What a given neard can do: its version and the options of its own tool for state parts, as its help says.

Runs ``--version`` and ``--help`` and nothing else.

Source: nearcore neard/src/cli.rs, StateViewerCommand; tools/state-viewer/src/{cli,state_parts}.rs, StatePartsCmd, StatePartsSubCommand.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from pipelines.execution.stop_signals import receive_signals
from schemas.errors import InvalidInputError, NodeError

ANSWER_TIMEOUT_S: Final = 60.0
"""How long ``--version`` or ``--help`` may take."""

ANSWER_BYTES_MAX: Final = 1 << 20
"""Most bytes of such an answer that are read."""

FIRST_VERSION_WITHOUT_EXTERNAL_STORAGE: Final = (2, 13)
"""From this release on neard syncs from peers only."""

_VERSION = re.compile(r"\(release (\d+)\.(\d+)(?:\.(\d+))?")
_RELEASE = re.compile(r"\(release ([^)\s]+)")
_NEEDED_LOAD_OPTIONS: Final = ("--action", "--part-id", "--state-root", "--sync-hash", "epoch-height")


class LoadWay(StrEnum):
    """How parts get into a node."""

    TOOL = "tool"
    """``neard view-state … state-parts … load``."""
    CONFIG = "config"
    """``state_sync.sync.ExternalStorage`` in config.json; the node reads the parts when it starts."""


@dataclass(frozen=True, slots=True)
class NeardProgram:
    """One neard and the way that it has."""

    path: str
    release: str
    """As it says itself."""
    version: tuple[int, int, int] | None
    """None where it has no number, as builds between releases."""
    way: LoadWay
    write_option: str | None
    """The option of ``view-state`` that lets it write; its name has changed between releases. None with `LoadWay.CONFIG`."""


def inspect_neard(path: str | Path, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> NeardProgram:
    """Ask a neard what it is.

    Args:
        answer_timeout_s: how long each of its answers may take.
    Raises:
        InvalidInputError: no program is there.
        NodeError: it is no neard, does not answer, or has neither way.
    """
    program = str(Path(path).expanduser())
    if not os.access(program, os.X_OK) or not Path(program).is_file():
        raise InvalidInputError(problem="there is no program", where=f"--neard {program}", remedy="Give the path of the node's neard.")
    answer = _answer(program, answer_timeout_s, "--version")
    release = _RELEASE.search(answer)
    if release is None:
        raise NodeError(problem=f"it does not say its version as neard does: {answer.strip()[:200]!r}", where=program)
    found = _VERSION.search(answer)
    version = None if found is None else (int(found[1]), int(found[2]), int(found[3] or 0))
    if version is not None and version[:2] < FIRST_VERSION_WITHOUT_EXTERNAL_STORAGE:
        return NeardProgram(program, release[1], version, LoadWay.CONFIG, None)
    return NeardProgram(program, release[1], version, LoadWay.TOOL, _write_option(program, release[1], answer_timeout_s))


def _write_option(program: str, release: str, timeout_s: float) -> str:
    """Return the name of the writing option, after making sure that the tool has every option that is used."""
    view_state = _answer(program, timeout_s, "view-state", "--help")
    option = next((name for name in ("--read-write", "--readwrite") if re.search(rf"{name}\b", view_state)), None)
    load = _answer(program, timeout_s, "view-state", "state-parts", "load", "--help") if "state-parts" in view_state else ""
    missing = [name for name in _NEEDED_LOAD_OPTIONS if name not in load]
    if option is None or missing:
        raise NodeError(
            problem=f"neard {release} has no tool that loads state parts as this command knows it: its help lacks "
            + ", ".join([*missing, *([] if option else ["--read-write"])]),
            where=program,
            remedy="Let the node sync from peers, or restore the state with statecast restore.",
        )
    return option


def _answer(program: str, timeout_s: float, *arguments: str) -> str:
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=receive_signals,  # noqa: PLW1509  # one system call
            )
        except OSError as error:
            raise NodeError(problem=f"it can't be run: {error.strerror}", where=program) from error
        try:
            exit_code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise NodeError(problem=f"{' '.join(arguments)} did not end within {timeout_s:.0f} s", where=program) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        text = output.read(ANSWER_BYTES_MAX).decode(errors="replace")
    if exit_code != 0:
        raise NodeError(problem=f"{' '.join(arguments)} failed with {exit_code}: {' '.join(text.split())[:200]}", where=program)
    return text
