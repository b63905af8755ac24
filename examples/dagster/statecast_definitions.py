"""A Dagster job that publishes each epoch of a NEAR chain, and a backfill of older ones as partitions.

    dagster dev -f statecast_definitions.py

The truth is in the bucket, so the schedule may be as tight as wanted, and a partition may be materialised again at will.
"""

import json
import subprocess
from typing import Any

from dagster import (
    AssetExecutionContext,
    Config,
    Definitions,
    DynamicPartitionsDefinition,
    MaterializeResult,
    OpExecutionContext,
    RetryPolicy,
    ScheduleDefinition,
    asset,
    job,
    op,
)

epoch_heights = DynamicPartitionsDefinition(name="epoch_height")


class Place(Config):
    """Where epochs come from and go to."""

    node_home: str = "/home/near/.near"
    to: str = "gs://my-bucket/near"


def run_statecast(*arguments: str) -> dict[str, Any]:
    """Run the command and return its summary; a failure carries the command's own message."""
    done = subprocess.run(["statecast", *arguments, "--json"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()}")
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


@op(retry_policy=RetryPolicy(max_retries=3, delay=60))
def produce(context: OpExecutionContext, config: Place) -> None:
    """Publish the newest epoch where it is not published yet."""
    summary = run_statecast("produce", "--node-home", config.node_home, "--to", config.to, "--epoch", "latest", "--if-missing")
    context.log.info(json.dumps(summary))


@job
def publish_newest_epoch() -> None:
    """What the schedule runs."""
    produce()


@asset(partitions_def=epoch_heights, retry_policy=RetryPolicy(max_retries=3, delay=60))
def published_epoch(context: AssetExecutionContext, config: Place) -> MaterializeResult:
    """One epoch of the past: add its height as a partition and materialise it."""
    height = context.partition_key
    summary = run_statecast("backfill", "--node-home", config.node_home, "--epochs", f"{height}..{height}", "--to", config.to)
    return MaterializeResult(metadata={"summary": json.dumps(summary)})


definitions = Definitions(
    assets=[published_epoch],
    jobs=[publish_newest_epoch],
    schedules=[ScheduleDefinition(job=publish_newest_epoch, cron_schedule="*/5 * * * *")],
)
