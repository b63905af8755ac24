"""Tries a destination before a run: one small object is created, created again, read back and removed.

A store that takes no notice of ``If-None-Match`` or ``If-Match`` lets two producers both believe that they hold an epoch's claim: it is
found here. The object's name is one that a producer may delete under the rules of `infra/terraform/modules/access`.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from pipelines.bucket.lease_rule import CLOCK_SKEW_S
from pipelines.producing.preflight.finding import PreflightFinding, PreflightVerdict
from pipelines.stores.store import Store
from schemas.errors import ObjectExistsError, ObjectMismatchError, StoreError
from schemas.published.object_layout import PROBE_FOLDER, probe_name

DELETE_ATTEMPTS_MAX: Final = 3
"""How often the probe is deleted, beyond what the store itself tries: it is nothing that may stay."""

NOT_DELETED: Final = "delete"
"""Name of what is found of a probe that stays."""

CLOCK_WARN_S: Final = 30.0
"""So far apart two clocks may be without a word; beyond `CLOCK_SKEW_S` leases are not judged right."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a destination did with the probe. It was put; what refuses that is an error."""

    url: str
    name: str
    exclusive: bool
    """Creating it again with other bytes was refused."""
    conditional: bool | None
    """Replacing it by an outdated version was refused; None for a folder of this machine, where the store itself sees to that."""
    not_deleted: str
    """Why it could not be removed; empty where it was."""
    clock_offset_s: float | None
    """How far the store's clock is ahead of this machine's; None where it has none of its own."""


def probe_destination(store: Store) -> Probe | None:
    """Try a store; None where it is a local folder that is still to be made.

    Raises:
        StoreError: the probe can't be put, or not be read.
        ObjectMismatchError: what is read is not what was put last.
    """
    root = store.local_root()
    if root is not None and not root.is_dir():
        return None
    name = probe_name(secrets.token_hex(16))
    first, second, third = (f"statecast probe {number}, may be deleted\n".encode() for number in (1, 2, 3))
    before_s = time.time()
    try:
        stored = store.put(name, first, create_only=True)
        after_s = time.time()
        exclusive = _refused(lambda: store.put(name, second, create_only=True))
        expected = first if exclusive else second
        conditional = None
        if root is None:
            # Replaced once with the version that is there, then with the one that was.
            store.swap(name, third, store.info(name))
            conditional = _refused(lambda: store.swap(name, second, stored))
            expected = third if conditional else second
        if store.get(name, 0, len(expected) + 1) != expected:
            raise ObjectMismatchError(
                problem="the destination gave back other bytes than it was given",
                where=f"{store.url}/{name}",
                remedy="Run again; if it stays so, publish elsewhere.",
            )
    finally:
        # Also where it was put and the answer was lost.
        not_deleted = _not_deleted(store, name)
        if root is not None:
            _remove_empty(root)
    offset_s = None
    if root is None and stored.modified is not None:
        # Stores tell whole seconds.
        at_s = stored.modified.timestamp()
        offset_s = min(0.0, at_s + 1 - before_s) if at_s < before_s else max(0.0, at_s - after_s)
    return Probe(store.url, name, exclusive, conditional, not_deleted, offset_s)


def probe_findings(probe: Probe, *, for_claim: bool) -> tuple[PreflightFinding, ...]:
    """Judge what a destination did with the probe.

    Args:
        for_claim: an epoch is claimed there.
    """
    findings = [_exclusive_finding(probe, for_claim), _clock_finding(probe)]
    if probe.not_deleted:
        found = f"{probe.name} is left there, for it could not be deleted: {probe.not_deleted}"
        remedy = "Let the producer delete its claims and leases (docs/operations/stores.md), and delete the object."
        findings.append(PreflightFinding(NOT_DELETED, PreflightVerdict.WARN, found, remedy, probe.url))
    return tuple(findings)


def _not_deleted(store: Store, name: str) -> str:
    """Delete the probe; return why it could not be, empty where it was."""
    problem = ""
    for _ in range(DELETE_ATTEMPTS_MAX):
        try:
            store.delete(name)
        except StoreError as error:
            problem = error.problem
        else:
            return ""
    return problem


def _refused(write: Callable[[], object]) -> bool:
    try:
        write()
    except ObjectExistsError:
        return True
    return False


def _exclusive_finding(probe: Probe, for_claim: bool) -> PreflightFinding:
    ignored = [header for header, kept in (("If-None-Match", probe.exclusive), ("If-Match", probe.conditional is not False)) if not kept]
    if not ignored:
        return PreflightFinding("destination", PreflightVerdict.OK, "written, created exclusively and read back", "", probe.url)
    found = f"the store takes no notice of {' and '.join(ignored)}, so a claim there keeps no second producer away"
    remedy = "Publish to a store that does, or make sure that there is one producer and pass --ignore-claim."
    return PreflightFinding("destination", PreflightVerdict.FAIL if for_claim else PreflightVerdict.WARN, found, remedy, probe.url)


def _clock_finding(probe: Probe) -> PreflightFinding:
    offset_s = probe.clock_offset_s
    if offset_s is None:
        return PreflightFinding("clock", PreflightVerdict.OK, "not compared: the destination has no clock of its own")
    found = f"this machine's clock and the store's are {abs(offset_s):.0f} s apart"
    remedy = "Set the clock (NTP): claims and leases are judged by it."
    if abs(offset_s) > CLOCK_SKEW_S:
        return PreflightFinding("clock", PreflightVerdict.FAIL, found, remedy, probe.url)
    return PreflightFinding(
        "clock",
        PreflightVerdict.WARN if abs(offset_s) > CLOCK_WARN_S else PreflightVerdict.OK,
        found,
        remedy if abs(offset_s) > CLOCK_WARN_S else "",
        probe.url,
    )


def _remove_empty(root: os.PathLike[str]) -> None:
    for folder in (f"{PROBE_FOLDER}/leases", PROBE_FOLDER):
        with suppress(OSError):
            os.rmdir(os.path.join(root, folder))
