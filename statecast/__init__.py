"""NEAR's state for Python programs: open a dataset, tables or a published epoch by URL, scan, prove and verify, fetch.

>>> import statecast
>>> accounts = statecast.open_dataset("gs://bucket/state").scan(kinds=["account"], columns=["account_id", "amount"])
>>> polars.DataFrame(accounts).sort("amount").tail(10)
>>> statecast.scan("gs://bucket/tables", kind="account", epoch="latest").polars().select("account_id", "amount")
>>> epoch = statecast.open_epoch("gs://bucket/prefix", trust=statecast.Trust(keys=["ed25519:…"]))
>>> epoch.prove("alice.near").proof.to_bytes()

All that is named here stays as it is within a major version; what lies in other packages may change with each release.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.fetching.fetch_result import FetchResult
    from pipelines.proving.verify_trie_proof import VerifiedProof
    from schemas.errors import StatecastError
    from statecast.dataset import Dataset, Scan, open_dataset
    from statecast.epoch import Epoch, open_epoch
    from statecast.many_records import get
    from statecast.proof import verify_proof
    from statecast.tables import TableScan, scan
    from statecast.trust import Trust

__all__ = [
    "Dataset",
    "Epoch",
    "FetchResult",
    "Scan",
    "StatecastError",
    "TableScan",
    "Trust",
    "VerifiedProof",
    "get",
    "open_dataset",
    "open_epoch",
    "scan",
    "verify_proof",
]

_MODULES = {
    "Dataset": "statecast.dataset",
    "Epoch": "statecast.epoch",
    "FetchResult": "pipelines.fetching.fetch_result",
    "Scan": "statecast.dataset",
    "StatecastError": "schemas.errors",
    "TableScan": "statecast.tables",
    "Trust": "statecast.trust",
    "VerifiedProof": "pipelines.proving.verify_trie_proof",
    "get": "statecast.many_records",
    "open_dataset": "statecast.dataset",
    "open_epoch": "statecast.epoch",
    "scan": "statecast.tables",
    "verify_proof": "statecast.proof",
}
"""Imported when first asked for: the command is in this package too, and shows its version without them."""

__version__ = version("statecast")


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
