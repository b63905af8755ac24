"""NEAR's state for Python programs: open a dataset or a published epoch by URL, scan it, prove and verify, fetch.

>>> import statecast
>>> accounts = statecast.open_dataset("gs://bucket/state").scan(kinds=["account"], columns=["account_id", "amount"])
>>> accounts.polars().sort("amount").tail(10)
>>> epoch = statecast.open_epoch("gs://bucket/prefix", trust=statecast.Trust(keys=["ed25519:…"]))
>>> epoch.prove("alice.near").proof.to_bytes()

All that is named here stays as it is within a major version; what lies in other packages may change with each release.
"""

from __future__ import annotations

from importlib.metadata import version

from pipelines.fetching.fetch_result import FetchResult
from pipelines.proving.verify_trie_proof import VerifiedProof
from schemas.errors import StatecastError
from statecast.dataset import Dataset, Scan, open_dataset
from statecast.epoch import Epoch, open_epoch
from statecast.proof import verify_proof
from statecast.trust import Trust

__all__ = [
    "Dataset",
    "Epoch",
    "FetchResult",
    "Scan",
    "StatecastError",
    "Trust",
    "VerifiedProof",
    "open_dataset",
    "open_epoch",
    "verify_proof",
]

__version__ = version("statecast")
