"""An exported epoch as a Ray dataset, and back into tables, on a real Ray."""

from __future__ import annotations

from pathlib import Path

import pytest
from ray.data.expressions import col

import statecast
from pipelines.dataset.tables.decode_tables import load_tables
from pipelines.dataset.tables.decoded_span import select
from pipelines.dataset.tables.export_tables import chosen_epoch, chosen_shards
from pipelines.dataset.tables.flat_state_datasink import FlatStateDatasink
from pipelines.dataset.tables.flat_state_datasource import FlatStateDatasource
from pipelines.dataset.tables.tables_place import open_tables
from schemas.errors import EpochNotReadyError, InvalidInputError, ObjectExistsError
from statecast.ray_data import read_flat_state, write_flat_state
from tests.support.exported import exported_localnet, tables_of_two_epochs
from tests.support.ray_cluster import ray_of_two_cores

__all__ = ["ray_of_two_cores"]
pytestmark = pytest.mark.usefixtures("ray_of_two_cores")

RECORDS = {"access_key": 862, "account": 423, "contract_code": 11, "contract_data": 641}


@pytest.mark.slow
def test_accounts_add_up_and_need_no_other_column() -> None:
    """Two columns of one kind; the sum is that of the records read without Ray."""
    rows = read_flat_state(f"dataset://{exported_localnet()}", kinds=["account"], columns=["account_id", "amount"])
    assert rows.columns() == ["account_id", "amount"]
    assert rows.count() == RECORDS["account"]
    assert rows.sum("amount") == 2950000455892380039553251686820115


def test_all_kinds_of_all_shards_are_there() -> None:
    """With the roots recomputed on Ray first."""
    rows = read_flat_state(str(exported_localnet()), columns=["shard_uid", "kind"], verify=True)
    counts: dict[str, int] = {}
    for row in rows.iter_rows():
        counts[row["kind"]] = counts.get(row["kind"], 0) + 1
    assert counts == RECORDS


def test_a_task_is_cut_from_a_file_and_knows_its_rows_and_place() -> None:
    """Ray plans by the rows and bytes that the dataset's summary tells."""
    shards = chosen_shards(str(exported_localnet()), shard_ids=[1])
    source = FlatStateDatasource(shards, select())
    (task,) = source.get_read_tasks(1)
    assert task.metadata.num_rows == 514
    assert task.metadata.input_files[0].endswith("flat_state/range-000000-0000.arrow")
    assert source.estimate_inmemory_data_size() == task.metadata.size_bytes > 0


def test_a_file_that_can_not_hold_the_kinds_is_not_read() -> None:
    """By its first and last key; the dataset is then empty."""
    shards = chosen_shards(str(exported_localnet()))
    assert not FlatStateDatasource(shards, select(kinds=["promise_yield_indices"])).get_read_tasks(4)
    assert read_flat_state(str(exported_localnet()), kinds=["promise_yield_indices"]).count() == 0


def test_a_file_that_might_hold_the_kinds_gives_an_empty_block() -> None:
    """With the columns asked for."""
    shards = chosen_shards(str(exported_localnet()), shard_ids=[1])
    (task,) = FlatStateDatasource(shards, select(kinds=["delayed_receipt"], columns=["queue_index"])).get_read_tasks(4)
    (block,) = task()
    assert block.schema.names == ["queue_index"]
    assert not block.num_rows


def test_rows_go_back_into_tables_with_the_summary_last(tmp_path: Path) -> None:
    """The sink's layout is that of the command."""
    source = str(exported_localnet())
    write_flat_state(read_flat_state(source), str(tmp_path), source=source)
    for shard in chosen_shards(source):
        tables = load_tables(shard, str(tmp_path))
        assert tables is not None and tables.complete and not tables.decode_errors
        assert sum(tables.records_by_kind().values()) == shard.summary.records
    assert open_tables(str(tmp_path)).entry.records == sum(RECORDS.values())
    with pytest.raises(ObjectExistsError):
        FlatStateDatasink(*chosen_epoch(source), str(tmp_path)).on_write_start(None)


def test_rows_may_be_filtered_before(tmp_path: Path) -> None:
    """The summary says that not all are there; a shard may have none at all."""
    source = str(exported_localnet())
    rows = read_flat_state(source).filter(expr=(col("kind") == "account") & (col("shard_uid") == "s1.v0"))
    write_flat_state(rows, str(tmp_path), source=source)
    found = [load_tables(shard, str(tmp_path)) for shard in chosen_shards(source)]
    assert [tables is not None and tables.complete for tables in found] == [False] * 4
    assert [tables is not None and list(tables.records_by_kind()) for tables in found] == [[], ["account"], [], []]
    with pytest.raises(EpochNotReadyError, match=r"Finished are 6 \(.*, not complete\)"):
        open_tables(str(tmp_path))


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Rows of a shard that is not written here; what other tasks stored is removed."""
    source = str(exported_localnet())
    with pytest.raises(InvalidInputError, match="which is not written here"):
        write_flat_state(read_flat_state(source), str(tmp_path), source=source, shard_ids=[0])
    assert not list(tmp_path.rglob("*.parquet"))


def test_rows_without_all_columns_are_refused(tmp_path: Path) -> None:
    """Before anything is written."""
    source = str(exported_localnet())
    with pytest.raises(InvalidInputError, match="no column"):
        write_flat_state(read_flat_state(source, columns=["key", "kind"]), str(tmp_path), source=source)


@pytest.mark.slow
def test_a_table_of_a_finished_epoch_is_a_dataset_of_ray() -> None:
    """That epoch's rows alone, with the columns of the path; the latest and one that is named."""
    dataset = statecast.scan(str(tables_of_two_epochs()), kind="account").ray().select_columns(["account_id", "amount"])
    assert dataset.sum("amount") == 2950000455892380039553251686820115
    older = statecast.scan(str(tables_of_two_epochs()), kind="account", epoch=0).ray().take_all()
    assert {row["epoch_height"] for row in older} == {0} and len(older) == RECORDS["account"]
