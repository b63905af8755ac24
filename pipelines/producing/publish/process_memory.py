"""Keeps other processes of the same user out of this one's memory, where a signing key lies."""

from __future__ import annotations

import ctypes
import sys

_PR_SET_DUMPABLE = 4
"""Linux, include/uapi/linux/prctl.h."""


def close_to_others() -> None:
    """Let no process but root's trace this one, read its memory or open its files by ``/proc``; nor is its memory ever dumped to a file.

    Workers of an embedded Ray run as the same user. Processes that are started from here are not closed. Linux alone has this.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
