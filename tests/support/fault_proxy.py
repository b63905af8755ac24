"""A proxy before an object store's server whose faults are drawn by a seed: the shares of requests that go wrong, and how."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.store_proxy import Answer, BreakAfter, BreakBefore, Delay, Fault, Request, store_proxy

UNAVAILABLE_XML = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>injected</Message></Error>"
UNAVAILABLE = Answer(503, UNAVAILABLE_XML, (("Content-Type", "application/xml"),))


@dataclass(slots=True)
class FaultPlan:
    """Which share of requests goes wrong in which way; may be changed at any time. With no shares all pass."""

    seed: int = 0
    unavailable: float = 0.0
    """503, nothing was done."""
    broken: float = 0.0
    """The connection is reset, nothing was done."""
    reply_lost: float = 0.0
    """The connection is reset after the request was carried out."""
    slow_s: float = 0.0
    """What nothing else happens to comes so much later, on the average."""
    injected: Counter[str] = field(default_factory=Counter)
    generator: random.Random = field(init=False)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.generator = random.Random(self.seed)

    def __call__(self, _request: Request) -> Fault | None:
        """Return what goes wrong with the next request."""
        shares: tuple[tuple[str, float, Fault], ...] = (
            ("unavailable", self.unavailable, UNAVAILABLE),
            ("broken", self.broken, BreakBefore()),
            ("reply lost", self.reply_lost, BreakAfter()),
        )
        with self.lock:
            dice, delay_s = self.generator.random(), self.slow_s * 2 * self.generator.random()
            for name, share, fault in shares:
                if dice < share:
                    self.injected[name] += 1
                    return fault
                dice -= share
            self.injected["none"] += 1
            return Delay(delay_s) if delay_s else None

    def quiet(self) -> None:
        """Let everything pass from now on."""
        self.unavailable = self.broken = self.reply_lost = self.slow_s = 0.0


@contextmanager
def fault_proxy(backend_url: str, plan: FaultPlan) -> Iterator[str]:
    """Run the proxy before a server; yield its URL."""
    with store_proxy(backend_url) as proxy:
        proxy.script = plan
        yield proxy.url
