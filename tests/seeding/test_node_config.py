"""Peers in a node's config.json: added and taken out again, byte for byte, whatever else stands there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipelines.seeding.node_config import add_peers, backup_of, restore_config, with_peers, without_peers
from schemas.errors import InvalidInputError
from tests.support.peer_recordings import named_key

OURS = [named_key("even").peer_id, named_key("odd").peer_id]
NAMES = [f"{key}@127.0.0.1:2456{number}" for number, key in enumerate(OURS, start=8)]
OTHER = f"{named_key('other').peer_id}@192.0.2.1:24567"
ADDRESS = "127.0.0.1:24567"

TEXTS = [
    '{"network":{"boot_nodes":"","experimental":{}}}',
    f'{{"network": {{"boot_nodes": "{OTHER}", "experimental": {{"inbound_disabled": false}}}}, "x": 1e-7, "y": {10**22}}}\n',
    '{\r\n  "a": [{"network": {"boot_nodes": 1}}],\r\n  "network": {\r\n    "boot_nodes": "\\u0065d",\r\n    "experimental": {\r\n      "q": "\\"}" } }\r\n}',
    '{"network": {"experimental": {"tier3_public_addr": null, "b": {}}, "boot_nodes": ""}}',
    '{"network": {"experimental": {"b": 1, "tier3_public_addr": "198.51.100.1:1"}, "boot_nodes": ""}}',
    '{"network": {"boot_nodes": ""}}',
    '{"network": {"boot_nodes": "", "experimental": null}}',
]


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_added_is_taken_out_and_nothing_else_moves(tmp_path: Path, text: str) -> None:
    """Whatever the spaces, the order, the numbers: the file is the same bytes again, with owner and mode."""
    file = tmp_path / "config.json"
    file.write_bytes(text.encode())
    file.chmod(0o640)
    assert add_peers(file, NAMES, ADDRESS) and not add_peers(file, NAMES, ADDRESS)
    changed, before = json.loads(file.read_text()), json.loads(text)
    assert changed["network"]["boot_nodes"].split(",")[-2:] == NAMES
    wanted = before["network"].get("experimental")
    if isinstance(wanted, dict) and wanted.get("tier3_public_addr") is None:
        assert changed["network"]["experimental"].pop("tier3_public_addr") == ADDRESS
        wanted.pop("tier3_public_addr", None)
    changed["network"]["boot_nodes"] = before["network"]["boot_nodes"]
    assert changed == before
    assert restore_config(file, OURS, ADDRESS) and not restore_config(file, OURS, ADDRESS)
    assert file.read_bytes() == text.encode() and (os.stat(file).st_mode & 0o777) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json"]


def test_what_was_changed_meanwhile_stays(tmp_path: Path) -> None:
    """Somebody's own entries and settings of the time in between."""
    file = tmp_path / "config.json"
    file.write_text(TEXTS[1])
    add_peers(file, NAMES, ADDRESS)
    document = json.loads(file.read_text())
    document["network"]["boot_nodes"] += f",{OTHER.replace('.1:', '.2:')}"
    document["archive"] = False
    file.write_text(json.dumps(document, indent=3))
    assert restore_config(file, OURS, ADDRESS) and not backup_of(file).exists()
    left = json.loads(file.read_text())
    assert left == {
        **document,
        "network": {"boot_nodes": f"{OTHER},{OTHER.replace('.1:', '.2:')}", "experimental": {"inbound_disabled": False}},
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"network": {}}',
        '{"network": {"boot_nodes": ["a"]}}',
        '{"network": {"boot_nodes": ""}, "network": {"boot_nodes": ""}}',
        '{"network": {"boot_nodes": ""}} // mine',
        '{"network": {"boot_nodes": "", "x": NaN}}',
        "[" * 5000,
    ],
)
def test_a_file_of_another_form_is_refused_and_left(tmp_path: Path, text: str) -> None:
    """With what to do by hand."""
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(InvalidInputError, match="not as expected"):
        add_peers(file, NAMES, ADDRESS)
    assert file.read_text() == text and list(tmp_path.iterdir()) == [file]


def test_the_last_member_of_an_object_is_taken_out_with_the_comma_before_it() -> None:
    """Where somebody has put the members in another order."""
    text = with_peers(TEXTS[1], NAMES, ADDRESS)
    moved = text.replace(f'"tier3_public_addr": "{ADDRESS}",', "").replace("false}", f'false, "tier3_public_addr": "{ADDRESS}"}}')
    assert without_peers(moved, OURS, ADDRESS) == TEXTS[1]
