"""The head of a Ray cluster as a driver sees it: whether it is there, and how long it may be gone before the run ends.

Ray's own client waits a minute and then ends the process without a word of ours, so the head is asked by a plain connection first.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass

from schemas.errors import PartialResultError

ADDRESS_VARIABLE = "RAY_ADDRESS"
"""Environment variable that Ray sets in the jobs that are submitted to a cluster."""

HEAD_PATIENCE_S = 30.0
"""How long a run goes on while the cluster's head can't be reached. After a minute Ray ends the process, without a word of ours."""

HEAD_TIMEOUT_S = 5.0
"""How long the head may take to accept a connection."""


@dataclass(slots=True)
class RayHead:
    """The cluster's head, which knows the cluster's state: whether it is there."""

    address: str
    """Host and port; empty for the embedded Ray, whose head ends with this process."""
    lost: bool = False
    """Whether it was gone for longer than the patience."""
    _gone_since_s: float | None = None

    def is_there(self) -> bool:
        """Return whether the head accepts a connection now."""
        if not self.address:
            return True
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=HEAD_TIMEOUT_S).close()
        except OSError:
            return False
        return True

    def answers(self) -> bool:
        """Tell the same, until the patience is over.

        Raises:
            PartialResultError: the head has not been there for as long as the patience lasts.
        """
        if self.is_there():
            self._gone_since_s = None
            return True
        now = time.monotonic()
        if self._gone_since_s is None:
            self._gone_since_s = now
        gone_s = now - self._gone_since_s
        if gone_s < HEAD_PATIENCE_S:
            return False
        self.lost = True
        raise PartialResultError(
            problem=f"the head of the Ray cluster does not answer for {gone_s:.0f} s",
            where=self.address,
            remedy="What is done is kept: start the cluster again and run the same command.",
        )
