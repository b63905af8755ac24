"""Measures a fetch for people: rates over the last seconds, what is done, how long the rest may take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from pipelines.fetching.fetch_progress import FetchProgress, FetchWatcher, SourceProgress
from pipelines.fetching.source_account import SourceAccount

PROGRESS_INTERVAL_S: Final = 0.5
"""How often an observer is called."""

RATE_WINDOW_S: Final = 5.0
"""Rates are over this long."""


class Meter:
    """Tells a watcher where a fetch stands.

    Args:
        reused: sizes of the parts that were in place before.
        wanted: sizes of the parts to fetch.
    """

    def __init__(self, accounts: Mapping[str, SourceAccount], watcher: FetchWatcher, reused: Sequence[int], wanted: Sequence[int]) -> None:
        self._accounts = accounts
        self._watcher = watcher
        self._parts_done, self._parts_total = len(reused), len(reused) + len(wanted)
        self._bytes_done, self._bytes_total = sum(reused), sum(reused) + sum(wanted)
        self._began_s = time.monotonic()
        self._told_s = 0.0
        self._samples = deque([(self._began_s, self._received())])

    def part_done(self, size: int) -> None:
        """Count a part that is in place."""
        self._parts_done += 1
        self._bytes_done += size

    def tell(self, *, last: bool = False) -> None:
        """Tell the watcher, unless it was told a moment ago."""
        now_s = time.monotonic()
        if now_s - self._told_s < PROGRESS_INTERVAL_S and not last:
            return
        self._told_s = now_s
        accounts = list(self._accounts.values())
        self._samples.append((now_s, self._received()))
        while now_s - self._samples[0][0] > RATE_WINDOW_S:
            self._samples.popleft()
        began_s, before = self._samples[0]
        seconds = max(now_s - began_s, 1e-3)
        rates = {account.source_id: (account.bytes_received - before.get(account.source_id, 0)) / seconds for account in accounts}
        rate = sum(rates.values())
        self._watcher.progress(
            FetchProgress(
                parts_done=self._parts_done,
                parts_total=self._parts_total,
                bytes_done=self._bytes_done,
                bytes_total=self._bytes_total,
                bytes_received=sum(account.bytes_received for account in accounts),
                bytes_per_s=rate,
                elapsed_s=now_s - self._began_s,
                left_s=(self._bytes_total - self._bytes_done) / rate if rate > 0 else None,
                sources=tuple(_source_progress(account, rates[account.source_id], now_s) for account in accounts),
            )
        )

    def _received(self) -> dict[str, int]:
        return {source_id: account.bytes_received for source_id, account in self._accounts.items()}


def _source_progress(account: SourceAccount, rate: float, now_s: float) -> SourceProgress:
    if account.banned is not None:
        state = "banned"
    elif account.given_up is not None:
        state = "given up"
    elif account.active:
        state = "active"
    else:
        state = "resting" if now_s < account.rests_until_s else "idle"
    return SourceProgress(account.source_id, account.parts, account.bytes_received, rate, account.active, account.errors, state)
