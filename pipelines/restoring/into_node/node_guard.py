"""Whether a node runs on a home: a process that was started with it, or one that holds its database's lock.

Only looks: takes no lock, opens no database, writes nothing.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Final

import psutil

from schemas.errors import NodeError

_FLOCK: Final = "hhqqi4x"  # struct flock on Linux: type, whence, start, length, pid


def check_not_running(home: Path, data: Path | None) -> None:
    """Refuse a node that runs.

    Args:
        home: the node's home.
        data: its database's folder; None where it has none yet.
    Raises:
        NodeError: a neard was started with this home, or the database is locked.
    """
    found = running_process(home)
    if found is not None:
        raise NodeError(problem=f"a neard runs with this home, process {found}", where=str(home), remedy="Stop the node first.")
    holder = None if data is None else lock_holder(data)
    if holder is not None:
        raise NodeError(
            problem=f"process {holder} holds the database's lock" if holder else "another process holds the database's lock",
            where=f"{data}/LOCK",
            remedy="Stop the node, or whatever has its database open.",
        )


def running_process(home: Path) -> int | None:
    """Return the process id of a neard that was started with this home; None where there is none.

    Processes of other users whose command line can't be read are told by the database's lock alone.
    """
    wanted = os.path.realpath(home)
    for process in psutil.process_iter(["pid", "name", "cmdline"]):
        command: list[str] = process.info["cmdline"] or []
        if process.pid == os.getpid() or not _is_neard(process.info["name"] or "", command):
            continue
        if os.path.realpath(_home_of(process, command)) == wanted:
            return int(process.pid)
    return None


def lock_holder(data: Path) -> int | None:
    """Return the process that holds RocksDB's lock on a database, 0 where it can't be told; None when it is free.

    RocksDB locks the whole file LOCK for writing (fcntl, F_SETLK); asking for the holder takes nothing.
    """
    try:
        descriptor = os.open(data / "LOCK", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NodeError(problem=f"the database's lock can't be looked at: {error.strerror}", where=f"{data}/LOCK") from error
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return None if kind == fcntl.F_UNLCK else max(int(pid), 0)


def _is_neard(name: str, command: list[str]) -> bool:
    return name.startswith("neard") or any(os.path.basename(argument).startswith("neard") for argument in command[:2])


def _home_of(process: psutil.Process, command: list[str]) -> str:
    """Return the home that a neard was started with: its option, its environment, or the default."""
    home = None
    for index, argument in enumerate(command):
        if argument == "--home" and index + 1 < len(command):
            home = command[index + 1]
        elif argument.startswith("--home="):
            home = argument.removeprefix("--home=")
    try:
        environment = {} if home else process.environ()
        folder = process.cwd()
    except (psutil.Error, OSError):
        environment, folder = {}, "/"
    home = home or environment.get("NEAR_HOME") or os.path.join(environment.get("HOME") or os.path.expanduser("~"), ".near")
    return os.path.join(folder, home)
