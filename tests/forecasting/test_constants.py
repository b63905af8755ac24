"""The forecast counts files and tasks as the run makes them."""

from __future__ import annotations

from pipelines.forecasting import requests, schedule, value_reads
from pipelines.sources.arrow_dataset import VALUES_FILES_READ_AT_ONCE
from pipelines.stages import export
from pipelines.stages.boundary_nodes import BOUNDARIES_PER_FILE
from pipelines.stages.record_files import RECORDS_FILE_BYTES_TARGET
from pipelines.stores import ranges


def test_the_forecast_shares_its_sizes_with_the_stages() -> None:
    """Layers keep them from importing each other, so this holds them together."""
    assert schedule.DATASET_FILE_BYTES == RECORDS_FILE_BYTES_TARGET
    assert schedule.BOUNDARIES_PER_TASK == BOUNDARIES_PER_FILE
    assert requests.RANGE_BYTES == export.RANGE_BYTES_TARGET
    assert value_reads.VALUES_TASK_BYTES == export.VALUES_TASK_BYTES_TARGET
    assert requests.RECORD_BATCH_BYTES == export.RECORD_BATCH_BYTES_MAX
    assert value_reads.VALUES_BATCH_BYTES == export.VALUES_BATCH_BYTES_MAX
    assert value_reads.READ_AHEAD_BYTES == ranges.READ_AHEAD_BYTES
    assert value_reads.FILES_READ_AT_ONCE == VALUES_FILES_READ_AT_ONCE
