"""Which genesis a peer of a chain names in its handshake: the parent hash of the first block's header.

Source: nearcore's `tools/chainsync-loadtest`. Of other chains a node says its own, when another was named.
"""

from __future__ import annotations

from typing import Final

from schemas.ids import CryptoHash

KNOWN_GENESIS: Final = {
    "mainnet": CryptoHash.from_base58("EPnLgE7iEq9s7yTkos96M3cWymH5avBAPm3qx3NXqR8H"),
    "testnet": CryptoHash.from_base58("FWJ9kR6KFWoyMoNjpLXXGHeuiy7tEY6GmoFeCA5yuc6b"),
}
"""By chain id."""
