"""A node's home to which a process of its own adds epochs, in the order in which nearcore writes them.

The process holds the hot store open for writing, as neard does. An epoch comes in two steps: first its sync hash is recorded, the old
snapshot and its record are gone, and the new snapshot's folder is there but not recorded; then the record names it.

The home is a copy of the real node's. It has the state of its last three epochs, but flat state of the newest only: the snapshots of the
older ones have the right names and the newest one's content, so these are produced by a walk over the State column.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from pipelines.near.epoch.node_context import epoch_context_from_node
from pipelines.near.node.node_columns import BLOCK_MISC, STATE_SNAPSHOT_KEY, STATE_SYNC_HASHES
from pipelines.producing.watch.watch_poll import snapshot_block
from schemas.ids import CryptoHash
from tests.support.commands import PROJECT
from tests.support.nodes import change_rows, copied, localnet_home, open_writable, snapshot_folder

HEIGHTS = (4, 5, 6)
"""Epochs that can be added, ascending."""


class GrowingNode:
    """The home and its writer."""

    def __init__(self, folder: Path) -> None:
        """Copy the home and take its epochs and its snapshot away."""
        whole = localnet_home()
        self.epochs: dict[int, dict[str, str]] = {}
        for height in HEIGHTS:
            context = epoch_context_from_node(whole, str(height))
            snapshot = snapshot_block(whole, context.sync_hash)
            self.epochs[height] = {"epoch_id": str(context.epoch_id), "sync_hash": str(context.sync_hash), "snapshot": str(snapshot)}
        self.home = copied(whole, folder)
        self.kept_snapshot = folder / "snapshot"
        snapshot_folder(self.home).parent.rename(self.kept_snapshot)
        rows: dict[bytes, bytes | None] = {CryptoHash.from_base58(epoch["epoch_id"]): None for epoch in self.epochs.values()}
        change_rows(self.home / "data", STATE_SYNC_HASHES, rows)
        change_rows(self.home / "data", BLOCK_MISC, {STATE_SNAPSHOT_KEY: None})
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the writer."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.growing_node", str(self.home), str(self.kept_snapshot)],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._say({"step": "hello"})

    def stop(self) -> None:
        """End the writer, as neard is stopped."""
        assert self._process is not None
        if self._process.stdin is not None:
            self._process.stdin.close()
        assert self._process.wait(120) == 0
        if self._process.stdout is not None:
            self._process.stdout.close()

    def begin(self, height: int) -> None:
        """Record an epoch's sync hash and begin its snapshot."""
        self._say({"step": "begin", **self.epochs[height]})

    def complete(self, height: int) -> None:
        """Record the snapshot as complete."""
        self._say({"step": "complete", **self.epochs[height]})

    def add(self, height: int) -> None:
        """Do both."""
        self.begin(height)
        self.complete(height)

    def _say(self, command: dict[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"


def _write(home: Path, kept_snapshot: Path) -> None:
    """Carry out commands from standard input."""
    database = open_writable(home / "data")
    sync_hashes, misc = database.get_column_family(STATE_SYNC_HASHES), database.get_column_family(BLOCK_MISC)
    snapshots = home / "data" / "state_snapshot"
    for line in sys.stdin:
        command = json.loads(line)
        if command["step"] == "begin":
            shutil.rmtree(snapshots, ignore_errors=True)
            del misc[STATE_SNAPSHOT_KEY]
            sync_hashes[CryptoHash.from_base58(command["epoch_id"])] = bytes(CryptoHash.from_base58(command["sync_hash"]))
            folder = snapshots / command["snapshot"]
            folder.mkdir(parents=True)
            # A RocksDB checkpoint gets its name when it is whole.
            shutil.copytree(kept_snapshot / "data", folder / "data.tmp")
            (folder / "data.tmp").rename(folder / "data")
        elif command["step"] == "complete":
            misc[STATE_SNAPSHOT_KEY] = bytes(CryptoHash.from_base58(command["snapshot"]))
        print("done", flush=True)
    sync_hashes.close()
    misc.close()
    database.close()


if __name__ == "__main__":
    _write(Path(sys.argv[1]), Path(sys.argv[2]))
