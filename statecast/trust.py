"""What a reader trusts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.trust.policy import TrustPolicy
from pipelines.trust.signatures import TrustRule
from schemas.errors import InvalidInputError
from schemas.ids import CryptoHash
from schemas.published.public_key import PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Publishers' keys, a block, or both; or every publisher, which must be said.

    Raises:
        InvalidInputError: nothing or too much is given, or a text is no key or no hash.
    """

    keys: Sequence[str] = ()
    """Public keys, ``ed25519:…`` or ``ecdsa-p256:…``."""
    threshold: int = 1
    """How many of the keys must have signed."""
    block: str | None = None
    """Hash in base58 of the epoch's sync block or of its parent: the state is tied to it by hashes, whoever the publisher is."""
    anybody: bool = False
    """Trust everyone who can write to the place that is read."""

    def __post_init__(self) -> None:
        if self.anybody and (self.keys or self.block is not None):
            raise InvalidInputError(problem="anybody excludes keys and block", where="Trust", remedy="Leave anybody out.")
        if not (self.anybody or self.keys or self.block is not None):
            raise InvalidInputError(
                problem="nothing says whom to believe", where="Trust", remedy="Give keys=, block= or both; anybody=True believes anybody."
            )
        self.policy()

    def policy(self) -> TrustPolicy:
        """Return the rules that documents are judged by."""
        keys = TrustRule(tuple(map(PublicKey.parse, dict.fromkeys(self.keys))), self.threshold) if self.keys else None
        return TrustPolicy(keys, None if self.block is None else CryptoHash.from_base58(self.block), self.anybody)
