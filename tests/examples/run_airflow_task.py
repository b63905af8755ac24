"""Loads a folder of DAGs with Airflow's own loader, and runs one task of one with other parameters. Runs where Airflow is installed.

Arguments: folder, dag id, task id, parameters as JSON. The last line printed is JSON: import errors, tasks in order, what the task gave back.
"""

import json
import sys

from airflow.dag_processing.dagbag import DagBag

folder, dag_id, task_id, parameters = sys.argv[1:]
bag = DagBag(dag_folder=folder)
dag = bag.dags[dag_id]
task = dag.get_task(task_id)
task.render_template_fields({"params": {**dag.params.dump(), **json.loads(parameters)}})
print(
    json.dumps(
        {
            "errors": {name: str(error) for name, error in bag.import_errors.items()},
            "tasks": [one.task_id for one in dag.topological_sort()],
            "max_active_runs": dag.max_active_runs,
            "catchup": dag.catchup,
            "output": task.execute({}),
        }
    )
)
