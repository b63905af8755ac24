"""A Dagster job that publishes each epoch of a NEAR chain, and a backfill of older ones as partitions.

    dagster dev -f statecast_definitions.py

The schedule is on as soon as this is loaded, and starts nothing while a run is under way. Each epoch that it publishes becomes a partition;
`add_past_epochs` makes partitions of a range of heights, to be materialised. The truth is in the bucket, so the schedule may be as tight as
wanted, and a partition may be materialised again at will.
"""

import json
import re
import subprocess
from typing import Any

from dagster import (
    AssetExecutionContext,
    Config,
    DagsterRunStatus,
    DefaultScheduleStatus,
    Definitions,
    DynamicPartitionsDefinition,
    MaterializeResult,
    OpExecutionContext,
    RetryPolicy,
    RunRequest,
    RunsFilter,
    ScheduleEvaluationContext,
    SkipReason,
    asset,
    job,
    op,
    schedule,
)

PARTITIONS = "epoch_height"
NO_EPOCH_YET = 11
UNDER_WAY = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]

epoch_heights = DynamicPartitionsDefinition(name=PARTITIONS)


class Place(Config):
    """Where epochs come from and go to."""

    node_home: str = "/home/near/.near"
    to: str = "gs://my-bucket/near"
    tables: str = ""
    """Where each epoch's decoded tables go too; empty for none."""

    def options(self) -> list[str]:
        """Return the command's options for it."""
        return ["--node-home", self.node_home, "--to", self.to, *(["--tables", self.tables] if self.tables else [])]


class Heights(Config):
    """A range of epoch heights, both ends included."""

    first: int
    last: int


def run_statecast(*arguments: str) -> dict[str, Any]:
    """Run the command and return its summary, empty where there is no epoch yet; a failure carries the command's own message."""
    done = subprocess.run(["statecast", *arguments, "--json"], capture_output=True, text=True, check=False)
    if done.returncode == NO_EPOCH_YET:
        return {}
    if done.returncode != 0:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()}")
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


@op(retry_policy=RetryPolicy(max_retries=3, delay=60))
def produce(context: OpExecutionContext, config: Place) -> None:
    """Publish the newest epoch where it is not published yet."""
    summary = run_statecast("produce", *config.options(), "--epoch", "latest", "--if-missing")
    context.log.info(json.dumps(summary) if summary else "no epoch is ready")
    # Of an epoch that another producer has claimed it says no place.
    height = re.search(r"/epoch_height=([0-9]+)/", summary.get("epoch_url", ""))
    if height:
        context.instance.add_dynamic_partitions(PARTITIONS, [height[1]])


@job
def publish_newest_epoch() -> None:
    """What the schedule runs."""
    produce()


@schedule(job=publish_newest_epoch, cron_schedule="*/5 * * * *", default_status=DefaultScheduleStatus.RUNNING)
def every_five_minutes(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
    """Start a run, unless the one before is under way."""
    runs = context.instance.get_runs(RunsFilter(job_name=publish_newest_epoch.name, statuses=UNDER_WAY), limit=1)
    return SkipReason(f"run {runs[0].run_id} is under way") if runs else RunRequest()


@op
def add_heights(context: OpExecutionContext, config: Heights) -> None:
    """Make a partition of each height; those that are there stay."""
    context.instance.add_dynamic_partitions(PARTITIONS, [str(height) for height in range(config.first, config.last + 1)])


@job
def add_past_epochs() -> None:
    """Before a backfill, by hand: then materialise the partitions of `published_epoch`."""
    add_heights()


@asset(partitions_def=epoch_heights, retry_policy=RetryPolicy(max_retries=3, delay=60))
def published_epoch(context: AssetExecutionContext, config: Place) -> MaterializeResult:
    """One epoch of the past."""
    height = context.partition_key
    summary = run_statecast("backfill", *config.options(), "--epochs", f"{height}..{height}")
    return MaterializeResult(metadata={"summary": json.dumps(summary)})


definitions = Definitions(assets=[published_epoch], jobs=[publish_newest_epoch, add_past_epochs], schedules=[every_five_minutes])
