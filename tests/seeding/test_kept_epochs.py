"""Which epochs go."""

from __future__ import annotations

import pytest

from pipelines.seeding.kept_epochs import HeldEpoch, epochs_to_drop
from schemas.ids import CryptoHash
from schemas.published.object_layout import EpochLayout


def held(height: int, complete: bool = True, fork: int = 0) -> HeldEpoch:
    """An epoch of a chain."""
    return HeldEpoch(EpochLayout("testnet", height, CryptoHash(bytes([fork] * 32))), complete)


@pytest.mark.parametrize(
    ("epochs", "kept", "dropped"),
    [
        ([], 1, []),
        ([held(5)], 1, []),
        ([held(5), held(6)], 1, [5]),
        ([held(5), held(6, complete=False)], 1, []),
        ([held(4), held(5), held(6, complete=False)], 1, [4]),
        ([held(4), held(5), held(6)], 2, [4]),
        ([held(3), held(4), held(5), held(6, complete=False)], 2, [3]),
        ([held(4, complete=False), held(5), held(6)], 2, [4]),
        ([held(9), held(1), held(5)], 1, [1, 5]),
    ],
)
def test_an_epoch_goes_when_enough_newer_ones_are_complete(epochs: list[HeldEpoch], kept: int, dropped: list[int]) -> None:
    """The one before stays until the new one is whole; what was never whole goes as well."""
    assert [layout.epoch_height for layout in epochs_to_drop(epochs, kept)] == dropped


def test_two_epochs_of_one_height_count_as_two() -> None:
    """The order between them is fixed, so that two seeders do the same."""
    one, other = held(5, fork=1), held(5, fork=2)
    assert epochs_to_drop([one, other], 1) == epochs_to_drop([other, one], 1)
    assert len(epochs_to_drop([one, other], 1)) == 1
