"""The commands that load a shard's parts, and what neard's lines say about how far it has come.

Source: nearcore tools/state-viewer/src/state_parts.rs, load_state_parts. With a state root, a sync hash and an epoch height the tool
needs nothing of the chain but the epoch's row and the shard's state header; the number of parts is the number of files in the folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.restoring.into_node.neard_program import NeardProgram
from schemas.ids import CryptoHash

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_LOADED_PART = re.compile(r"loaded a state part\b", re.IGNORECASE)
_LOADED_ALL = re.compile(r"loaded all requested state parts\b", re.IGNORECASE)
_PART_ID = re.compile(r"\bpart_id=(\d{1,9})\b")
_PANIC = re.compile(r"panicked at|^error:|\bERROR\b")


@dataclass(frozen=True, slots=True)
class ShardLoad:
    """One shard's parts for one node."""

    home: Path
    parts_root: Path
    """The folder that holds ``chain_id=…``."""
    shard_id: int
    state_root: CryptoHash
    sync_hash: CryptoHash
    epoch_height: int
    num_parts: int

    def command(self, neard: NeardProgram, part: int | None) -> tuple[str, ...]:
        """Return the command that loads one part, or all where ``part`` is None."""
        assert neard.write_option is not None, "this neard has the tool"
        one = () if part is None else ("--part-id", str(part))
        return (
            *(neard.path, "--home", str(self.home), "view-state", neard.write_option),
            *("state-parts", "--shard-id", str(self.shard_id), "--root-dir", str(self.parts_root)),
            *("load", "--action", "apply", "--state-root", str(self.state_root), "--sync-hash", str(self.sync_hash), *one),
            *("epoch-height", str(self.epoch_height)),
        )

    def commands(self, neard: NeardProgram, left: Sequence[int]) -> tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]:
        """Return the commands that load the parts that are left, each with its parts: one for all, or one a part.

        The tool takes all parts or one, so what an earlier run began is gone on with part by part.
        """
        if len(left) == self.num_parts:
            return ((self.command(neard, None), tuple(left)),) if left else ()
        return tuple((self.command(neard, part), (part,)) for part in left)


@dataclass(frozen=True, slots=True)
class LoadLine:
    """What a line of neard's says."""

    part: int | None = None
    """This part is loaded."""
    all_loaded: bool = False
    complaint: str | None = None
    """A panic or error, shortened."""


def read_load_line(line: str) -> LoadLine:
    """Understand a line of the tool's output; most say nothing."""
    text = _ANSI.sub("", line)
    if _LOADED_ALL.search(text):
        return LoadLine(all_loaded=True)
    if _LOADED_PART.search(text) and (found := _PART_ID.search(text)):
        return LoadLine(part=int(found[1]))
    return LoadLine(complaint=" ".join(text.split())[:300]) if _PANIC.search(text) else LoadLine()
