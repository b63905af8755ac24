"""From a URL of a person to a store and one chain in it."""

from __future__ import annotations

from pipelines.fetching.epoch_location import EpochUrl, parse_epoch_url
from pipelines.seeding.epoch_feed import find_chain, published_chains
from pipelines.stores.open_store import open_store
from schemas.errors import EpochNotReadyError, InvalidInputError
from schemas.published.object_layout import EpochLayout, chain_folder


def locate_chain(url: str, chain_id: str | None) -> tuple[str, str, EpochLayout | None]:
    """Return the store's URL, the chain, and the epoch where the URL names one.

    Args:
        chain_id: what the person said beside the URL; needed where the URL names none and the store has several.
    Raises:
        InvalidInputError: nothing says which chain, or it is said twice and differs.
        EpochNotReadyError: no chain is published there, or not that one.
        StoreError: the store can't be listed.
    """
    located: EpochUrl = parse_epoch_url(url)
    if located.chain_id is not None and chain_id not in (None, located.chain_id):
        raise InvalidInputError(problem=f"the URL is of chain {located.chain_id}, not {chain_id}", where="--chain-id")
    found, store = located.chain_id or chain_id, open_store(located.root)
    if found is None:
        return located.root, find_chain(store), located.layout
    if next(store.list(chain_folder(found)), None) is None:
        chains = published_chains(store)
        there = f"There is {', '.join(chains)}." if chains else "Check the URL; it is the store's folder."
        raise EpochNotReadyError(problem=f"the chain {found} is not published there", where=store.url, remedy=there)
    return located.root, found, located.layout
