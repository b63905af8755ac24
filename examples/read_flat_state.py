"""Reads an exported epoch with Ray Data, asks it three questions, and writes the decoded tables.

statecast export --node-home ~/.near --to dataset:///data/state
python examples/read_flat_state.py dataset:///data/state /data/tables
"""

from __future__ import annotations

import sys

import statecast
from statecast.ray_data import read_flat_state, write_flat_state

YOCTO_PER_NEAR = 10**24


def main(source: str, target: str) -> None:
    """Print what the epoch holds, and write its tables.

    Args:
        source: URL of an Arrow dataset.
        target: where the tables go; shards whose tables are there already are an error.
    """
    dataset = statecast.open_dataset(source)
    print(f"{dataset.chain_id}, epoch {dataset.epoch_height}, {dataset.records:,} records")

    accounts = read_flat_state(source, kinds=["account"], columns=["account_id", "amount", "locked"], verify=True)
    print(f"{accounts.count():,} accounts hold {(accounts.sum('amount') + accounts.sum('locked')) / YOCTO_PER_NEAR:,.3f} NEAR")

    permissions = read_flat_state(source, kinds=["access_key"], columns=["permission"]).groupby("permission").count()
    for row in permissions.take_all():
        print(f"{row['count()']:,} access keys with permission {row['permission']}")

    storage = (
        read_flat_state(source, kinds=["contract_data"], columns=["account_id", "value_length"]).groupby("account_id").sum("value_length")
    )
    for row in storage.sort("sum(value_length)", descending=True).take(3):
        print(f"{row['account_id']} stores {row['sum(value_length)']:,} bytes")

    write_flat_state(read_flat_state(source), target, source=source)
    print(f"tables are in {target}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/read_flat_state.py DATASET TABLES")
    main(sys.argv[1], sys.argv[2])
