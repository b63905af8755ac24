"""Terraform itself, as far as it goes without a provider registry: formatting, and the tests of modules that have no provider."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from schemas.ids import CryptoHash, PartId
from schemas.published.object_layout import EpochLayout, catalogue_name, latest_name
from tests.support.terraform_files import TERRAFORM, Module, modules

TIMEOUT_S = 120

needs_terraform = pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")

PROVIDER_FREE = tuple(module for module in modules() if not module.providers)
"""What runs here for real. Tests of the others need their provider's program, which is in a registry."""


def _terraform(arguments: list[str], folder: Path, data: Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    (data / "empty.tfrc").touch()
    environment = {
        **os.environ,
        "TF_CLI_CONFIG_FILE": str(data / "empty.tfrc"),
        "TF_DATA_DIR": str(data / "terraform"),
        "CHECKPOINT_DISABLE": "1",
        "TF_IN_AUTOMATION": "1",
    }
    return subprocess.run(
        ["terraform", *arguments], cwd=folder, env=environment, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


@needs_terraform
def test_files_are_formatted(tmp_path: Path) -> None:
    """As `terraform fmt` writes them."""
    done = _terraform(["fmt", "-check", "-recursive", "-diff"], TERRAFORM, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_terraform
@pytest.mark.parametrize("module", PROVIDER_FREE, ids=lambda module: module.name)
def test_modules_without_a_provider_pass_their_own_tests(module: Module, tmp_path: Path) -> None:
    """Validations, names, sizes, grants."""
    assert _terraform(["init", "-backend=false", "-input=false"], module.folder, tmp_path).returncode == 0
    done = _terraform(["test", "-no-color"], module.folder, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = sum(len(re.findall(r'^run "', file.read_text(), flags=re.MULTILINE)) for file in module.folder.glob("tests/*.tftest.hcl"))
    assert f"{runs} passed, 0 failed" in done.stdout


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_tests_that_need_a_registry_say_so(module: Module) -> None:
    """And only modules with a provider have them."""
    for file in module.folder.glob("tests/*.tftest.hcl"):
        text = file.read_text()
        assert ("mock_provider" in text) == bool(module.providers) == ("NEEDS A PROVIDER REGISTRY" in text), file


@pytest.fixture(scope="module")
def grants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str | None]]:
    """The grants of modules/access, as terraform computes them."""
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed")
    folder, data = TERRAFORM / "modules" / "access", tmp_path_factory.mktemp("terraform")
    assert _terraform(["init", "-backend=false", "-input=false"], folder, data).returncode == 0
    values = {
        "project_id": "example-project",
        "project_number": "1",
        "keeper_member": "serviceAccount:keeper@example.org",
        "deleter_role": "projects/example-project/roles/deleter",
    }
    arguments = ["console", *(f"-var={name}={value}" for name, value in values.items())]
    done = _terraform(arguments, folder, data, "jsonencode(local.of_buckets)\n")
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, str | None]] = json.loads(json.loads(done.stdout.strip().splitlines()[-1]))
    return found


def _holds(condition: str, name: str) -> bool:
    """Evaluate the two functions of Google's condition language that the grants use, over an object's full name."""
    resource = f"projects/_/buckets/example-mainnet-state/objects/near/{name}"

    def term(text: str) -> bool:
        if ends := re.fullmatch(r'resource\.name\.endsWith\("([^"]+)"\)', text):
            return resource.endswith(ends[1])
        extract = re.fullmatch(r'resource\.name\.extract\("([^"{]+)\{name\}"\) != ""', text)
        assert extract, f"{text} is of a form that this test can't judge"
        return bool(resource.partition(extract[1])[2])

    return any(term(text.strip()) for text in condition.split("||"))


EPOCH = EpochLayout("mainnet", 3180, CryptoHash(bytes(range(32))))
REPLACED = [
    latest_name("mainnet"),
    catalogue_name("mainnet"),
    EPOCH.manifest,
    EPOCH.claim,
    EPOCH.shard_statement(6),
    EPOCH.torrent(6),
    EPOCH.lease("0" * 32),
]
NEVER_REPLACED = [
    EPOCH.state_part(6, PartId(0, 4)),
    EPOCH.state_header(6),
    EPOCH.evidence(6, bytes(32)),
    EPOCH.manifest_revision(1),
    EPOCH.scrub,
]


@pytest.mark.parametrize("name", REPLACED)
def test_the_producer_may_replace_what_its_work_replaces(grants: dict[str, dict[str, str | None]], name: str) -> None:
    """Each object that is swapped in a production, by the name that object_layout gives it."""
    assert _holds(grants["producer-replaces"]["condition"] or "", name)


@pytest.mark.parametrize("name", NEVER_REPLACED)
def test_the_producer_may_not_replace_what_never_changes(grants: dict[str, dict[str, str | None]], name: str) -> None:
    """Parts, headers, evidence, revisions; the scrub's journal is the keeper's."""
    assert not _holds(grants["producer-replaces"]["condition"] or "", name)


@pytest.mark.parametrize("name", [*REPLACED, *NEVER_REPLACED])
def test_a_build_worker_creates_parts_alone(grants: dict[str, dict[str, str | None]], name: str) -> None:
    """All else of a production is put by its driver."""
    assert _holds(grants["builder-creates"]["condition"] or "", name) == (name == EPOCH.state_part(6, PartId(0, 4)))


@pytest.mark.parametrize("name", [*REPLACED[:-1], *NEVER_REPLACED])
def test_the_seeder_writes_leases_alone(grants: dict[str, dict[str, str | None]], name: str) -> None:
    """It is trusted with nothing else."""
    for grant in ("seeder-leases", "seeder-unleases"):
        assert not _holds(grants[grant]["condition"] or "", name)
        assert _holds(grants[grant]["condition"] or "", EPOCH.lease("0" * 32))


def _of_amazon(name: str) -> list[str]:
    """Return the patterns of a local of modules/s3_identities, each without the bucket before it."""
    text = (TERRAFORM / "modules" / "s3_identities" / "main.tf").read_text()
    line = next(line for line in text.splitlines() if re.match(rf" +{name} += ", line))
    return [pattern.split("}/")[-1] for pattern in re.findall(r'"([^"]*\*[^"]*)"', line)]


@pytest.mark.parametrize("name", REPLACED)
def test_amazons_bucket_takes_a_put_without_a_condition_of_what_is_replaced(name: str) -> None:
    """The same names as on Google's store."""
    assert any(fnmatchcase(f"near/{name}", pattern) for pattern in _of_amazon("replaced"))


@pytest.mark.parametrize("name", NEVER_REPLACED)
def test_amazons_bucket_takes_one_put_of_what_never_changes(name: str) -> None:
    """All that is put without a condition is of those names."""
    assert not any(fnmatchcase(f"near/{name}", pattern) for pattern in _of_amazon("replaced"))


def test_amazons_producer_may_end_its_claim_and_its_leases() -> None:
    """Both are given up by deleting them, and nothing else is deleted in a production."""
    leases = _of_amazon("leases")
    ended = [*leases, *_of_amazon("ended")]
    assert [name for name in (*REPLACED, *NEVER_REPLACED) if any(fnmatchcase(f"near/{name}", pattern) for pattern in ended)] == [
        EPOCH.claim,
        EPOCH.lease("0" * 32),
    ]


@pytest.mark.parametrize("name", [*REPLACED, *NEVER_REPLACED])
def test_amazons_build_worker_creates_parts_alone(name: str) -> None:
    """As on Google's store."""
    assert any(fnmatchcase(f"near/{name}", pattern) for pattern in _of_amazon("parts")) == (name == EPOCH.state_part(6, PartId(0, 4)))
