"""What a Ray is told of the command that connects to it: its name. Ray itself would keep the whole command line, with URLs that hold keys,
in its table of jobs, for whoever may look into the cluster.

Source: Ray 2.60, python/ray/_private/worker.py (`init`) and utils.py (`get_entrypoint_name`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

ENTRYPOINT: Final = "statecast"


@contextmanager
def arguments_untold() -> Iterator[None]:
    """Let a Ray that is connected to inside be told `ENTRYPOINT` alone."""
    utils: Any = import_module("ray._private.utils")
    asked = utils.get_entrypoint_name
    utils.get_entrypoint_name = lambda: ENTRYPOINT
    try:
        yield
    finally:
        utils.get_entrypoint_name = asked
