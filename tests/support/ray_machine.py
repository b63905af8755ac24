"""One machine of a test's Ray cluster: starts Ray's processes as ``ray start`` does, without those that only people need.

Run by `tests.support.ray_cluster` with the parameters as JSON; prints the cluster's address and stays until it is killed.
"""

from __future__ import annotations

import json
import signal
import sys

from ray._private.node import Node
from ray._private.parameter import RayParams

STARTS_MAX = 3
"""Ray gives up on a machine that takes longer than 30 s to start, as one under load may."""


def start(parameters: dict[str, object], *, head: bool) -> Node:
    """Start the machine's processes; all of them end with this one."""
    for attempt in range(STARTS_MAX):
        params = RayParams(**parameters)
        params.update_if_absent(
            include_log_monitor=False, include_dashboard=False, no_monitor=True, num_gpus=0, min_worker_port=0, max_worker_port=0
        )
        try:
            return Node(params, head=head, shutdown_at_exit=True, spawn_reaper=False)
        except Exception as error:
            print(f"attempt {attempt + 1}: {error}", file=sys.stderr, flush=True)
    sys.exit("this machine does not start")


if __name__ == "__main__":
    node = start(json.loads(sys.argv[1]), head=sys.argv[2] == "head")
    print(node.gcs_address, flush=True)
    signal.pause()
