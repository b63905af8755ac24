"""Changes one object beside concurrent writers: look, make, replace what was looked at; again where another writer was faster.

The pauses between attempts are random and their bound grows, so that writers of one name get out of each other's way: GCS takes about
one write a second of one name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Final, TypeVar

from pipelines.stores.ranges import reads_back
from pipelines.stores.store import Data, ObjectInfo, Store
from schemas.errors import ObjectExistsError

T = TypeVar("T")

SWAP_ATTEMPTS_MAX: Final = 40
"""How often a change is rebuilt before it is given up."""

WAIT_FIRST_S: Final = 0.05
WAIT_MAX_S: Final = 4.0
"""A pause is random between nothing and a bound that doubles from the first to the most."""


def swapped(
    store: Store,
    name: str,
    make: Callable[[ObjectInfo | None], tuple[Data | None, T]],
    *,
    read_back: bool = False,
    sleep: Callable[[float], None] = time.sleep,
    random: Random | None = None,
) -> T:
    """Change an object and return the change's result.

    Args:
        make: takes what is stored now (None where nothing is), and gives the bytes to be stored instead, None to leave it as it is, and
            the result of that. It is called once an attempt, and reads the object itself where it needs to: what it reads may be newer
            than what it was given, and then the attempt is lost like any other.
        read_back: compare what is stored afterwards; other bytes are a lost attempt too.
    Returns:
        What `make` gave beside the bytes that were stored.
    Raises:
        ObjectExistsError: other writers were faster each time.
        StoreError: as `Store.put` and `Store.swap`. What `make` raises ends the change.
    """
    random = random or Random()
    for attempt in range(SWAP_ATTEMPTS_MAX):
        info = store.info(name)
        data, result = make(info)
        if data is None or (_replace(store, name, data, info) and (not read_back or reads_back(store, name, data))):
            return result
        if attempt < SWAP_ATTEMPTS_MAX - 1:
            sleep(random.uniform(0, min(WAIT_MAX_S, WAIT_FIRST_S * 2**attempt)))
    raise ObjectExistsError(
        problem=f"other writers replaced the object in each of {SWAP_ATTEMPTS_MAX} attempts",
        where=f"{store.url}/{name}",
        remedy="Let one of them finish, then run again.",
    )


def _replace(store: Store, name: str, data: Data, info: ObjectInfo | None) -> bool:
    """Store bytes if there is still what was looked at; tell whether there was."""
    try:
        if info is None:
            store.put(name, data, create_only=True)
        else:
            store.swap(name, data, info)
    except ObjectExistsError:
        return False
    return True
