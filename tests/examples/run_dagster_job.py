"""Loads Dagster definitions, and runs their job and a partition of their asset. Runs where Dagster is installed.

Arguments: file, place as JSON, partition. The last line printed is JSON.
"""

import importlib.util
import json
import sys
import tempfile

from dagster import DagsterInstance, DagsterRunStatus, Definitions, build_schedule_context, materialize

file, place, partition = sys.argv[1:]
spec = importlib.util.spec_from_file_location("definitions", file)
assert spec is not None and spec.loader is not None
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
Definitions.validate_loadable(module.definitions)
(schedule,) = module.definitions.get_repository_def().schedule_defs


def _what_starts(instance: DagsterInstance) -> str:
    return type(module.every_five_minutes(build_schedule_context(instance=instance))).__name__


# A schedule takes no instance that is in memory alone.
with tempfile.TemporaryDirectory() as folder, DagsterInstance.local_temp(folder) as instance:
    idle = _what_starts(instance)
    instance.create_run_for_job(module.publish_newest_epoch, status=DagsterRunStatus.STARTED)
    busy = _what_starts(instance)
    place_config = {"ops": {"produce": {"config": json.loads(place)}}}
    ran = module.publish_newest_epoch.execute_in_process(run_config=place_config, instance=instance)
    heights = {"first": int(partition) - 1, "last": int(partition)}
    module.add_past_epochs.execute_in_process(run_config={"ops": {"add_heights": {"config": heights}}}, instance=instance)
    made = materialize(
        [module.published_epoch],
        partition_key=partition,
        instance=instance,
        run_config={"ops": {"published_epoch": {"config": json.loads(place)}}},
    )
    partitions = sorted(instance.get_dynamic_partitions("epoch_height"))
seen = {"cron": schedule.cron_schedule, "status": schedule.default_status.value, "idle": idle, "busy": busy}
print(json.dumps({"schedule": seen, "partitions": partitions, "job": ran.success, "asset": made.success}))
