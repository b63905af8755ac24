"""Commands over places that are only read: a web server, and an archive by fsspec."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.published.object_layout import parse_object_name
from tests.support.commands import objects_in, statecast
from tests.support.exported import exported_localnet
from tests.support.folder_server import folder_server
from tests.support.nodes import localnet_home
from tests.support.published import public_key, published_localnet, signing_key
from tests.support.zip_archive import zipped

ACCOUNT_ID = "08fb740e3a2727888fcb3ae7a2a9a5c56a82bbf4dcb5098cf238d6c2d997e559"


@pytest.fixture(scope="module")
def web_url() -> Iterator[str]:
    """The published localnet on a web server."""
    with folder_server(published_localnet()) as url:
        yield url


@pytest.fixture(scope="module")
def archive_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same in an archive."""
    return f"zip://::{zipped(published_localnet(), tmp_path_factory.mktemp('archive') / 'published.zip')}"


def _chain() -> str:
    (folder,) = published_localnet().glob("chain_id=*")
    return folder.name


def _epoch() -> str:
    (manifest,) = published_localnet().rglob("manifest.json")
    return str(manifest.parent.relative_to(published_localnet()))


@pytest.mark.parametrize("place", ["chain", "epoch"])
def test_an_epoch_on_a_web_server_is_checked(web_url: str, place: str) -> None:
    """By the chain's pointer or by its folder; every part is applied. Foreign objects are not looked for, since nothing lists them."""
    url = f"{web_url}/{_chain() if place == 'chain' else _epoch()}"
    outcome = statecast("check", url, "--trust-key", public_key(), "--in-process", "--json")
    assert outcome.code == 0, outcome.stderr
    folder = statecast("check", published_localnet(), "--trust-key", public_key(), "--in-process", "--json").document
    assert outcome.document["shards"] == folder["shards"]


def test_an_epoch_on_a_web_server_is_looked_at_and_proved_from(web_url: str, tmp_path: Path) -> None:
    """``inspect`` of the epoch and of an object, ``catalogue``, and ``prove``."""
    chain = f"{web_url}/{_chain()}"
    assert statecast("inspect", chain, "--json").document["kind"] == "manifest"
    part = next(name for name in objects_in(published_localnet()) if "state_part_" in name and parse_object_name(name) is not None)
    assert statecast("inspect", f"{web_url}/{part}", "--json").document["kind"] == "state_part"
    assert len(statecast("catalogue", chain, "--json").document["epochs"]) == 1
    made = statecast("prove", chain, "--account", ACCOUNT_ID, "--trust-key", public_key(), "--out", tmp_path / "proof.json", "--json")
    assert made.code == 0, made.stderr
    assert made.document["present"] is True


def test_what_needs_a_listing_of_a_web_server_says_so(web_url: str, tmp_path: Path) -> None:
    """One sentence, and what to name instead; exit code 2."""
    for arguments in (
        ("check", web_url, "--in-process"),
        ("inspect", web_url),
        ("scrub", f"{web_url}/{_epoch()}", "--full", "--trust-key", public_key(), "--in-process"),
        ("restore", f"{web_url}/{_epoch()}", "--to", f"dataset://{tmp_path}/state", "--in-process"),
        ("gc", f"{web_url}/{_chain()}", "--keep-epochs", 1),
        ("tables", f"dataset://{web_url}", "--to", tmp_path / "tables", "--in-process"),
    ):
        outcome = statecast(*arguments)
        assert (outcome.code, "can't be listed" in outcome.error_line) == (2, True), (arguments, outcome.stderr)


def test_one_shard_of_a_dataset_on_a_web_server_becomes_tables(tmp_path: Path) -> None:
    """Where the URL names the shard's folder, nothing needs to be listed; its files are read by ranges."""
    dataset = exported_localnet()
    summary = next(path for path in sorted(dataset.rglob("shard.json")))
    with folder_server(dataset) as url:
        place = f"dataset://{url}/{summary.parent.relative_to(dataset)}"
        outcome = statecast("tables", place, "--to", tmp_path / "tables", "--in-process", "--json")
    assert outcome.code == 0, outcome.stderr
    (expected,) = statecast("inspect", f"dataset://{summary.parent}", "--json").document["shards"]
    assert [(shard["shard_uid"], shard["records"]) for shard in outcome.document["shards"]] == [
        (expected["shard_uid"], expected["records"])
    ]


def test_an_archive_is_read_by_every_command_that_reads(archive_url: str, tmp_path: Path) -> None:
    """It is listed, so no epoch need be named."""
    checked = statecast("check", archive_url, "--trust-key", public_key(), "--in-process", "--json")
    assert checked.code == 0, checked.stderr
    assert statecast("inspect", archive_url, "--json").document["kind"] == "manifest"
    assert len(statecast("catalogue", archive_url, "--json").document["epochs"]) == 1
    made = statecast("prove", archive_url, "--account", ACCOUNT_ID, "--trust-key", public_key(), "--out", tmp_path / "proof.json")
    assert made.code == 0, made.stderr


def test_parts_are_fetched_out_of_an_archive(archive_url: str, tmp_path: Path) -> None:
    """Verified as from anywhere; no lease is tried where nothing can be written."""
    chain_id = _chain().partition("=")[2]
    into = tmp_path / "parts"
    outcome = statecast(
        "fetch", archive_url, "--chain-id", chain_id, "--shard-id", 0, "--into", into, "--trust-key", public_key(), "--json"
    )
    assert outcome.code == 0, outcome.stderr
    assert any("state_part_" in name for name in objects_in(into))
    assert '"lease"' not in outcome.stdout


def test_a_dataset_in_an_archive_becomes_tables(tmp_path: Path) -> None:
    """``tables`` reads it, and writes elsewhere."""
    archive = zipped(exported_localnet(), tmp_path / "dataset.zip")
    outcome = statecast("tables", f"dataset://zip://::{archive}", "--to", tmp_path / "tables", "--in-process", "--json")
    assert outcome.code == 0, outcome.stderr
    assert statecast("inspect", f"dataset://zip://::{archive}", "--json").document["kind"] == "dataset"


def test_what_is_only_read_is_no_destination(web_url: str, archive_url: str) -> None:
    """Said before any work, with the schemes that can be written."""
    for url in (web_url, archive_url, "ftp://host/folder"):
        for arguments in (
            ("produce", "--node-home", localnet_home(), "--to", url, "--signing-key", signing_key(), "--in-process"),
            ("watch", "--node-home", localnet_home(), "--to", url, "--signing-key", signing_key()),
            ("export", "--node-home", localnet_home(), "--to", f"dataset://{url}", "--in-process"),
            ("tables", f"dataset://{exported_localnet()}", "--to", url, "--in-process"),
        ):
            outcome = statecast(*arguments)
            assert outcome.code == 2, (arguments, outcome.stderr)
            assert "only read" in outcome.error_line
            assert "az://" in outcome.error_line
