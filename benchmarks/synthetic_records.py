"""The flat-state records of a made-up shard: any number of them, ascending by key, the same for the same seed.

The mix of record kinds, key lengths and value lengths was measured on a node's state of 9,796 records: accounts, access keys and
contract data in the shares below, a few long contract data values, contract codes that several accounts share. Nothing is kept but
one account's records, so memory does not grow with the number. Nothing here writes a file.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import Final

RECORDS_MIN: Final = 1_000
"""Below this the rarer kinds would be missing."""

RECORDS_MAX: Final = 100_000_000
"""Account names have room for no more."""

ACCESS_KEY_SHARE: Final = 0.473
CONTRACT_DATA_SHARE: Final = 0.284
DELAYED_RECEIPT_SHARE: Final = 0.002
CONTRACT_CODE_SHARE: Final = 0.001
"""Shares of the records; accounts are the rest, 24 %."""

ACCOUNTS_PER_CODE: Final = 4
"""How many accounts have the same contract code."""

ACCESS_KEYS_OF_HOLDER: Final = (1, 1, 1, 1, 2, 2, 3, 3, 4, 4)
"""Access keys of an account that has any: quantiles."""

DATA_ROWS_OF_CONTRACT: Final = (1, 1, 2, 2, 4, 4, 5, 6, 6, 7, 7, 8, 9, 9, 10, 11, 11, 11, 52, 80)
"""Contract data records of a contract that has any: quantiles."""

CODE_LENGTHS: Final = (3_137, 6_170, 11_131, 23_687, 27_083, 34_863, 100_715, 146_261, 185_952)
"""Lengths of contract codes, in bytes."""

_DATA_LENGTHS: Final = (
    (0.05, 0, 8),
    (0.10, 8, 16),
    (0.25, 16, 38),
    (0.50, 38, 77),
    (0.75, 77, 116),
    (0.90, 116, 1_478),
    (0.95, 1_478, 1_997),
    (0.98, 1_997, 4_000),
    (1.0, 4_001, 9_000),
)
"""(quantile, shortest, longest) of contract data values: 2 % are over 4000 bytes and so references."""

_TEXT: Final = b'{"owner_id":"near","amount":'
"""What contract data looks like between its random bytes; it makes a value compress to about a half."""

_NOISE_BYTES: Final = 20


@dataclass(frozen=True, slots=True)
class KindCounts:
    """How many records of each kind make up a state."""

    accounts: int
    contract_codes: int
    access_keys: int
    delayed_receipts: int
    contract_data: int
    promise_yield_indices: int = 1


def kind_counts(records: int) -> KindCounts:
    """Split a number of records into kinds.

    Args:
        records: from ``RECORDS_MIN`` to ``RECORDS_MAX``.
    """
    assert RECORDS_MIN <= records <= RECORDS_MAX, f"a synthetic state has {RECORDS_MIN} to {RECORDS_MAX} records"
    codes, receipts = round(records * CONTRACT_CODE_SHARE), round(records * DELAYED_RECEIPT_SHARE)
    access_keys, data = round(records * ACCESS_KEY_SHARE), round(records * CONTRACT_DATA_SHARE)
    return KindCounts(records - codes - receipts - access_keys - data - 1, codes, access_keys, receipts, data)


def synthetic_records(records: int, seed: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield (trie key, value), ascending by key; exactly ``records`` of them.

    Args:
        records: from ``RECORDS_MIN`` to ``RECORDS_MAX``.
    """
    counts = kind_counts(records)
    return chain(
        _accounts(counts, seed),
        _contract_codes(counts, seed),
        _access_keys(counts, seed),
        _delayed_receipts(counts, seed),
        _contract_data(counts, seed),
        [(b"\x0a", _random(seed, "promise yield indices").randbytes(16))],
    )


def _random(seed: int, purpose: str) -> Random:
    return Random(f"statecast benchmark {seed} {purpose}")


def _value(random: Random, length: int) -> bytes:
    """Return bytes of which about a half is text that repeats."""
    if length <= 2 * _NOISE_BYTES:
        return random.randbytes(length)
    noise = random.randbytes(length // (_NOISE_BYTES + len(_TEXT)) * _NOISE_BYTES + _NOISE_BYTES)
    return b"".join(noise[start : start + _NOISE_BYTES] + _TEXT for start in range(0, len(noise), _NOISE_BYTES))[:length]


def _account_names(count: int, seed: int) -> Iterator[bytes]:
    """Yield account names, ascending; the same at every call, so that no list of them is needed."""
    implicit, digits, lockups = count * 27 // 100, count * 24 // 100, count * 24 // 100
    random = _random(seed, "implicit accounts")
    of_hex = (f"{number:016x}{random.getrandbits(192):048x}".encode() for number in _ascending(implicit, 0, 1 << 64, random))
    other = _random(seed, "digit accounts")
    of_digits = (f"{number}_{other.randrange(700)}.tg".encode() for number in _ascending(digits, 10**9, 10**10, other))
    yield from heapq.merge(of_hex, of_digits)
    random = _random(seed, "lockup accounts")
    yield from (f"lockup{number:08}.pool.near".encode() for number in _ascending(lockups, 0, 10**8, random))
    random = _random(seed, "user accounts")
    for number in _ascending(count - implicit - digits - lockups, 0, 10**8, random):
        yield b"user%05d-%03d.near" % divmod(number, 1000)


def _ascending(count: int, begin: int, end: int, random: Random) -> Iterator[int]:
    """Yield strictly ascending numbers, evenly spread; the span must be at least twice the count."""
    step = (end - begin) // max(count, 1)
    for index in range(count):
        yield begin + index * step + random.randrange(step // 2)


def _spread(total: int, accounts: int, quantiles: tuple[int, ...], random: Random) -> Iterator[int]:
    """Yield how many of ``total`` records each account has; the last one takes what is left."""
    holders_share = min(1.0, total * len(quantiles) / sum(quantiles) / accounts)
    left = total
    for index in range(accounts - 1):
        is_holder = int((index + 1) * holders_share) > int(index * holders_share)
        count = min(left, random.choice(quantiles)) if is_holder else 0
        left -= count
        yield count
    yield left


def _accounts(counts: KindCounts, seed: int) -> Iterator[tuple[bytes, bytes]]:
    random = _random(seed, "accounts")
    for name in _account_names(counts.accounts, seed):
        # amount, locked, code hash, storage usage; one account in 25 is longer.
        value = random.randbytes(12) + bytes(52) + b"\xb6" + bytes(7)
        yield b"\x00" + name, value if random.random() >= 0.04 else value + _value(random, random.randrange(3_917))


def _contract_codes(counts: KindCounts, seed: int) -> Iterator[tuple[bytes, bytes]]:
    distinct = -(-counts.contract_codes // ACCOUNTS_PER_CODE)
    number = 0
    for index, name in enumerate(_account_names(counts.accounts, seed)):
        if (index + 1) * counts.contract_codes // counts.accounts > number:
            random = _random(seed, f"contract code {number % distinct}")
            yield b"\x01" + name, _value(random, random.choice(CODE_LENGTHS))
            number += 1


def _access_keys(counts: KindCounts, seed: int) -> Iterator[tuple[bytes, bytes]]:
    random = _random(seed, "access keys")
    numbers = _spread(counts.access_keys, counts.accounts, ACCESS_KEYS_OF_HOLDER, random)
    for name, number in zip(_account_names(counts.accounts, seed), numbers, strict=True):
        for public_key in sorted(random.randbytes(32) for _ in range(number)):
            yield b"\x02" + name + b"\x02\x00" + public_key, _access_key(random)


def _access_key(random: Random) -> bytes:
    draw = random.random()
    if draw < 0.03:
        return _value(random, random.randrange(100, 4_000))
    nonce = random.randbytes(8)
    # Full access, or a function call permission with an allowance and a receiver.
    return nonce + b"\x01" if draw < 0.62 else nonce + b"\x00" + random.randbytes(16) + b"contract.main.near\x00"


def _delayed_receipts(counts: KindCounts, seed: int) -> Iterator[tuple[bytes, bytes]]:
    random = _random(seed, "delayed receipts")
    yield b"\x07", random.randbytes(16)
    # The index in a key is little-endian, so keys do not ascend with it.
    for suffix in sorted(index.to_bytes(8, "little") for index in range(counts.delayed_receipts - 1)):
        yield b"\x07" + suffix, _value(random, 300)


def _contract_data(counts: KindCounts, seed: int) -> Iterator[tuple[bytes, bytes]]:
    random = _random(seed, "contract data")
    numbers = _spread(counts.contract_data, counts.accounts, DATA_ROWS_OF_CONTRACT, random)
    for name, number in zip(_account_names(counts.accounts, seed), numbers, strict=True):
        data_keys: set[bytes] = set()
        while len(data_keys) < number:
            data_keys.add(random.randbytes(random.randrange(4, 61)))
        for data_key in sorted(data_keys):
            yield b"\x09" + name + b"," + data_key, _value(random, _data_length(random))


def _data_length(random: Random) -> int:
    draw = random.random()
    for quantile, shortest, longest in _DATA_LENGTHS:
        if draw < quantile:
            return random.randint(shortest, longest)
    raise AssertionError("the last quantile is 1")
