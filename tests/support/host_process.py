"""A host of two parts in a process of its own, which tells how it stands.

    python -m tests.support.host_process FOLDER

Prints its port; for each line of standard input a JSON line with how it stands; ends with standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import psutil

from pipelines.nearpeer.request_policy import RequestLimits
from pipelines.nearpeer.state_host import HostSettings
from tests.nearpeer.test_state_host import Hosting, hosting

LIMITS = RequestLimits(per_s_max=50)
"""An asker may have what the good one of a test asks for."""


def standing(one: Hosting) -> dict[str, Any]:
    """Return what the process takes, and what it counted."""
    process, host = psutil.Process(), one.host
    times = process.cpu_times()
    return {
        "rss": process.memory_info().rss,
        "descriptors": process.num_fds(),
        "cpu_s": times.user + times.system,
        "tasks": len(host._tasks),
        "neighbours": host.neighbours,
        "links": len(host._links),
        "tables": len(host._tables),
        "edges": sum(map(len, host._graphs.values())),
        "queued_bytes": host.policy._queued_bytes,
        "requests": dict(host.policy.counted),
        "messages": dict(host.messages),
    }


async def serve(folder: Path) -> None:
    """Serve until standard input ends."""
    async with hosting(folder, HostSettings(LIMITS)) as one:
        print(json.dumps({"port": one.address.port}), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(standing(one)), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
