"""How large an epoch is: what a forecast is made of."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.errors import InvalidInputError
from schemas.nearcore.state_part import num_parts_for

SHARDS_MAX = 1_000
"""Most shards of an epoch that a forecast is made for: each takes a simulation of its stages."""

STATE_BYTES_MAX = 1 << 44
"""Most memory usage of an epoch that a forecast is made for, some ninety times mainnet's: each part is a task of the simulation."""


@dataclass(frozen=True, slots=True)
class EpochShape:
    """The memory usage of each shard in bytes, the largest first: the order in which a run takes them."""

    memory_usages: tuple[int, ...]

    def __post_init__(self) -> None:
        assert list(self.memory_usages) == sorted(self.memory_usages, reverse=True), "the largest shard comes first"

    @property
    def memory_usage(self) -> int:
        """Of all shards together."""
        return sum(self.memory_usages)

    @property
    def num_parts(self) -> tuple[int, ...]:
        """Parts of each shard, as nearcore counts them."""
        return tuple(num_parts_for(memory_usage) for memory_usage in self.memory_usages)


def epoch_shape(shards: int, memory_usage: int, largest: int | None = None) -> EpochShape:
    """Return an epoch of so many shards; all but the largest share the rest alike.

    Args:
        memory_usage: of all shards together, in bytes.
        largest: memory usage of the largest shard; None for shards of one size.
    Raises:
        InvalidInputError: no such epoch can be.
    """
    if not 1 <= shards <= SHARDS_MAX:
        raise InvalidInputError(problem=f"an epoch has between 1 and {SHARDS_MAX} shards, not {shards}")
    if not 1 <= memory_usage <= STATE_BYTES_MAX:
        raise InvalidInputError(problem="the state of an epoch must be between one byte and 16 TiB")
    if largest is None:
        largest = -(-memory_usage // shards)
    if not largest * shards >= memory_usage >= largest or (shards == 1 and largest != memory_usage):
        raise InvalidInputError(
            problem=f"a largest shard of {largest} bytes does not fit a state of {memory_usage} bytes in {shards} shards",
            remedy="It holds at least its share of the state, and at most all of it.",
        )
    rest = memory_usage - largest
    others = [rest // (shards - 1) + (index < rest % (shards - 1)) for index in range(shards - 1)]
    return EpochShape((largest, *others))
