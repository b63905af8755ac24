"""Decides which part is fetched from which source, when, and what follows from each outcome. Pure: clock and randomness are handed in.

- A part goes to the source that was asked least often for it, then by nearcore's hash weighted with measured throughput
  (`pipelines.fetching.preference`), among those that are free. A source never idles while a part waits that it may have.
- A transfer that stalls is hedged: the part is also begun at another source, and the first with the right digest wins.
  When no part waits any more, transfers that another source would overtake by far are hedged too.
- A source that has brought no part yet is unproven. Its transfers are hedged, by sources that have, as soon as one would overtake them by
  far, and while they crawl they keep no other from being begun: however many sources send next to nothing, those that send go on.
- A wrong byte bans a source for the run and drops all that it is sending. Transient faults make it rest. Slowness does neither.
- A part fails when no source is left that may have it; the others go on, so that a rerun has less to do.

Nothing here reads, writes, waits or knows a thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from random import Random
from typing import Final

from pipelines.fetching.limits import FetchLimits
from pipelines.fetching.preference import priority_score, weighted_score
from pipelines.fetching.source import WantedObject
from pipelines.fetching.source_account import SourceAccount

RATE_SAMPLE_S: Final = 1.0
"""A transfer's throughput is sampled about this often."""

WAITING_LOOKED_AT_MAX: Final = 1000
"""Most waiting parts that are looked at in one go for one that a free source may have."""

UNPROVEN_PATIENCE: Final = 4
"""An unproven source may take as many times what a proven one takes for a part before others are asked too."""

TRANSFERS_PER_PART_MAX: Final = 2
"""The transfer of a part and its hedge."""


class FailureKind(StrEnum):
    """What a failed transfer means for its source."""

    TRANSIENT = "transient"
    """A transient fault."""
    ABSENT = "absent"
    """It does not have this object, or can't give it."""
    DENIED = "denied"
    """It refuses this object."""
    RANGE_REFUSED = "range_refused"
    """It does not begin in the middle; it may give the whole."""
    WRONG = "wrong"
    """It served a wrong byte."""


class _PartState(StrEnum):
    WAITING = "waiting"
    ACTIVE = "active"
    ARRIVED = "arrived"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Transfer:
    """One attempt at one part from one source."""

    transfer_id: int
    part: int
    """Index into the parts that were given."""
    source_id: str
    is_hedge: bool
    may_resume: bool
    """Bytes that an earlier attempt got from the same source may be kept."""


@dataclass(slots=True)
class _Running:
    transfer: Transfer
    began_s: float
    received: int = 0
    progressed_s: float = 0.0
    sampled_s: float = 0.0
    sampled_received: int = 0
    is_cancelled: bool = False

    def rate(self, now_s: float) -> float:
        return self.received / max(now_s - self.began_s, 1e-3)


@dataclass(slots=True)
class _Part:
    wanted: WantedObject
    state: _PartState = _PartState.WAITING
    asked: Counter[str] = field(default_factory=Counter)
    barren: Counter[str] = field(default_factory=Counter)
    excluded: set[str] = field(default_factory=set)
    running: set[int] = field(default_factory=set)
    problems: dict[str, list[str]] = field(default_factory=dict)


class Schedule:
    """The state of one fetch of many parts.

    Args:
        parts: each with shard_id, part_id and size.
        accounts: one a source; kept up to date here.
        random: for jitter.
        stored_otherwise: by part the sources that say themselves that they have other bytes: they are not asked for it.
    """

    def __init__(
        self,
        parts: Sequence[WantedObject],
        accounts: Sequence[SourceAccount],
        limits: FetchLimits,
        random: Random,
        *,
        stored_otherwise: Sequence[Set[str]] = (),
    ) -> None:
        self._parts = [_Part(part) for part in parts]
        for part, source_ids in zip(self._parts, stored_otherwise, strict=False):
            part.excluded |= source_ids
            part.problems |= {source_id: ["its own manifest lists other bytes"] for source_id in sorted(source_ids)}
        self._accounts = {account.source_id: account for account in accounts}
        self._limits = limits
        self._random = random
        self._running: dict[int, _Running] = {}
        # In the order in which parts are begun; a dict, since parts leave from its middle.
        self._waiting: dict[int, None] = dict.fromkeys(range(len(parts)))
        self._failed: dict[int, None] = {}
        self._in_flight = 0
        self._done = 0
        self._next_id = 0
        self._fastest: float | None = None

    @property
    def is_finished(self) -> bool:
        """Whether every part is done or has failed."""
        return self._done + len(self._failed) == len(self._parts)

    @property
    def failed_parts(self) -> dict[int, dict[str, list[str]]]:
        """The parts that no source could give: by index, the problems by source."""
        return {index: self._parts[index].problems for index in self._failed}

    def start(self, now_s: float) -> list[Transfer]:
        """Return the transfers to begin now."""
        begun: list[Transfer] = []
        self._fastest = self._proven_rate()
        self._hedge(now_s, begun, only_stalled=True)
        self._hedge_unproven(now_s, begun)
        for index in list(islice(self._waiting, WAITING_LOOKED_AT_MAX)):
            if self._busy(now_s) >= self._limits.connections or self._in_flight >= self._limits.parts_in_flight:
                break
            free = [account for account in self._accounts.values() if account.is_free(now_s)]
            if self._too_many_unproven():
                free = [account for account in free if account.parts]
            if not free and any(not account.is_out for account in self._accounts.values()):
                # A source will be free again. Were all sources out, the parts would fail below.
                break
            account = self._choose(index, free)
            if account is not None:
                begun.append(self._begin(index, account, now_s, is_hedge=False))
            elif self._is_hopeless(index):
                self._fail_part(index)
        if not self._waiting:
            self._hedge(now_s, begun, only_stalled=False)
        return begun

    def progressed(self, transfer_id: int, received: int, now_s: float) -> None:
        """Take note of how many bytes a transfer has brought so far, or that it is alive."""
        running = self._running[transfer_id]
        account = self._accounts[running.transfer.source_id]
        if received > running.received:
            account.bytes_received += received - running.received
            running.received = received
            running.progressed_s = now_s
        if now_s - running.sampled_s >= RATE_SAMPLE_S:
            account.measured((running.received - running.sampled_received) / (now_s - running.sampled_s))
            running.sampled_s, running.sampled_received = now_s, running.received

    def alive(self, transfer_id: int, now_s: float) -> None:
        """Take note that a transfer's source is at work, although no bytes came."""
        self._running[transfer_id].progressed_s = now_s

    def arrived(self, transfer_id: int, now_s: float) -> list[int]:
        """A part is here with the right digest. Return the transfers of the same part to cancel."""
        running = self._running[transfer_id]
        account = self._accounts[running.transfer.source_id]
        part = self._parts[running.transfer.part]
        if running.sampled_s == running.began_s:
            account.measured(running.rate(now_s))
        account.succeeded()
        assert part.state is _PartState.ACTIVE and not running.is_cancelled, part.state
        self._end(transfer_id)
        account.parts += 1
        account.bytes_used += part.wanted.size or 0
        part.state = _PartState.ARRIVED
        for overtaken in (self._running[other_id] for other_id in part.running):
            if self._crawls(overtaken, now_s):
                self._accounts[overtaken.transfer.source_id].note(
                    f"it had sent {overtaken.received} of {part.wanted.size} bytes after {now_s - overtaken.began_s:.1f} s, when another"
                    " source brought the part"
                )
        return self._cancel(set(part.running))

    def verified(self, index: int) -> None:
        """A part that had arrived is verified and has its name."""
        part = self._parts[index]
        assert part.state is _PartState.ARRIVED, part.state
        part.state = _PartState.DONE
        self._in_flight -= 1
        self._done += 1

    def cancelled(self, transfer_id: int) -> None:
        """A transfer that was to be cancelled has ended."""
        self._end(transfer_id)

    def failed(
        self, transfer_id: int, kind: FailureKind, problem: str, now_s: float, *, gained: int = 0, retry_after_s: float = 0.0
    ) -> list[int]:
        """A transfer has failed. Return the transfers to cancel: all of a source that is banned by this.

        Args:
            gained: bytes that this attempt brought and a resumed one can keep.
        """
        running = self._running[transfer_id]
        transfer, part = running.transfer, self._parts[running.transfer.part]
        account = self._accounts[transfer.source_id]
        source_id = transfer.source_id
        self._end(transfer_id)
        part.problems.setdefault(source_id, []).append(problem)
        to_cancel: list[int] = []
        match kind:
            case FailureKind.WRONG:
                account.ban(problem)
                to_cancel = self._cancel(self._live_transfers(source_id))
            case FailureKind.ABSENT:
                account.lacked(problem, self._limits, now_s)
                part.excluded.add(source_id)
            case FailureKind.DENIED:
                account.denied(problem, self._limits)
                part.excluded.add(source_id)
            case FailureKind.RANGE_REFUSED:
                account.note(problem)
                account.ranges = False
                part.barren[source_id] += 1
            case FailureKind.TRANSIENT:
                if gained:
                    account.succeeded()
                else:
                    part.barren[source_id] += 1
                account.failed(problem, retry_after_s, self._limits, now_s, self._random, began_s=running.began_s)
        if part.barren[source_id] >= self._limits.attempts_max or part.asked[source_id] >= self._limits.resumes_max:
            part.excluded.add(source_id)
        self._wait_again(transfer.part)
        return to_cancel

    def _choose(self, index: int, free: Sequence[SourceAccount]) -> SourceAccount | None:
        """Return the source to ask for a part, of those that are free; None when none of them may have it."""
        part = self._parts[index]
        usable = [account for account in free if account.source_id not in part.excluded]
        if not usable:
            return None
        # A source that was not measured yet counts as the fastest, so that it is.
        known = [account.rate for account in usable if account.rate]
        fastest = max(known, default=1.0)
        shard_id, part_id = _numbers(part.wanted)

        def rank(account: SourceAccount) -> tuple[int, float, str]:
            # A source measured at nothing keeps a small chance: it may have recovered.
            weight = fastest if account.rate is None else max(account.rate, fastest / 1000, 1e-9)
            return (
                part.asked[account.source_id],
                weighted_score(priority_score(account.source_id, shard_id, part_id), weight),
                account.source_id,
            )

        return min(usable, key=rank)

    def _hedge(self, now_s: float, begun: list[Transfer], *, only_stalled: bool) -> None:
        for running in list(self._running.values()):
            if self._busy(now_s) >= self._limits.connections:
                return
            index = running.transfer.part
            part = self._parts[index]
            if running.is_cancelled or part.state is not _PartState.ACTIVE or len(part.running) >= TRANSFERS_PER_PART_MAX:
                continue
            stalled = now_s - running.progressed_s >= self._limits.stall_s
            if only_stalled and not stalled:
                continue
            others = [
                account for account in self._accounts.values() if account.is_free(now_s) and account.source_id != running.transfer.source_id
            ]
            account = self._choose(index, others)
            if account is not None and (stalled or self._would_overtake(running, part, account, now_s)):
                begun.append(self._begin(index, account, now_s, is_hedge=True))

    def _busy(self, now_s: float) -> int:
        """Return how many transfers are moving. Stalled ones count at their source alone: a source that hangs must not keep others idle."""
        return sum(
            now_s - running.progressed_s < self._limits.stall_s and not self._crawls(running, now_s) for running in self._running.values()
        )

    def _hedge_unproven(self, now_s: float, begun: list[Transfer]) -> None:
        """Ask others for what unproven sources keep waiting for: those that are proven, or while none is and no part waits, ever more."""
        is_proven = self._fastest is not None
        has_waiting = bool(self._waiting) and self._in_flight < self._limits.parts_in_flight
        for running in list(self._running.values()):
            index = running.transfer.part
            part = self._parts[index]
            if running.is_cancelled or part.state is not _PartState.ACTIVE or not self._crawls(running, now_s):
                continue
            if self._busy(now_s) >= self._limits.connections:
                return
            sending = {self._running[transfer_id].transfer.source_id for transfer_id in part.running}
            free = [account for account in self._accounts.values() if account.is_free(now_s) and account.source_id not in sending]
            if is_proven:
                if any(self._accounts[source_id].parts for source_id in sending):
                    continue
                free = [account for account in free if account.parts]
            else:
                waits_s = now_s - min(self._running[transfer_id].began_s for transfer_id in part.running)
                if has_waiting or len(sending) >= 2.0 ** min(waits_s // self._limits.unproven_after_s, 16):
                    continue
            account = self._choose(index, free)
            if account is not None:
                begun.append(self._begin(index, account, now_s, is_hedge=True))

    def _proven_rate(self) -> float | None:
        """Return the greatest measured rate of a source that has brought a part, in bytes a second; None where none has."""
        rates = [account.rate or 0.0 for account in self._accounts.values() if account.parts and not account.is_out]
        return max(rates, default=None)

    def _too_many_unproven(self) -> bool:
        """Whether unproven sources hold so many parts that those which are proven might find none to bring."""
        if self._fastest is None:
            return False
        held = {running.transfer.part for running in self._running.values() if not self._accounts[running.transfer.source_id].parts}
        return len(held) >= max(1, self._limits.parts_in_flight // 2)

    def _crawls(self, running: _Running, now_s: float) -> bool:
        """Tell whether an unproven source's transfer is so slow that others are not to wait for it."""
        limits, age_s = self._limits, now_s - running.began_s
        size = self._parts[running.transfer.part].wanted.size
        rate = self._fastest
        patience_s = limits.unproven_after_s
        if rate and size is not None and not limits.has_rates:
            patience_s = min(patience_s, max(limits.unproven_after_min_s, UNPROVEN_PATIENCE * size / rate))
        if self._accounts[running.transfer.source_id].parts or size is None or age_s < patience_s:
            return False
        if not rate:
            # While nobody has brought anything, all are asked. Where rates are limited, nothing is known of what is slow.
            return not limits.has_rates
        left_s = (size - running.received) / max(running.rate(now_s), 1e-9)
        # What a proven source takes for the whole part is time that any source may take before it is judged.
        return age_s >= size / rate and left_s > limits.hedge_gain_min * size / rate

    def _would_overtake(self, running: _Running, part: _Part, account: SourceAccount, now_s: float) -> bool:
        """Tell whether another source should be done with the whole part long before a transfer is done with its rest."""
        if now_s - running.began_s < self._limits.hedge_after_s or not account.rate or part.wanted.size is None:
            return False
        rate = running.rate(now_s)
        left_s = (part.wanted.size - running.received) / rate if rate > 0 else float("inf")
        return left_s > self._limits.hedge_gain_min * part.wanted.size / account.rate

    def _begin(self, index: int, account: SourceAccount, now_s: float, *, is_hedge: bool) -> Transfer:
        part = self._parts[index]
        transfer = Transfer(self._next_id, index, account.source_id, is_hedge, may_resume=account.ranges)
        self._next_id += 1
        self._running[transfer.transfer_id] = _Running(transfer, now_s, progressed_s=now_s, sampled_s=now_s)
        part.running.add(transfer.transfer_id)
        part.asked[account.source_id] += 1
        account.active += 1
        if part.state is _PartState.WAITING:
            del self._waiting[index]
            part.state = _PartState.ACTIVE
            self._in_flight += 1
        return transfer

    def _end(self, transfer_id: int) -> None:
        running = self._running.pop(transfer_id)
        self._accounts[running.transfer.source_id].active -= 1
        self._parts[running.transfer.part].running.discard(transfer_id)

    def _cancel(self, transfer_ids: set[int]) -> list[int]:
        """Let transfers go: their parts no longer wait for them, their connections count until they end."""
        for transfer_id in transfer_ids:
            running = self._running[transfer_id]
            running.is_cancelled = True
            self._parts[running.transfer.part].running.discard(transfer_id)
            self._wait_again(running.transfer.part)
        return sorted(transfer_ids)

    def _wait_again(self, index: int) -> None:
        """Put a part back that is no longer being transferred."""
        part = self._parts[index]
        if part.state is _PartState.ACTIVE and not part.running:
            part.state = _PartState.WAITING
            self._waiting[index] = None
            self._in_flight -= 1

    def _is_hopeless(self, index: int) -> bool:
        excluded = self._parts[index].excluded
        return all(account.is_out or account.source_id in excluded for account in self._accounts.values())

    def _fail_part(self, index: int) -> None:
        part = self._parts[index]
        for account in self._accounts.values():
            out = account.banned or account.given_up
            if out is not None and account.source_id not in part.problems:
                part.problems[account.source_id] = [f"banned: {out}" if account.banned else f"given up: {out}"]
        part.state = _PartState.FAILED
        del self._waiting[index]
        self._failed[index] = None

    def _live_transfers(self, source_id: str) -> set[int]:
        return {
            transfer_id
            for transfer_id, running in self._running.items()
            if running.transfer.source_id == source_id and not running.is_cancelled
        }


def _numbers(wanted: WantedObject) -> tuple[int, int]:
    assert wanted.shard_id is not None and wanted.part_id is not None, "only parts are scheduled"
    return wanted.shard_id, wanted.part_id.idx
