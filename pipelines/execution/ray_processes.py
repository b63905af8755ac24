"""Ends the processes of a Ray that gave up its start: Ray itself leaves them beside the next try's, with half a gigabyte, until this one ends."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

END_TIMEOUT_S = 10.0
"""How long killed processes are waited for."""


@contextmanager
def ended_on_failure() -> Iterator[None]:
    """End the processes that Ray has begun inside, where the inside fails."""
    before = set(_begun())
    try:
        yield
    except BaseException:
        _end([process for process in _begun() if process not in before])
        raise


def _begun() -> list[psutil.Process]:
    """Return this process' children that run a program of Ray's."""
    # Not imported: what its settings are is still to be said before that.
    package = importlib.util.find_spec("ray")
    assert package is not None and package.origin is not None, "ray is installed"
    programs = os.path.dirname(package.origin)
    found = []
    for process in psutil.Process().children():
        with suppress(psutil.Error):
            if any(programs in argument for argument in process.cmdline()):
                found.append(process)
    return found


def _end(begun: list[psutil.Process]) -> None:
    ending = list(begun)
    for process in begun:
        # Looked up first: whose parent is gone can't be found any more.
        with suppress(psutil.Error):
            ending += process.children(recursive=True)
    for process in ending:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(ending, timeout=END_TIMEOUT_S)
