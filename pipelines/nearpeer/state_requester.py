"""The side that asks a stock host for parts and headers: what may be asked now, and which answer belongs to which question.

A stock host answers 30 requests in 30 s for all that ask it together, and says nothing where there were more, so few are asked and silence
is a sign to pause. Source: nearcore's `chain/client/src/state_request_actor.rs`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from schemas.errors import TransientStoreError
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


Question = tuple[int, CryptoHash, int | None]
"""Shard, sync hash and part; None for the header."""


def shown_question(question: Question) -> str:
    """Return a question in words."""
    shard_id, sync_hash, part_id = question
    what = "the header" if part_id is None else f"part {part_id}"
    return f"{what} of shard {shard_id}, sync hash {CryptoHash(sync_hash)}"


@dataclass(slots=True)
class StateRequester:
    """Questions to one host."""

    where: str
    """The host, for errors."""
    per_s: float = REQUESTS_PER_S
    outstanding_max: int = OUTSTANDING_MAX
    pause_s: float = PAUSE_S
    _tokens: float = field(init=False, default=float(BURST))
    _counted_at_s: float | None = field(init=False, default=None)
    _paused_until_s: float = field(init=False, default=float("-inf"))
    _open: dict[Question, None] = field(init=False, default_factory=dict)

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

    def answer(self, response: StateResponse) -> Question | None:
        """Close the question that a response answers, and return it; None for a late answer, or one to no question.

        An empty response says that the host can't make it. It names no part: it closes the oldest question of its shard.
        """
        shard = response.shard_id, response.sync_hash
        if response.header is None and response.part is None:
            key = next((question for question in self._open if question[:2] == shard), None)
        else:
            key = (*shard, None if response.header is not None else response.part_id)
        if key is None or key not in self._open:
            return None
        del self._open[key]
        return key

    def forget(self, key: Question) -> None:
        """Close a question whose answer nobody waits for any more."""
        self._open.pop(key, None)

    def give_up(self, key: Question, waited_s: float, now_s: float) -> TransientStoreError:
        """Close a question that stayed without an answer; return what is said of it."""
        self._open.pop(key, None)
        self._paused_until_s = now_s + self.pause_s
        return self._later(f"no answer in {waited_s:g} s: the host is asked too much, or does not have it")

    def told_busy(self, key: Question, now_s: float) -> TransientStoreError:
        """Close a question that the host says it will not answer; return what is said of it."""
        self._open.pop(key, None)
        self._paused_until_s = now_s + self.pause_s
        return self._later("the host says that it is busy")

    def _later(self, problem: str) -> TransientStoreError:
        error = TransientStoreError(problem=problem, where=self.where)
        error.retry_after_s = self.pause_s
        return error

    def _count(self, now_s: float) -> None:
        since = 0.0 if self._counted_at_s is None else now_s - self._counted_at_s
        self._tokens = min(float(BURST), self._tokens + since * self.per_s)
        self._counted_at_s = now_s
