"""The forecast counts files and tasks as the run makes them."""

from __future__ import annotations

from pipelines.forecasting import schedule
from pipelines.stages.boundary_nodes import BOUNDARIES_PER_FILE
from pipelines.stages.record_files import RECORDS_FILE_BYTES_TARGET


def test_the_forecast_shares_its_sizes_with_the_stages() -> None:
    """Layers keep them from importing each other, so this holds them together."""
    assert schedule.DATASET_FILE_BYTES == RECORDS_FILE_BYTES_TARGET
    assert schedule.BOUNDARIES_PER_TASK == BOUNDARIES_PER_FILE
