"""Runs neard's tool until every part is loaded, noting each part as neard says that it has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from pipelines.restoring.into_node.import_plan import ImportPlan
from pipelines.restoring.into_node.load_command import ShardLoad, read_load_line
from pipelines.restoring.into_node.supervised_process import STOP_GRACE_S, run_supervised
from schemas.errors import NodeError, PartialResultError

SILENCE_TIMEOUT_S: Final = 1800.0
"""How long neard may say nothing; a part takes seconds, opening a large database minutes."""

_ENVIRONMENT: Final = {"RUST_LOG": "info", "NO_COLOR": "1"}
"""What a part's load says comes at level info."""

_COMPLAINTS_MAX: Final = 3


def load_parts(
    plan: ImportPlan,
    on_part: Callable[[ShardLoad, int], None],
    silence_timeout_s: float = SILENCE_TIMEOUT_S,
    stop_grace_s: float = STOP_GRACE_S,
) -> int:
    """Load all parts that are left; return how many were.

    Args:
        on_part: called for every part that neard has loaded.
    Raises:
        NodeError: neard ended well but did not say that it loaded what it was asked for, or failed before its first part.
        PartialResultError: neard failed after some parts, or said nothing for too long; a rerun goes on.
        KeyboardInterrupt: this process was asked to end; neard has ended.
    """
    done = 0
    for load, command, parts in plan.commands():
        done += _run(plan, load, command, parts, on_part=on_part, silence_timeout_s=silence_timeout_s, stop_grace_s=stop_grace_s)
    return done


def _run(
    plan: ImportPlan,
    load: ShardLoad,
    command: Sequence[str],
    parts: Sequence[int],
    *,
    on_part: Callable[[ShardLoad, int], None],
    silence_timeout_s: float,
    stop_grace_s: float,
) -> int:
    assert plan.journal is not None, "a plan with loads has a journal"
    journal, said_all, complaints = plan.journal, False, list[str]()
    left = set(parts)

    def on_line(line: str) -> None:
        nonlocal said_all
        heard = read_load_line(line)
        said_all = said_all or heard.all_loaded
        if heard.complaint is not None and len(complaints) < _COMPLAINTS_MAX:
            complaints.append(heard.complaint)
        if heard.part in left:
            assert heard.part is not None
            left.discard(heard.part)
            journal.note(load.shard_id, heard.part)
            on_part(load, heard.part)

    exit_code = run_supervised(command, on_line, silence_timeout_s, _ENVIRONMENT, stop_grace_s)
    done = len(parts) - len(left)
    where = f"shard {load.shard_id}, {' '.join(command)}"
    said = f": {'; '.join(complaints)}" if complaints else ""
    if exit_code != 0:
        ended = f"was ended by signal {-exit_code}" if exit_code < 0 else f"failed with {exit_code}"
        error = PartialResultError if done else NodeError
        raise error(
            problem=f"neard {ended} after {done} of {len(parts)} parts{said}",
            where=where,
            remedy="What is loaded is noted: the same command goes on with the rest.",
        )
    if left or not said_all:
        raise NodeError(
            problem=f"neard ended without saying that it loaded {len(left)} of {len(parts)} parts{said}",
            where=where,
            remedy="Its output is not as this command knows it, or it loaded nothing (it does so when it does not know the sync hash).",
        )
    return done
