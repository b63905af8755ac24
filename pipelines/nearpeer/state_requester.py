"""The side that asks a stock host for parts and headers: what may be asked now, and which answer belongs to which question.

A stock host answers 30 requests in 30 s for all who ask it together, and says nothing where there were more, so few are asked and silence
is a sign to pause. Source: nearcore's `chain/client/src/state_request_actor.rs`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from schemas.errors import IntegrityError, ObjectNotFoundError, TransientStoreError
from schemas.ids import CryptoHash
from schemas.nearcore.peer.peer_message import DirectStateRequest
from schemas.nearcore.peer.state_response import StateResponse

REQUESTS_PER_S: Final = 0.5
"""Half of what a stock host takes of everybody."""
BURST: Final = 4
"""Questions that go out at once."""
OUTSTANDING_MAX: Final = 4
ANSWER_TIMEOUT_S: Final = 30.0
"""After which a host is throttled, or does not have it."""
PAUSE_S: Final = 30.0
"""How long a silent host is left alone."""


@dataclass(slots=True)
class StateRequester:
    """Questions to one host."""

    where: str
    """The host, for errors."""
    per_s: float = REQUESTS_PER_S
    outstanding_max: int = OUTSTANDING_MAX
    _tokens: float = field(init=False, default=float(BURST))
    _counted_at_s: float | None = field(init=False, default=None)
    _paused_until_s: float = field(init=False, default=float("-inf"))
    _open: dict[tuple[int, CryptoHash, int | None], None] = field(init=False, default_factory=dict)

    def wait_s(self, now_s: float) -> float:
        """Return how long to wait before the next question; 0 for not at all. Infinite while as many are open as may be."""
        self._count(now_s)
        if len(self._open) >= self.outstanding_max:
            return float("inf")
        return max(0.0, self._paused_until_s - now_s, (1 - self._tokens) / self.per_s)

    def ask(self, shard_id: int, sync_hash: CryptoHash, part_id: int | None, now_s: float) -> DirectStateRequest:
        """Return the question that is sent now."""
        self._count(now_s)
        self._tokens -= 1
        self._open[shard_id, sync_hash, part_id] = None
        return DirectStateRequest(shard_id, sync_hash, part_id)

    def answer(self, response: StateResponse) -> tuple[int, CryptoHash, int | None]:
        """Close the question that a response answers, and return its shard, sync hash and part.

        Raises:
            IntegrityError: nobody asked for it.
            ObjectNotFoundError: the host says that it does not have it.
        """
        if response.header is None and response.part is None:
            # Names no part: it closes the oldest question of its shard.
            keys = [key for key in self._open if key[:2] == (response.shard_id, response.sync_hash)]
            if keys:
                del self._open[keys[0]]
                raise ObjectNotFoundError(problem="the host can't make it", where=self.where)
            raise IntegrityError(problem="an empty answer to no question", where=self.where)
        key = self._key(response)
        if key not in self._open:
            raise IntegrityError(problem="an answer to no question", where=self.where)
        del self._open[key]
        return key

    def forget(self, key: tuple[int, CryptoHash, int | None]) -> None:
        """Close a question whose answer nobody waits for any more."""
        self._open.pop(key, None)

    def give_up(self, key: tuple[int, CryptoHash, int | None], waited_s: float, now_s: float) -> TransientStoreError:
        """Close a question that stayed without an answer; return what is said of it."""
        self._open.pop(key, None)
        self._paused_until_s = now_s + PAUSE_S
        error = TransientStoreError(
            problem=f"no answer in {waited_s:g} s: the host is asked too much, or does not have it", where=self.where
        )
        error.retry_after_s = PAUSE_S
        return error

    def _key(self, response: StateResponse) -> tuple[int, CryptoHash, int | None]:
        return response.shard_id, response.sync_hash, None if response.header is not None else response.part_id

    def _count(self, now_s: float) -> None:
        since = 0.0 if self._counted_at_s is None else now_s - self._counted_at_s
        self._tokens = min(float(BURST), self._tokens + since * self.per_s)
        self._counted_at_s = now_s
