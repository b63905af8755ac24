"""Several sources of one epoch's context: each is checked against the first that knows it, and what one lacks another fills in.

A source that does not know the epoch has no objection, as long as it is of the same chain. An endpoint that can't be reached is left
out while another one answers, and named in the result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.near.epoch.epoch_context_source import LATEST, EpochContextSource
from schemas.errors import ContextMismatchError, EpochNotReadyError, InvalidInputError, SourceError, StatecastError
from schemas.json_document import encode_json
from schemas.nearcore.epoch_context import EpochContext, ShardContext

_EPOCH_FIELDS = ("chain_id", "epoch_height", "epoch_id", "sync_hash", "protocol_version")
_COMPARED_FIELDS = ("shard_uid", "state_root", "flat_head_target")
_FILLED_FIELDS = (*_COMPARED_FIELDS, "parent_shard_uid")


@dataclass(frozen=True, slots=True)
class AgreedContext:
    """A context that no source contradicts."""

    context: EpochContext
    source_id: str
    """The source that it is from."""
    unreachable: tuple[SourceError, ...] = ()
    """Of sources that were left out."""
    knowing: frozenset[str] = frozenset()
    """All sources that know the epoch, and say the same of it."""


def agreed_epoch_context(
    sources: Sequence[EpochContextSource], selector: str = LATEST, spare: Sequence[EpochContextSource] = ()
) -> AgreedContext:
    """Return the context of one epoch.

    Args:
        sources: must be readable; of several that know the epoch the first says what ``latest`` is. A given context comes first, as
            the epoch that is meant.
        spare: asked after them; of these, those that can't be reached are left out, while any source at all answers with a context
            and, where there are several spare ones, at least one of them can be reached.
        selector: as in `EpochContextSource.epoch_context`.
    Raises:
        EpochNotReadyError: no source knows the epoch.
        ContextMismatchError, InvalidInputError: two sources contradict each other.
        SourceError, IntegrityError: passed on from the sources.
    """
    found: EpochContext | None = None
    finder: EpochContextSource | None = None
    ignorant: list[tuple[EpochContextSource, EpochNotReadyError]] = []
    unreachable: list[SourceError] = []
    knowing: set[str] = set()
    for source in (*sources, *spare):
        try:
            if found is None or finder is None:
                found, finder = source.epoch_context(selector), source
                knowing.add(source.source_id)
            elif (own := source.check(found, finder.source_id, of_given=finder.is_given)) is not None:
                found = _filled(found, own)
                knowing.add(source.source_id)
        except EpochNotReadyError as error:
            if source.is_given:
                raise
            ignorant.append((source, error))
        except SourceError as error:
            if source not in spare:
                raise
            unreachable.append(error)
    if unreachable and len(unreachable) == len(spare):
        raise _all_unreachable(unreachable)
    if found is None or finder is None:
        raise _not_ready([error for _, error in ignorant])
    # What was asked before any source knew the epoch may still be of another chain.
    for source, _ in ignorant:
        with contextlib.suppress(EpochNotReadyError):
            source.check(found, finder.source_id, of_given=finder.is_given)
    return AgreedContext(found, finder.source_id, tuple(unreachable), frozenset(knowing))


def compare_contexts(context: EpochContext, source_id: str, own: EpochContext, own_id: str, *, of_given: bool) -> None:
    """Compare two contexts of what should be one epoch, field by field; what one of them leaves open is no difference.

    Args:
        of_given: the user gave one of them, so that it may list some of the shards only.
    Raises:
        ContextMismatchError: they differ.
        InvalidInputError: they differ, and ``of_given``.
    """

    def differ(field_name: str, value: object, own_value: object) -> None:
        if value is not None and own_value is not None and value != own_value:
            raise mismatch(field_name, value, source_id, own_value, own_id, of_given=of_given)

    for name in _EPOCH_FIELDS:
        differ(name, getattr(context, name), getattr(own, name))
    own_shards = {shard.shard_id: shard for shard in own.shards}
    ids, own_ids = {shard.shard_id for shard in context.shards}, set(own_shards)
    if not (ids <= own_ids or own_ids <= ids if of_given else ids == own_ids):
        shard_id = min(ids - own_ids or own_ids - ids)
        here, there = ("listed", "not listed") if shard_id in ids else ("not listed", "listed")
        differ(f"shard {shard_id}", here, there)
    for shard in context.shards:
        own_shard = own_shards.get(shard.shard_id)
        if own_shard is not None:
            for name in _COMPARED_FIELDS:
                differ(f"{name} of shard {shard.shard_id}", getattr(shard, name), getattr(own_shard, name))
            # The parent's version is a guess where the layout before is gone.
            if (parent := shard.parent_shard_uid) and (own_parent := own_shard.parent_shard_uid) and parent.shard_id != own_parent.shard_id:
                differ(f"parent_shard_uid of shard {shard.shard_id}", parent, own_parent)
    differ("shard_layout", _layout_text(context), _layout_text(own))
    for name, header, own_header in zip(("sync block", "block before it"), context.block_headers, own.block_headers, strict=False):
        differ(f"header of the {name}", header.hex(), own_header.hex())


def mismatch(field_name: str, value: object, source_id: str, own_value: object, own_id: str, *, of_given: bool) -> StatecastError:
    """Return the error of two sources that say different things of a field.

    Args:
        of_given: the user gave one of them, so that the user's input is in doubt.
    """
    problem = f"{field_name} is {_short(value)} in {source_id} and {_short(own_value)} in {own_id}"
    if of_given:
        return InvalidInputError(problem=problem, where=own_id, remedy="Correct the given context, or leave it out.")
    return ContextMismatchError(
        problem=problem,
        where=own_id,
        remedy="One of the two is wrong or of another chain; nothing is made of either before that is cleared up.",
        field_name=field_name,
        values={source_id: str(value), own_id: str(own_value)},
    )


def _filled(context: EpochContext, own: EpochContext) -> EpochContext:
    """Return a context with what it leaves open taken from another one of the same epoch."""
    own_shards = {shard.shard_id: shard for shard in own.shards}
    shards = tuple(_filled_shard(shard, own_shards.get(shard.shard_id)) for shard in context.shards)
    return replace(
        context,
        shards=shards,
        block_headers=context.block_headers or own.block_headers,
        shard_layout=own.shard_layout if context.shard_layout is None else context.shard_layout,
    )


def _filled_shard(shard: ShardContext, own: ShardContext | None) -> ShardContext:
    if own is None:
        return shard
    missing: dict[str, Any] = {name: getattr(own, name) for name in _FILLED_FIELDS if getattr(shard, name) is None}
    return replace(shard, **missing, flat_head_header=shard.flat_head_header or own.flat_head_header)


def _all_unreachable(failures: list[SourceError]) -> SourceError:
    if len(failures) == 1:
        return failures[0]
    listed = "; ".join(f"{failure.where}: {failure.problem}" for failure in failures)
    return SourceError(problem=f"none of {len(failures)} endpoints can be used: {listed}", where="--rpc", remedy=failures[0].remedy)


def _not_ready(failures: list[EpochNotReadyError]) -> EpochNotReadyError:
    assert failures, "there is at least one source, and each knows the epoch, fails or raises"
    if len(failures) == 1:
        return failures[0]
    listed = "; ".join(f"{failure.where}: {failure.problem}" for failure in failures)
    remedies = dict.fromkeys(failure.remedy for failure in failures if failure.remedy)
    return EpochNotReadyError(problem=f"no source knows the epoch: {listed}", where="epoch context", remedy=" ".join(remedies))


def _layout_text(context: EpochContext) -> str | None:
    return None if context.shard_layout is None else encode_json(context.shard_layout.to_json()).decode()


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}…"
