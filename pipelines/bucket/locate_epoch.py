"""From a URL of a person to a store and one epoch in it."""

from __future__ import annotations

from pipelines.bucket.read_latest import read_latest
from pipelines.stores.open_store import open_store
from schemas.errors import EpochNotReadyError, InvalidInputError
from schemas.published.object_layout import (
    EpochLayout,
    ObjectKind,
    parse_epoch_folder,
    parse_object_name,
    split_chain_url,
    without_manifest_name,
)
from schemas.shown_text import shown_url


def locate_epoch(url: str) -> tuple[str, EpochLayout]:
    """Return the store's URL and the epoch that a URL names; a URL without an epoch names the latest one.

    Raises:
        InvalidInputError: not an epoch's folder, or several chains to choose from.
        EpochNotReadyError: no latest epoch is there.
    """
    root, tail = split_chain_url(without_manifest_name(url))
    if "/" in tail:
        layout = parse_epoch_folder(tail)
        if layout is None:
            raise InvalidInputError(
                problem="this is not an epoch's folder", where=shown_url(url), remedy="It ends in chain_id=…/epoch_height=…/epoch_id=…."
            )
        return root, layout
    store = open_store(root)
    # Where the chain is named, so is its pointer; a bucket's epochs may be very many objects.
    listed = store.list() if not tail else filter(None, [store.info(f"{tail}/latest.json")])
    chains = {
        info.name: parsed.chain_id
        for info in listed
        if (parsed := parse_object_name(info.name)) is not None and parsed.kind is ObjectKind.LATEST
    }
    if len(chains) > 1:
        raise InvalidInputError(
            problem="several chains are published there", where=shown_url(url), remedy=f"Name one: {', '.join(sorted(chains))}."
        )
    pointer = read_latest(store, *chains.values()) if chains else None
    if pointer is None:
        raise EpochNotReadyError(problem="no complete epoch is published there", where=shown_url(url))
    return root, pointer.layout
