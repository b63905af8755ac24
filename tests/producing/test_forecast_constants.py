"""The forecast counts files and tasks as the run makes them."""

from __future__ import annotations

from pipelines.dataset import referenced_values
from pipelines.dataset.export import export_records as export
from pipelines.dataset.export import export_values
from pipelines.dataset.record_files import RECORDS_FILE_BYTES_TARGET
from pipelines.producing.build.boundary_nodes import BOUNDARIES_PER_FILE
from pipelines.producing.forecast import forecast_epoch as schedule
from pipelines.producing.forecast import requests, value_reads


def test_the_forecast_shares_its_sizes_with_the_stages() -> None:
    """Layers keep them from importing each other, so this holds them together."""
    assert schedule.DATASET_FILE_BYTES == RECORDS_FILE_BYTES_TARGET
    assert schedule.BOUNDARIES_PER_TASK == BOUNDARIES_PER_FILE
    assert requests.RANGE_BYTES == export.RANGE_BYTES_TARGET
    assert value_reads.VALUES_TASK_BYTES == export_values.VALUES_TASK_BYTES_TARGET
    assert value_reads.SHARING_TASK_REFERENCES == export_values.SHARING_TASK_REFERENCES
    assert requests.RECORD_BATCH_BYTES == export.RECORD_BATCH_BYTES_MAX
    assert value_reads.OWN_BATCH_BYTES == export_values.OWN_VALUES_BATCH_BYTES_MAX
    assert value_reads.SHARED_BATCH_BYTES == export_values.SHARED_VALUES_BATCH_BYTES_MAX
    assert value_reads.READS_AT_ONCE == referenced_values.VALUES_READS_AT_ONCE
    assert value_reads.READ_BYTES_MAX == referenced_values.VALUES_READ_BYTES_MAX
    assert value_reads.GAP_BYTES_MAX == referenced_values.VALUES_GAP_BYTES_MAX
