"""An Airflow DAG that publishes each epoch of a NEAR chain: put it into the DAG folder of a worker beside the node.

The truth is in the bucket: `produce --if-missing` looks there and ends at once where there is nothing to do, so the schedule may be
as tight as wanted and a run may be repeated at will. Exit code 3 means that a rerun goes on; Airflow's retries are that rerun. Exit code 11
means that there is no epoch yet, of the node or in the bucket: such a task is skipped, and no failure.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

NO_EPOCH_YET = 11

with DAG(
    dag_id="statecast",
    description="Publish the newest epoch's state parts, and drop old epochs",
    schedule=timedelta(minutes=5),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1)},
    # tables: where each epoch's decoded tables go too, as gs://my-tables/near; empty for none. `statecast gc --tables` collects them.
    params={"node_home": "/home/near/.near", "to": "gs://my-bucket/near", "tables": "", "keep_epochs": 5},
    tags=["near"],
) as dag:
    produce = BashOperator(
        task_id="produce",
        bash_command="statecast produce --node-home {{ params.node_home }} --to {{ params.to }} {% if params.tables %}--tables {{ params.tables }}{% endif %} --epoch latest --if-missing --json",
        skip_on_exit_code=NO_EPOCH_YET,
        execution_timeout=timedelta(hours=3),
    )
    collect = BashOperator(
        task_id="gc",
        bash_command="statecast gc {{ params.to }} --keep-epochs {{ params.keep_epochs }} --json",
        skip_on_exit_code=NO_EPOCH_YET,
        execution_timeout=timedelta(hours=1),
    )
    produce >> collect
