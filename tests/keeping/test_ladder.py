"""Retention by a ladder: whole parts of some epochs, deltas of all; what stays is always enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from pipelines.bucket.chain_catalogue import CatalogueWriter, steps_to
from pipelines.bucket.lease_keeper import EpochLease
from pipelines.execution.stage_runner import silent_runner
from pipelines.keeping.collect_epochs import CollectionResult, collect_epochs, thin_epoch
from pipelines.keeping.ladder import find_steps
from pipelines.keeping.retention import RetentionRule, Verdict
from pipelines.keeping.scrub_chain import ChainScrub, ScrubSettings
from pipelines.keeping.stored_ladder import thin_steps
from pipelines.kernel.choice import choose_kernel
from pipelines.producing.rebuild.rebuilt_epoch import EpochRebuild
from pipelines.stores.open_store import open_store
from schemas.published.object_layout import EpochLayout
from schemas.published.scrub_state import WHOLE_PPM
from tests.support.delta_epochs import DeltaEpochs
from tests.support.productions import inject
from tests.support.records import Pairs
from tests.support.stored_epochs import CHAIN_ID

HEIGHTS = range(8, 15)


class Killed(BaseException):
    """Nothing cleans up after this."""


def pairs_of(epoch_height: int) -> Pairs:
    """Return records of which every epoch changes one."""
    return [
        (b"\x00" + f"account{number:03d}.near".encode(), Random(number if number > epoch_height - 8 else 100 + number).randbytes(300))
        for number in range(30)
    ]


@pytest.fixture
def epochs() -> DeltaEpochs:
    """Epochs 8 to 14, with a delta from each to the next."""
    made = DeltaEpochs()
    for height in HEIGHTS:
        made.publish(height, pairs_of(height))
        if height > HEIGHTS.start:
            made.make_delta(height - 1, height)
    return made


def collect(epochs: DeltaEpochs, keep_epochs: int = 100, full_every: int | None = 4, *, plan_only: bool = False) -> CollectionResult:
    """Collect, each epoch proved before its parts go."""
    runner = silent_runner()
    prove = EpochRebuild(runner, choose_kernel("auto"), epochs.store_url).why_not
    return collect_epochs(epochs.store_url, CHAIN_ID, RetentionRule(keep_epochs, full_every=full_every), plan_only=plan_only, prove=prove)


def verdicts(result: CollectionResult) -> dict[int, Verdict]:
    """Return what was decided, by height."""
    return {epoch.decision.layout.epoch_height: epoch.decision.verdict for epoch in result.epochs}


def steps_of(epochs: DeltaEpochs) -> dict[int, list[int]]:
    """Return the heights of the catalogue's steps to each epoch that is not whole."""
    found = {height: steps_to(open_store(epochs.store_url), epochs.layout(height)) for height in HEIGHTS}
    return {height: [step.epoch_height for step in steps] for height, steps in found.items() if steps}


def thin(*heights: int) -> dict[int, Verdict]:
    """Return the verdicts where these are thin and the others are kept."""
    return {height: Verdict.THIN if height in heights else Verdict.KEEP for height in HEIGHTS}


def test_parts_of_every_fourth_epoch_stay_and_the_others_are_had_from_them(epochs: DeltaEpochs, tmp_path: Path) -> None:
    """Byte for byte; the newest stays whole too, and the catalogue says how each is had."""
    before = {height: epochs.parts(height) for height in HEIGHTS}
    result = collect(epochs)
    assert verdicts(result) == thin(9, 10, 11, 13)
    assert result.deleted_bytes == sum(len(data) for height in (9, 10, 11, 13) for data in before[height].values())
    assert [height for height in HEIGHTS if epochs.parts(height)] == [8, 12, 14]
    assert steps_of(epochs) == {9: [8], 10: [8, 9], 11: [8, 9, 10], 13: [12]}
    rebuild = EpochRebuild(epochs.runner, choose_kernel("auto"), epochs.store_url)
    for height, steps in ((11, (8, 9, 10)), (13, (12,))):
        rebuild.run(epochs.layout(height), [epochs.layout(step) for step in steps], tmp_path / str(height))
        assert epochs.parts(height, str(tmp_path / str(height))) == before[height]
    assert verdicts(collect(epochs)) == thin()
    assert steps_of(epochs)[11] == [8, 9, 10]


def test_what_kept_epochs_are_rebuilt_of_is_kept_too(epochs: DeltaEpochs) -> None:
    """With and without a ladder's option; it goes when they go."""
    collect(epochs)
    for full_every in (4, None):
        result = collect(epochs, keep_epochs=4, full_every=full_every)
        assert verdicts(result) == thin()
        assert "epoch 11 is rebuilt of it" in {epoch.decision.reason for epoch in result.epochs}
    assert verdicts(collect(epochs, keep_epochs=3)) == {
        **dict.fromkeys((8, 9, 10, 11), Verdict.COLLECT), **dict.fromkeys((12, 13, 14), Verdict.KEEP)
    }  # fmt: skip
    assert steps_of(epochs) == {13: [12]}


def test_an_epoch_that_no_delta_leads_to_stays_whole(epochs: DeltaEpochs) -> None:
    """And is what later ones are had from."""
    open_store(epochs.store_url).delete(epochs.delta(9, 10).object_name(0))
    assert verdicts(collect(epochs)) == thin(9, 11, 13)
    assert steps_of(epochs) == {9: [8], 11: [10], 13: [12]}


def test_parts_go_only_after_they_were_rebuilt(epochs: DeltaEpochs) -> None:
    """A delta of the right size and other bytes keeps the parts of all that need it."""
    name, store = epochs.delta(9, 10).object_name(0), open_store(epochs.store_url)
    data = store.get(name, 0, 1 << 20)
    store.put(name, data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    result = collect(epochs)
    assert verdicts(result) == thin(9, 13)
    assert sum("can't be rebuilt" in epoch.decision.reason for epoch in result.epochs) == 2


def test_an_epoch_that_is_read_keeps_its_parts(epochs: DeltaEpochs) -> None:
    """Until the reader has gone."""
    lease = EpochLease(open_store(epochs.store_url), epochs.layout(10), "fetch")
    lease.renew()
    assert verdicts(collect(epochs)) == thin(9, 11, 13)
    assert steps_of(epochs)[11] == [10]
    lease.release()


def killed_at_the_second(is_counted: Callable[[str, str], bool]) -> Callable[[str, str, int], None]:
    """Return what ends a process when it calls the store a second time in some way."""
    left = 1

    def kill(method: str, name: str, _number: int) -> None:
        nonlocal left
        if is_counted(method, name):
            left -= 1
            if left < 0:
                raise Killed

    return kill


def attempts(
    monkeypatch: pytest.MonkeyPatch, epochs: DeltaEpochs, is_counted: Callable[[str, str], bool], act: Callable[[], object]
) -> Iterator[None]:
    """Yield after each attempt, of which all but the last are killed at their second such call of the store."""
    ended = False
    while not ended:
        with monkeypatch.context() as patch:
            inject(patch, epochs.store_url, killed_at_the_second(is_counted))
            try:
                act()
                ended = True
            except Killed:
                pass
        yield


def test_a_plan_lets_nothing_go(epochs: DeltaEpochs) -> None:
    """It says what would."""
    result = collect(epochs, plan_only=True)
    assert verdicts(result) == thin(9, 10, 11, 13)
    assert all(epochs.parts(height) for height in HEIGHTS) and not steps_of(epochs)


def test_a_collection_of_parts_that_is_killed_is_ended_by_the_next(epochs: DeltaEpochs, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each deletion; at any time every epoch is whole or its steps are known."""
    kills = -1
    for _ in attempts(monkeypatch, epochs, lambda method, name: method == "delete" and "state_part" in name, lambda: collect(epochs)):
        kills += 1
        known = steps_of(epochs)
        assert all(len(epochs.parts(height)) == 3 or height in known for height in HEIGHTS)
    assert kills >= 4
    assert [height for height in HEIGHTS if epochs.parts(height)] == [8, 12, 14]
    assert steps_of(epochs) == {9: [8], 10: [8, 9], 11: [8, 9, 10], 13: [12]}


def test_a_scrub_does_not_miss_parts_that_were_let_go(epochs: DeltaEpochs) -> None:
    """Those of whole epochs it does; a catalogue that is rebuilt still knows."""
    collect(epochs)
    CatalogueWriter(open_store(epochs.store_url), CHAIN_ID).rebuild()
    open_store(epochs.store_url).delete(next(iter(epochs.parts(12))))
    settings = ScrubSettings(epochs.store_url, tuple(map(epochs.layout, HEIGHTS)), WHOLE_PPM, None, repair=False)
    outcomes = ChainScrub(silent_runner(), settings).run().epochs
    assert [len(outcome.scrubbed.harmful) for outcome in outcomes if outcome.scrubbed.layout.epoch_height != 12] == [0] * 6


def test_a_part_that_was_lost_is_missed_after_a_collection_too(epochs: DeltaEpochs) -> None:
    """Deltas lead to its epoch, but no collection has let it go; what it is rebuilt of stays."""
    name = next(iter(epochs.parts(10)))
    open_store(epochs.store_url).delete(name)
    for keep_epochs in (100, 5):
        result = collect(epochs, keep_epochs, full_every=None)
        assert not steps_of(epochs)
    assert [epoch.decision.layout.epoch_height for epoch in result.collected] == [8]
    settings = ScrubSettings(epochs.store_url, (epochs.layout(10),), WHOLE_PPM, None, repair=False)
    (outcome,) = ChainScrub(silent_runner(), settings).run().epochs
    assert [finding.object_name for finding in outcome.scrubbed.harmful] == [name]


def test_an_epoch_whose_parts_are_back_is_whole(epochs: DeltaEpochs) -> None:
    """Whoever has put them."""
    parts = epochs.parts(10)
    collect(epochs)
    for name, data in parts.items():
        open_store(epochs.store_url).put(name, data)
    collect(epochs, full_every=None)
    assert steps_of(epochs) == {9: [8], 11: [10], 13: [12]}


def thin_one(epochs: DeltaEpochs, height: int, full_every: int = 4, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> bool:
    """Let one epoch's parts go, once they were rebuilt."""
    prove = EpochRebuild(epochs.runner, choose_kernel("auto"), epochs.store_url).why_not
    return thin_epoch(epochs.store_url, epochs.layout(height), full_every, prove, now=now)


def test_parts_go_as_epochs_come() -> None:
    """Never more than the whole ones and two at a time; in the end it is what a collection would leave."""
    epochs, peak = DeltaEpochs(), 0
    for height in HEIGHTS:
        epochs.publish(height, pairs_of(height))
        if height > HEIGHTS.start:
            epochs.make_delta(height - 1, height)
            assert thin_one(epochs, height - 1) == bool((height - 1) % 4)
        whole = [one for one in HEIGHTS if one <= height and epochs.parts(one)]
        peak = max(peak, len([one for one in whole if one % 4]))
    assert peak == 1
    assert steps_of(epochs) == {9: [8], 10: [8, 9], 11: [8, 9, 10], 13: [12]}
    assert verdicts(collect(epochs)) == thin()


def test_what_is_needed_stays_whole(epochs: DeltaEpochs) -> None:
    """What is read, what others are rebuilt of, what no delta leads to, what can't be rebuilt, and what the pointer names."""
    lease = EpochLease(open_store(epochs.store_url), epochs.layout(9), "fetch")
    lease.renew()
    assert not thin_one(epochs, 9)
    assert thin_one(epochs, 10)
    lease.release()
    assert not thin_one(epochs, 9), "10 is rebuilt of it"
    assert not thin_one(epochs, 14), "the pointer names it"
    open_store(epochs.store_url).delete(epochs.delta(12, 13).object_name(0))
    assert not thin_one(epochs, 13)
    name, store = epochs.delta(10, 11).object_name(0), open_store(epochs.store_url)
    data = store.get(name, 0, 1 << 20)
    store.put(name, data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    assert not thin_one(epochs, 11)
    assert [height for height in HEIGHTS if epochs.parts(height)] == [8, 9, 11, 12, 13, 14]


def test_parts_that_go_one_epoch_at_a_time_can_be_killed_at_any_deletion(epochs: DeltaEpochs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every epoch is whole or has its way; the same call ends it."""
    # A mark has the second that it was made in: with another one at each attempt none would get beyond it.
    kills, now = -1, datetime.now(UTC)

    def is_counted(method: str, name: str) -> bool:
        return method in ("delete", "swap") and ("state_part" in name or "catalogue" in name)

    for _ in attempts(monkeypatch, epochs, is_counted, lambda: thin_one(epochs, 9, now=lambda: now)):
        kills += 1
        assert len(epochs.parts(9)) == 3 or thin_steps(open_store(epochs.store_url), epochs.manifest(9)) == (epochs.layout(8),)
        assert kills < 20
    assert kills >= 2
    assert steps_of(epochs) == {9: [8]} and not epochs.parts(9)


def test_the_fewest_steps_are_taken(epochs: DeltaEpochs) -> None:
    """From any whole epoch that deltas lead from."""
    eight, nine, ten, eleven = (epochs.layout(height) for height in (8, 9, 10, 11))
    bases = {eleven: {ten, eight}, ten: {nine}, nine: {eight}, eight: set[EpochLayout]()}
    assert find_steps(eleven, bases.__getitem__, {eight}.__contains__) == (eight,)
    assert find_steps(ten, bases.__getitem__, {eight}.__contains__) == (eight, nine)
    assert find_steps(ten, bases.__getitem__, {eleven}.__contains__) is None
    assert find_steps(eleven, {eleven: {eleven}}.__getitem__, {eight}.__contains__) is None
