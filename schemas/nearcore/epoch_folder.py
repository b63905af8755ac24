"""The folder of an epoch in nearcore's external storage; published epochs, datasets and work folders have the same levels.

Source: nearcore chain/client/src/sync/external.rs, location_prefix.
"""

from __future__ import annotations

from schemas.ids import CryptoHash


def epoch_folder(chain_id: str, epoch_height: int, epoch_id: CryptoHash) -> str:
    """Return the folder of an epoch, without a trailing slash."""
    return f"chain_id={chain_id}/epoch_height={epoch_height}/epoch_id={epoch_id}"
