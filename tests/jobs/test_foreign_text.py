"""What buckets, manifests, proofs, datasets and other programs say reaches a terminal as text, and ends no command."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from dataclasses import replace
from pathlib import Path

import jinja2
import pytest
from rich.text import Text

from jobs.event_lines import EventLines
from jobs.fetch_display import LiveDisplay
from jobs.report import shown_in_html
from jobs.terminal import BarProgress, ShownConsole, coloured, configure_logging
from jobs.watch_log import WatchLog
from pipelines.execution.progress import StageProgress
from pipelines.fetching.fetch_progress import FetchProgress, SourceProgress
from pipelines.proving.wanted_record import wanted_record
from schemas.nearcore.access_key import AccessKey, FunctionCallLimits, PermissionKind
from schemas.published.manifest import Manifest
from tests.support.commands import Outcome, statecast
from tests.support.proofs import small_proof
from tests.support.published import revise, session_folder
from tests.support.stored_epochs import epoch_layout, publish_epoch

TITLE = "\x1b]0;owned\x07"
UNSEEN = "\u202ercs\u200b\u2066\ufeff\U000e0041\x9b31m\x7f"
MARKUP = "[/x][link=http://evil.example][bold red]:skull:[/]"
MARKUP_IN_ASCII = f"{MARKUP} [[[ \\"


def is_text(outcome: Outcome) -> bool:
    """Whether everything that a command said is lines that a terminal only shows."""
    return all(line.isprintable() for line in [*outcome.stdout.splitlines(), *outcome.stderr.splitlines()])


@pytest.fixture(scope="module")
def bucket() -> Path:
    """Return a folder with an epoch whose manifest and neighbours hold what a terminal must not obey."""
    folder = session_folder() / "foreign-text"
    publish_epoch(str(folder), 7, complete=False)

    def change(manifest: Manifest) -> Manifest:
        missing = tuple(replace(entry, reason=MARKUP_IN_ASCII) for entry in manifest.missing)
        return replace(manifest, missing=missing, producer_version="statecast [/x]")

    revise(folder, change)
    (manifest,) = folder.rglob("manifest.json")
    for kept in (manifest.parent / "manifests").iterdir():
        kept.chmod(0o600)
        kept.write_bytes(manifest.read_bytes())
    for name in (f"foreign {TITLE}", f"{UNSEEN}", MARKUP.replace("/", "\u2215"), "two\nlines"):
        (folder / epoch_layout(7).folder / name).write_bytes(b"?")
    return folder


@pytest.mark.parametrize(
    "arguments",
    [("inspect", "EPOCH"), ("check", "EPOCH", "--in-process"), ("scrub", "EPOCH", "--in-process"), ("catalogue", "BUCKET"),
     ("gc", "BUCKET", "--keep-epochs", "1", "--plan"), ("fetch", "EPOCH", "--insecure", "--no-lease", "--verify-workers", "1", "--into", "INTO"),
     ("fetch", "EPOCH", "--insecure", "--no-lease", "--into", "INTO", "--plan")],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_a_bucket_is_shown_as_text(arguments: tuple[str, ...], form: tuple[str, ...], bucket: Path, tmp_path: Path) -> None:
    """Its manifest and the names in it, in tables, lines and JSON; a good epoch stays a good one."""
    places = {"EPOCH": bucket / epoch_layout(7).folder, "BUCKET": bucket, "INTO": tmp_path / "into"}
    outcome = statecast(*(places.get(word, word) for word in arguments), *form)
    assert outcome.code == 0, outcome.stderr
    assert is_text(outcome), (outcome.stdout, outcome.stderr)


def test_a_reason_is_shown_word_for_word(bucket: Path) -> None:
    """Brackets that a table would take for markup are the text's own."""
    assert f"shard of shard 1: {MARKUP_IN_ASCII}" in statecast("check", bucket / epoch_layout(7).folder, "--in-process").stdout


def test_a_proof_is_shown_as_text(tmp_path: Path) -> None:
    """Names of methods are anybody's."""
    limits = FunctionCallLimits(None, f"receiver{UNSEEN}", (TITLE, MARKUP))
    access_key = AccessKey(7, PermissionKind.FUNCTION_CALL, limits).to_bytes()
    wanted = wanted_record("alice.near", access_key="ed25519:" + "1" * 32)
    (tmp_path / "proof").write_bytes(small_proof([(wanted.trie_key, access_key), (b"\x00bob.near", b"?")], wanted).to_bytes())
    for form in ((), ("--json",)):
        outcome = statecast("verify-proof", tmp_path / "proof", *form)
        assert outcome.code == 0 and is_text(outcome), (outcome.stdout, outcome.stderr)
        assert MARKUP in outcome.stdout


@pytest.mark.parametrize(
    "arguments",
    [("inspect", "PLACE"), ("fetch", "PLACE", "--insecure", "--into", "INTO"), ("catalogue", "gs://PLACE"), ("gc", "https://PLACE"),
     ("prove", "PLACE", "--account", "PLACE"), ("get", "PLACE", "--account", "PLACE", "--to", "PLACE.csv"),
     ("verify-proof", "PLACE"), ("produce", "--from", "PLACE", "--to", "INTO"), ("PLACE",)],
    ids=lambda arguments: arguments[0].strip("PLACE") or "command",
)  # fmt: skip
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize("place", [TITLE, UNSEEN, MARKUP, "\udcff\ud800"], ids=["title", "unseen", "markup", "surrogates"])
def test_an_error_is_shown_as_text(arguments: tuple[str, ...], form: tuple[str, ...], place: str, bucket: Path, tmp_path: Path) -> None:
    """Whatever it repeats; in one line, with the exit code of its kind."""
    places = {"EPOCH": str(bucket / epoch_layout(7).folder), "INTO": str(tmp_path / "into")}
    outcome = statecast(*(places.get(word, word.replace("PLACE", place)) for word in arguments), *form)
    assert outcome.code not in (0, 1), outcome.stderr
    assert is_text(outcome), (outcome.stdout, outcome.stderr)
    assert bool(outcome.stdout) is bool(form)


class TestOnATerminal:
    """What is drawn over and over."""

    @pytest.fixture
    def screen(self) -> ShownConsole:
        """A terminal without colours, so that all that it obeys is what moves its cursor."""
        return ShownConsole(file=io.StringIO(), force_terminal=True, no_color=True, width=300)

    def text_on(self, screen: ShownConsole) -> str:
        """Return what is on it, without what moves the cursor and writes bold letters."""
        assert isinstance(screen.file, io.StringIO)
        return re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", screen.file.getvalue())

    def is_shown(self, screen: ShownConsole) -> bool:
        """Whether foreign text is there as text."""
        text = self.text_on(screen)
        return MARKUP in text and all(line.isprintable() for line in text.replace("\r", "").splitlines())

    def test_bars_and_notes(self, screen: ShownConsole) -> None:
        """A stage's shard, and a note above."""
        bars = BarProgress(screen)
        bars.note(f"note {TITLE}{UNSEEN}{MARKUP}")
        bars.stage(StageProgress(f"check{TITLE}", MARKUP, 1, 2))
        bars.close()
        assert self.is_shown(screen)

    def test_a_fetch(self, screen: ShownConsole) -> None:
        """Where parts come from, and what is wrong there."""
        live = LiveDisplay(screen)
        source = SourceProgress(f"http://[::1]/{TITLE}{MARKUP}", 0, 0, 0.0, 0, 1, "banned")
        live.progress(FetchProgress(0, 1, 0, 1, 0, 0.0, 0.0, None, (source,)))
        live.event("banned", {"source": source.source_id, "problem": UNSEEN})
        live.close()
        assert self.is_shown(screen)

    def test_what_no_table_of_ours_has_made(self, screen: ShownConsole) -> None:
        """A text object of a library's keeps no control characters."""
        screen.print(Text(f"{MARKUP}\x1b]0;x"), coloured((f"{TITLE}{UNSEEN}", "red")))
        assert self.is_shown(screen)


def test_lines_of_other_packages_are_shown_as_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """They log what servers say, with the URLs that they asked."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    configure_logging()
    logging.getLogger("urllib3.connectionpool").warning("Failed to parse headers (url=%s)", f"https://u:p@h/x?sig=secret {TITLE}")
    said = capsys.readouterr().err
    assert "...@h/x?... \\x1b]0;owned" in said and "secret" not in said and said.count("\n") == 1


def test_an_event_of_a_watcher_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    """As text and as JSON."""
    for events in (None, EventLines(sys.stdout, on_standard_output=True)):
        WatchLog(events).event("note", f"{TITLE}{UNSEEN}", {"place": f"a\nb {MARKUP}", "more": [TITLE]})
    configure_logging()
    captured = capsys.readouterr()
    assert all(line.isprintable() for line in (captured.out + captured.err).splitlines())
    assert MARKUP in captured.err and json.loads(captured.out)["place"].endswith(MARKUP)


def test_a_report_is_shown_text_and_keeps_its_plots() -> None:
    """What is HTML already stays."""
    page = jinja2.Environment(autoescape=True, finalize=shown_in_html).from_string("{{ place }} {{ plot | safe }}")
    shown = page.render(place=f"https://user:s3cr3t@host/?<{TITLE}", plot="<svg>\n</svg>")
    assert shown == "https://...@host/?... <svg>\n</svg>"
