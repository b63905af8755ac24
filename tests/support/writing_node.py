"""A process that keeps writing into a copied hot store, as a running node does; flushes and compactions come when a test asks for them.

Rows are written all the time, a few hundred KB a second. Files appear and vanish at a moment that the test chooses, so that one such
change runs against each of its reads, however slow the machine is.
"""

from __future__ import annotations

import itertools
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO

from pipelines.near.node.node_columns import BLOCK_HEADER, BLOCK_MISC, STATE_SYNC_HASHES
from tests.support.nodes import open_writable

PROJECT = Path(__file__).resolve().parents[2]
ROWS_PER_ROUND = 4
ROW_BYTES = 500
ROUND_S = 0.005
COMPACT_EACH = 3


class WritingNode:
    """The process, seen from the test."""

    def __init__(self, to: IO[str], said: IO[str]) -> None:
        self._to = to
        self._said = said

    def begin_change(self) -> None:
        """Ask for a flush or compaction, which begins now."""
        self._to.write("change\n")
        self._to.flush()

    def end_change(self) -> int:
        """Return when the change is done: how many rounds of rows were written so far."""
        return int(self._said.readline())


@contextmanager
def writing_node(home: Path, epoch_id: bytes, sync_hash: bytes, write_at: int) -> Iterator[WritingNode]:
    """Write into a home's hot store in another process, from before the first line of the block to its end.

    Args:
        epoch_id: with ``sync_hash`` the row that is written to StateSyncHashes with the change of number ``write_at``, from 0.
    """
    command = [sys.executable, "-m", "tests.support.writing_node", str(home), epoch_id.hex(), sync_hash.hex(), str(write_at)]
    writer = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdin is not None
    try:
        assert writer.stdout.readline() == "open\n"
        yield WritingNode(writer.stdin, writer.stdout)
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
        writer.stdin.close()


def main() -> None:
    """Write until killed."""
    home, epoch_id, sync_hash, write_at = Path(sys.argv[1]), *map(bytes.fromhex, sys.argv[2:4]), int(sys.argv[4])
    database = open_writable(home / "data")
    headers, misc, sync_hashes = (database.get_column_family(name) for name in (BLOCK_HEADER, BLOCK_MISC, STATE_SYNC_HASHES))
    print("open", flush=True)
    changes = 0
    for number in itertools.count():
        keys = [sha256(f"{number} {index}".encode()).digest() for index in range(ROWS_PER_ROUND)]
        for key in keys:
            headers[key] = key * (ROW_BYTES // len(key))
        misc[b"HEAD"] = str(number).encode()
        del headers[keys[0]]
        if select.select([sys.stdin], [], [], ROUND_S)[0]:
            if not sys.stdin.readline():
                return
            if changes == write_at:
                sync_hashes[epoch_id] = sync_hash
            if changes % COMPACT_EACH:
                headers.flush()
            else:
                # The files that a reader has just listed vanish.
                headers.compact_range(None, None)
            changes += 1
            print(number, flush=True)


if __name__ == "__main__":
    main()
