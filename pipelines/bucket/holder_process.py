"""This process as a holder of claims, and whether another holder's process on this machine has ended."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from pathlib import Path
from typing import Final

from schemas.published.claim import Holder

PROC: Final = Path("/proc")


def this_holder() -> Holder:
    """Return a holder that is a new run of this process."""
    pid = os.getpid()
    host = "".join(character for character in socket.gethostname() if " " <= character <= "~")[:255]
    return Holder(host, pid, secrets.token_hex(16), this_machine(), _started(pid, PROC) or 0)


def is_gone(holder: Holder, machine: str, *, proc: Path = PROC) -> bool:
    """Return whether a holder's process has ended for certain: it was one of this machine since its boot, and is no more.

    Args:
        machine: this one.
        proc: where the system shows its processes.
    """
    if not holder.machine or holder.machine != machine:
        return False
    started = _started(holder.pid, proc)
    # /proc may hide the processes of others (hidepid): what is not seen there is gone only if no signal would reach it either.
    return started != holder.started and (started is not None or not _exists(holder.pid))


def _exists(pid: int) -> bool:
    """Return whether a process has this pid, by a signal that is checked and not sent."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        # It is another user's, so it is there.
        return True
    return True


def this_machine() -> str:
    """Return a digest of what the pids seen here are unique in; empty where the system does not tell."""
    try:
        boot, namespace = Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:32]


def _started(pid: int, proc: Path) -> int | None:
    """Return when a process began, in clock ticks since the boot; 0 when it has ended and is kept for its parent; None when none is seen.

    Source: proc(5), /proc/pid/stat, field 22; the second field may hold spaces and ends at the last parenthesis.
    """
    try:
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # A process that has ended and was not waited for yet does nothing any more.
    return 0 if fields[0] == "Z" else int(fields[19])
