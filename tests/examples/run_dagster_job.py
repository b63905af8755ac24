"""Loads Dagster definitions, and runs their job and a partition of their asset. Runs where Dagster is installed.

Arguments: file, place as JSON, partition. The last line printed is JSON.
"""

import importlib.util
import json
import sys

from dagster import DagsterInstance, Definitions, materialize

file, place, partition = sys.argv[1:]
spec = importlib.util.spec_from_file_location("definitions", file)
assert spec is not None and spec.loader is not None
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
Definitions.validate_loadable(module.definitions)
schedules = [schedule.cron_schedule for schedule in module.definitions.get_repository_def().schedule_defs]
ran = module.publish_newest_epoch.execute_in_process(run_config={"ops": {"produce": {"config": json.loads(place)}}})
with DagsterInstance.ephemeral() as instance:
    instance.add_dynamic_partitions("epoch_height", [partition])
    made = materialize(
        [module.published_epoch],
        partition_key=partition,
        instance=instance,
        run_config={"ops": {"published_epoch": {"config": json.loads(place)}}},
    )
print(json.dumps({"schedules": schedules, "job": ran.success, "asset": made.success}))
