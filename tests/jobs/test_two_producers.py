"""Two producers at once on one folder, as processes of their own, neither of which minds the other's claim."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import PROCESS_TIMEOUT_S, epoch_folder, lasting_objects_in, start_process, statecast
from tests.support.nodes import node_a
from tests.support.published import public_key, published_node_a, signing_key


@pytest.mark.parametrize("levels", [pytest.param((1, 1), id="same bytes", marks=pytest.mark.slow), pytest.param((1, 9), id="other bytes")])
def test_two_producers_at_once_agree(tmp_path: Path, levels: tuple[int, int]) -> None:
    """Both end well, also when their compression differs: one manifest that lists what is there, both signatures, no evidence."""
    home, to = node_a(), tmp_path / "out"
    processes = [
        start_process(
            *("produce", "--node-home", home, "--context", home / "context.json", "--num-parts", 5, "--to", to, "--in-process"),
            *("--signing-key", signing_key(key), "--work", f"file://{tmp_path / key}", "--zstd-level", level, "--ignore-claim"),
        )
        for key, level in zip(("first", "second"), levels, strict=True)
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=PROCESS_TIMEOUT_S)
        assert process.returncode == 0, stderr
    keys = ("--trust-key", public_key("first"), "--trust-key", public_key("second"))
    outcome = statecast("check", to, "--in-process", "--json", *keys, "--trust-threshold", 2)
    assert outcome.code == 0, outcome.stderr
    assert not (epoch_folder(to) / "evidence").exists()
    assert set(lasting_objects_in(to)) == set(lasting_objects_in(published_node_a()))
    revisions = sorted(path.name for path in (epoch_folder(to) / "manifests").iterdir())
    assert revisions == [f"{number + 1:06d}.json" for number in range(len(revisions))]
    if levels[0] == levels[1]:
        parts = {name: digest for name, digest in lasting_objects_in(to).items() if "state_part" in name}
        assert parts.items() <= lasting_objects_in(published_node_a()).items()
