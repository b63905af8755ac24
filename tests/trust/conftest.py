"""Keys of publishers."""

from __future__ import annotations

import pytest

from pipelines.producing.publish.key_file import generate_key, load_signer
from pipelines.producing.publish.signing import Signer


@pytest.fixture(scope="session")
def signers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Signer, ...]:
    """Four keys."""
    folder = tmp_path_factory.mktemp("keys")
    for number in range(4):
        generate_key(folder / f"{number}.json")
    return tuple(load_signer(folder / f"{number}.json") for number in range(4))
