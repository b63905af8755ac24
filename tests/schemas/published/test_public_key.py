"""Public keys as text."""

from __future__ import annotations

import pytest

from schemas.errors import InvalidInputError
from schemas.ids import base58_encode
from schemas.published.public_key import PublicKey


def test_a_key_survives_its_text() -> None:
    """What is printed is parsed again."""
    key = PublicKey(bytes(range(32)))
    assert PublicKey.parse(str(key)) == key


@pytest.mark.parametrize("length", [32, 64])
@pytest.mark.parametrize("mistyped", ["", "0", "l"])
def test_text_that_may_be_a_secret_is_not_repeated(length: int, mistyped: str) -> None:
    """A seed or a secret key given by mistake does not get into the error, nor one with a character that is none of base58."""
    secret = base58_encode(bytes(range(1, length + 1)))
    given = f"ed25519:{secret[: len(secret) - len(mistyped)]}{mistyped}"
    if length == 32 and not mistyped:
        given = given.removeprefix("ed25519:")
    with pytest.raises(InvalidInputError) as raised:
        PublicKey.parse(given)
    assert secret[:20] not in str(raised.value)
