"""The state header of a dataset, where all of it was verified: by the dataset's writer, or now by a node."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.dataset.arrow_dataset import ShardDataset
from pipelines.near.node.flat_state_source import FoundStateHeader
from schemas.errors import IntegrityError, InvalidInputError, SourceError

VerifyStateHeader = Callable[[bytes], None]
"""Verifies all of one shard's state header; raises InvalidInputError, SourceError or IntegrityError, as `StateHeaderVerifier` says."""


def why_unverified(header: bytes, verify: VerifyStateHeader | None) -> str | None:
    """Verify a header; return why that fails or can't be done, None where all of it verified.

    The reason goes into the manifest, so it holds none of the machine's paths.

    Args:
        verify: None where the run reads nothing that could.
    """
    if verify is None:
        return "this run reads no node that could verify it"
    try:
        verify(header)
    except (InvalidInputError, SourceError, IntegrityError) as error:
        return f"it does not verify: {error.problem}"
    return None


def verified_dataset_header(dataset: ShardDataset, verify: VerifyStateHeader | None) -> FoundStateHeader:
    """Return a dataset's state header if all of it was verified when it was written, or verifies now; else why there is none.

    Raises:
        DatasetError: it is missing, or not the one that was verified.
    """
    summary = dataset.summary
    header = dataset.state_header()
    if header is None:
        return FoundStateHeader(None, reason=summary.state_header_reason)
    if summary.verified_state_header_sha256 is None and (problem := why_unverified(header, verify)) is not None:
        return FoundStateHeader(None, reason=f"the dataset's was not verified in full when it was written, and {problem}")
    return FoundStateHeader(header, summary.state_header_origin, is_verified=True)
