"""How a body is read: in what steps, and how slowly it may come before it is no transfer any more. No I/O."""

from __future__ import annotations

from typing import Final

from schemas.errors import TransientStoreError

READ_BYTES: Final = 256 << 10
"""Most bytes taken from a connection at once."""

BODY_GRACE_S: Final = 30.0
"""How long a body may take, however little comes of it."""

BODY_BYTES_PER_S_MIN: Final = 1 << 10
"""A body that took longer brings at least this, over all of its time: less is no transfer."""


class BodyPace:
    """Watches one body."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._waited_s = 0.0
        self._received = 0

    def take(self, received: int, waited_s: float) -> None:
        """Count bytes that came, and what was waited for them.

        Raises:
            TransientStoreError: they come so slowly that the body might never end.
        """
        self._waited_s += waited_s
        self._received += received
        if self._waited_s > BODY_GRACE_S + self._received / BODY_BYTES_PER_S_MIN:
            raise TransientStoreError(problem=f"it brought {self._received} bytes in {self._waited_s:.0f} s", where=self._where)
