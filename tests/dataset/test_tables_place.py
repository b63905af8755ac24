"""Places of decoded tables: which epochs are finished there, what is refused, what is selected, and how little a look-up reads."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.dataset.export.export_records import store_summary
from pipelines.dataset.tables import decode_tables
from pipelines.dataset.tables.decode_tables import plan_tables
from pipelines.dataset.tables.decoded_span import DecodedSpan
from pipelines.dataset.tables.table_writer import ROW_GROUP_BYTES_MAX
from pipelines.dataset.tables.tables_place import FinishedTables, open_tables
from pipelines.stores.open_store import open_store
from schemas.dataset.tables_selection import TablesSelection
from schemas.errors import DatasetError, EpochNotReadyError, InvalidInputError, StoreFullError
from schemas.ids import CryptoHash
from schemas.nearcore.trie_key import TrieKeyKind, contract_data_key, parse_trie_key
from tests.support.records import Pairs
from tests.support.small_tables import exported, new_url, objects, pairs_of, written
from tests.support.state_records import state_records


def rolled_forward(older: ShardDataset, newer: ShardDataset, places: Sequence[int]) -> ShardDataset:
    """Return a dataset in which some files are the older one's, as a roll forward leaves what did not change."""
    store, summary = open_store(newer.url), newer.summary
    files = list(summary.files)
    for place in places:
        files[place] = older.summary.files[place]
        data = open_store(older.url).get(f"{older.folder}/{files[place].name}", 0, files[place].size)
        store.put(f"{newer.folder}/{files[place].name}", data)
    return store_summary(newer.url, replace(summary, files=tuple(files)))


def rows_of(tables: FinishedTables, kind: str | None = None) -> list[dict[str, object]]:
    """Return the rows of an epoch's files."""
    store = open_store(tables.url)
    return [row for _, file in tables.files(kind) for row in pq.ParquetFile(store.open(file.name)).read().to_pylist()]


def of_height(url: str, height: int) -> dict[str, bytes]:
    """Return what is stored of an epoch."""
    return {name: data for name, data in objects(url).items() if f"epoch_height={height}/" in name}


def test_epochs_lie_beside_each_other_and_are_read_apart() -> None:
    """The latest is the newest, whichever was written last."""
    url = new_url()
    for height in (8, 7):
        written(url, exported(pairs_of(height), height))
    assert open_tables(url).entry.epoch_height == 8
    assert [len(rows_of(open_tables(url, epoch), "account")) for epoch in ("latest", "7", "8")] == [8, 7, 8]
    assert open_tables(url, str(CryptoHash(b"\7" * 32))).entry.epoch_height == 7
    with pytest.raises(EpochNotReadyError, match=r"epoch 9 is not finished here.*Finished are 8 \(.*\), 7 \("):
        open_tables(url, "9")


def test_a_run_that_ends_early_leaves_nothing_that_is_taken_for_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are in no catalogue, view or pointer; the epoch before stays as it was, and a rerun finishes."""
    url = new_url()
    written(url, exported(pairs_of(5), 7))
    before = objects(url)
    epoch = exported(pairs_of(9), 8, cuts=(9, 18))

    def full(*arguments: object) -> None:
        raise StoreFullError(problem="no space is left")

    monkeypatch.setattr("pipelines.dataset.tables.export_tables.finish_tables", full)
    with pytest.raises(StoreFullError):
        written(url, epoch)
    monkeypatch.undo()
    left = objects(url)
    assert any("epoch_height=8" in name and name.endswith(".parquet") for name in left)
    assert {name: left[name] for name in before} == before
    with pytest.raises(EpochNotReadyError, match="Finished are 7"):
        open_tables(url, "8")
    written(url, epoch)
    assert open_tables(url).entry.epoch_height == 8


def test_two_chains_are_kept_apart() -> None:
    """The second is refused before anything of it is written."""
    url = new_url()
    written(url, exported(pairs_of(3)))
    before = objects(url)
    with pytest.raises(DatasetError, match="of chain test, not other"):
        written(url, exported(pairs_of(3), 8, chain_id="other"))
    assert objects(url) == before


def test_tables_of_the_layout_before_are_refused() -> None:
    """Where they are written, and where they are read; with what to do."""
    url = new_url()
    old = "chain_id=test/epoch_height=7/epoch_id=E/shard_uid=s0.v0/kind=account/range-000000-0000.parquet"
    open_store(url).put(old, b"PAR1")
    with pytest.raises(DatasetError, match=r"tables of the layout before are here.*Write to another place"):
        written(url, exported(pairs_of(3)))
    with pytest.raises(DatasetError, match="tables of the layout before are here"):
        open_tables(url)
    assert [*objects(url)] == [old]


def test_published_parts_may_lie_beside_the_tables() -> None:
    """They too begin with the chain."""
    url = new_url()
    open_store(url).put("chain_id=test/epoch_height=7/epoch_id=E/shard_id=0/state_part_000000_of_000001", b"part")
    written(url, exported(pairs_of(3)))
    assert open_tables(url).entry.records == 10


def test_an_epoch_of_the_same_height_and_another_id_is_refused() -> None:
    """It is of another fork: its files would lie among those of the first."""
    url = new_url()
    written(url, exported(pairs_of(3)))
    context, dataset = exported(pairs_of(4))
    other = replace(dataset.summary.context, epoch_id=CryptoHash(b"\x55" * 32))
    with pytest.raises(DatasetError, match="epoch height 7 is here with id"):
        written(url, (replace(context, epoch_id=other.epoch_id), replace(dataset, summary=replace(dataset.summary, context=other))))


def test_a_place_without_tables_says_so() -> None:
    """A reader learns what would write them."""
    with pytest.raises(DatasetError, match=r"no tables are there.*statecast tables"):
        open_tables(new_url())


def test_another_selection_is_refused_and_none_is_the_places() -> None:
    """All files of a table have the same columns."""
    url = new_url()
    selection = TablesSelection.choose(("account",), ("amount", "account_id"), raw=False)
    written(url, exported(pairs_of(3)), selection)
    with pytest.raises(InvalidInputError, match=r"of --kind account --columns account_id,amount --no-raw, not of everything"):
        written(url, exported(pairs_of(3), 8))
    written(url, exported(pairs_of(4), 8), None)
    assert sorted(rows_of(open_tables(url))[0]) == [
        *("account_id", "amount", "block_height", "block_timestamp", "decode_error", "decode_note", "epoch_id", "shard_uid")
    ]


def test_an_epoch_whose_records_are_others_is_taken_out_until_it_is_finished_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset that was exported again, of another state: nobody reads half of each."""
    url = new_url()
    written(url, exported(pairs_of(5)))
    seen: list[int] = []
    run = decode_tables.WriteTablesTask.run

    def noted(task: decode_tables.WriteTablesTask) -> object:
        catalogue = open_store(url).get("_catalogue.json", 0, 1 << 20)
        seen.append(catalogue.count(b'"epoch_height"'))
        return run(task)

    monkeypatch.setattr(decode_tables.WriteTablesTask, "run", noted)
    written(url, exported(pairs_of(5, changed=(2,))))
    assert seen == [0]
    assert open_tables(url).entry.records == 16


def test_shards_of_an_epoch_may_come_one_by_one_and_one_may_be_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others stay; of one that was begun again and not ended nothing is taken."""
    url = new_url()
    for shard_id in (0, 1, 2):
        written(url, exported(pairs_of(5 + shard_id), shard_id=shard_id))
    assert open_tables(url).entry.shard_ids == (0, 1, 2)
    written(url, exported(pairs_of(5, changed=(2,))))
    assert open_tables(url).entry.shard_ids == (0, 1, 2)

    def full(*arguments: object) -> None:
        raise StoreFullError(problem="no space is left")

    monkeypatch.setattr("pipelines.dataset.tables.export_tables.finish_tables", full)
    with pytest.raises(StoreFullError):
        written(url, exported(pairs_of(6, changed=(3,)), shard_id=1))
    monkeypatch.undo()
    with pytest.raises(EpochNotReadyError, match="No epoch is finished yet"):
        open_tables(url)
    written(url, exported(pairs_of(7, changed=(1,)), shard_id=2))
    assert open_tables(url).entry.shard_ids == (0, 2)


def test_files_that_did_not_change_are_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables are those that decoding makes, byte for byte."""
    url, anew = new_url(), new_url()
    first, (context, changed) = exported(pairs_of(30), 7, cuts=(35, 70)), exported(pairs_of(30, changed=(3,)), 8, cuts=(35, 70))
    second = (context, rolled_forward(first[1], changed, (1, 2)))
    written(anew, second)
    written(url, first)
    read: list[str] = []
    decode = DecodedSpan.read

    def noted(span: DecodedSpan) -> object:
        read.append(span.file.name)
        return decode(span)

    monkeypatch.setattr(DecodedSpan, "read", noted)
    written(url, second)
    assert read == [second[1].summary.files[0].name]
    assert of_height(url, 8) == of_height(anew, 8)


def test_a_damaged_file_of_the_epoch_before_is_not_taken_up() -> None:
    """Then the records are decoded."""
    url, anew = new_url(), new_url()
    first, (context, again) = exported(pairs_of(30), 7), exported(pairs_of(30), 8)
    second = (context, rolled_forward(first[1], again, (0,)))
    written(anew, second)
    written(url, first)
    store = open_store(url)
    for name, data in objects(url).items():
        if "kind=account/" in name:
            store.put(name, data[:-1] + bytes([data[-1] ^ 1]))
    written(url, second)
    assert {n: d for n, d in objects(url).items() if "epoch_height=8" in n} == {
        n: d for n, d in objects(anew).items() if "epoch_height=8" in n
    }


@pytest.mark.parametrize(
    ("accounts", "contracts"), [(("user00001.near",), ()), ((), ("user00001.near", "user00007.near")), (("near", "user00008.near"), ())]
)
def test_records_of_an_account_are_read_out_of_the_files_that_hold_them(accounts: tuple[str, ...], contracts: tuple[str, ...]) -> None:
    """Exactly its records, of whatever kind; files whose keys are elsewhere are not opened."""
    context, dataset = exported(pairs_of(40), cuts=range(5, 120, 5))
    selection = TablesSelection.choose(accounts=accounts, contracts=contracts)
    tasks = plan_tables(dataset, "memory://x", selection)
    assert 0 < len(tasks) <= 4 * (len(accounts) + len(contracts)) < len(dataset.summary.files)
    url = new_url()
    written(url, (context, dataset), selection)
    got = {(row["key"], row["value"]) for row in rows_of(open_tables(url))}
    wanted = set()
    for key, value in pairs_of(40):
        parsed = parse_trie_key(key)
        of_contract = parsed.kind in (TrieKeyKind.CONTRACT_CODE, TrieKeyKind.CONTRACT_DATA)
        if parsed.account_id in accounts or (of_contract and parsed.account_id in contracts):
            wanted.add((key, value if len(value) <= 4000 else None))
    assert got == wanted


def test_records_of_an_account_are_found_among_all_kinds() -> None:
    """By the key's bytes what parsing each key finds."""
    pairs = sorted({record.key: record.value for record in state_records()}.items())
    accounts = sorted({found.account_id for key, _ in pairs if (found := parse_trie_key(key)).account_id is not None})
    context, dataset = exported(pairs)
    for account in accounts[:3]:
        url = new_url()
        written(url, (context, dataset), TablesSelection.choose(accounts=(account,)))
        assert {row["key"] for row in rows_of(open_tables(url))} == {key for key, _ in pairs if parse_trie_key(key).account_id == account}


def test_kinds_and_columns_are_those_that_are_asked_for() -> None:
    """What names no kind or column, or leaves a kind with none, is refused with what there is."""
    url = new_url()
    written(url, exported(pairs_of(3)), TablesSelection.choose(("account", "access_key"), ("account_id", "nonce"), raw=False))
    tables = open_tables(url)
    assert sorted({file.kind for _, file in tables.files()}) == ["access_key", "account"]
    assert rows_of(tables, "access_key")[2]["nonce"] == 2 and "key" not in rows_of(tables, "access_key")[0]
    wrong: dict[str, Any]
    for wrong, problem in (
        ({"kinds": ("accounts",)}, "no kind of record is called 'accounts'"),
        ({"columns": ("balance",)}, "no column is called 'balance'"),
        ({"kinds": ("delayed_receipt",), "columns": ("amount",), "raw": False}, "of kind delayed_receipt have none of the columns"),
        ({"accounts": ("a,b",)}, "is no account id"),
        ({"accounts": ("near", "Alice.near")}, "'Alice.near' is no account id"),
        ({"contracts": ("alice..near",)}, "is no account id"),
    ):
        with pytest.raises(InvalidInputError, match=problem):
            TablesSelection.choose(**wrong)


def noisy_pairs(count: int) -> Pairs:
    """Return entries that do not compress, of accounts with some entries each."""
    source = random.Random(5)
    return sorted(
        (contract_data_key(f"user{number // 3:05d}.near", number.to_bytes(4, "big")), source.randbytes(3000)) for number in range(count)
    )


def test_one_account_costs_one_row_group_of_a_mebibyte() -> None:
    """Also where nothing compresses; groups are sorted, and their statistics, Bloom filters and page index say what is in them."""
    url = new_url()
    written(url, exported([*pairs_of(4000)[:8001], *noisy_pairs(1200)]))
    tables, store = open_tables(url), open_store(url)
    for _, entry in tables.files():
        metadata = pq.ParquetFile(store.open(entry.name)).metadata
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        names = [groups[0].column(place).path_in_schema for place in range(groups[0].num_columns)]
        at, seen = names.index("account_id"), []
        for group in groups:
            sizes = [group.column(place).total_compressed_size for place in range(group.num_columns)]
            assert sum(sizes) <= ROW_GROUP_BYTES_MAX
            assert [names[one.column_index] for one in group.sorting_columns] == ["account_id", "key"]
            column = group.column(at)
            assert column.has_offset_index and column.has_column_index
            seen.append((column.statistics.min, column.statistics.max))
        assert all(left[1] <= right[0] for left, right in pairwise(seen))
    (noisy,) = [entry for _, entry in tables.files("contract_data")]
    assert pq.ParquetFile(store.open(noisy.name)).metadata.num_row_groups >= 3


def test_a_file_with_a_key_that_does_not_decode_does_not_claim_to_be_sorted_by_account() -> None:
    """Its rows are in the order of the keys all the same, and it says that."""
    url = new_url()
    pairs = sorted([*pairs_of(3), (b"\x00" + b"\xff" * 3, b"x"), (b"\x00", b"x")])
    written(url, exported(pairs))
    ((_, entry),) = open_tables(url).files("account")
    file = pq.ParquetFile(open_store(url).open(entry.name))
    table = file.read()
    assert entry.decode_errors == 2 and table.column("account_id").null_count == 2
    assert [table.schema.names[one.column_index] for one in file.metadata.row_group(0).sorting_columns] == ["key"]
    assert pc.equal(pc.sort_indices(table, sort_keys=[("key", "ascending")]), pa.array(range(5), pa.uint64())).to_pylist() == [True] * 5


def test_a_damaged_catalogue_is_made_again_by_a_rerun() -> None:
    """As its error says; the files stay as they are."""
    url = new_url()
    epoch = exported(pairs_of(5), cuts=(5,))
    written(url, epoch)
    before, store = objects(url), open_store(url)
    store.put("_catalogue.json", b"{")
    with pytest.raises(DatasetError, match=r"is not JSON.*Delete it and write the tables again"):
        open_tables(url)
    with pytest.raises(DatasetError, match="is not JSON"):
        written(url, epoch)
    store.delete("_catalogue.json")
    written(url, epoch)
    assert objects(url) == before


def test_a_catalogue_that_is_gone_is_made_again_with_all_that_was_finished() -> None:
    """By any run there, out of the summaries; not with an epoch that was begun again, nor one of which a file is gone."""
    url = new_url()
    for height in (5, 6, 7, 8):
        written(url, exported(pairs_of(height), height))
    store = open_store(url)
    before = {name: data for name, data in objects(url).items() if "_sql/" not in name}
    store.delete("_catalogue.json")
    with pytest.raises(DatasetError, match="of chain test, not other"):
        written(url, exported(pairs_of(3), 8, chain_id="other"))
    written(url, exported(pairs_of(8), 8))
    assert {name: data for name, data in objects(url).items() if "_sql/" not in name} == before
    store.delete("_catalogue.json")
    store.delete("_epochs/epoch_height=5/shard_id=0/tables.json")
    store.delete("kind=account/chain_id=test/epoch_height=6/shard_id=0/range-000000-0000.parquet")
    store.put("_epochs/epoch_height=7/tables.json", b"{")
    written(url, exported(pairs_of(8), 8))
    with pytest.raises(EpochNotReadyError, match=r"Finished are 8 \([1-9A-Za-z]+\)\."):
        open_tables(url, "6")


def test_nothing_but_parquet_lies_under_names_that_readers_take(tmp_path: Path) -> None:
    """Side files begin with an underscore."""
    url = str(tmp_path)
    written(url, exported(pairs_of(3)))
    names = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    for name in names:
        assert name.suffix == ".parquet" or any(part.startswith(("_", ".")) for part in name.parts), name
