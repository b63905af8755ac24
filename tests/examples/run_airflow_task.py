"""Loads a folder of DAGs with Airflow's own loader, and runs tasks of one with other parameters. Runs where Airflow is installed.

Arguments: folder, dag id, task ids with commas, parameters as JSON. The last line printed is JSON: import errors, tasks in order, what each
task gave back, or that it was skipped.
"""

import json
import sys

from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import AirflowSkipException

folder, dag_id, task_ids, parameters = sys.argv[1:]
bag = DagBag(dag_folder=folder)
dag = bag.dags[dag_id]


def _run(task_id: str) -> object:
    task = dag.get_task(task_id)
    task.render_template_fields({"params": {**dag.params.dump(), **json.loads(parameters)}})
    try:
        return task.execute({})
    except AirflowSkipException:
        return "skipped"


print(
    json.dumps(
        {
            "errors": {name: str(error) for name, error in bag.import_errors.items()},
            "tasks": [one.task_id for one in dag.topological_sort()],
            "max_active_runs": dag.max_active_runs,
            "catchup": dag.catchup,
            "outputs": [_run(task_id) for task_id in task_ids.split(",")],
        }
    )
)
