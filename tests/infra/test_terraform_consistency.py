"""Modules fit together: what is declared is used and described, what is passed is taken, what is referred to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.producing.watch.watch_metrics import WatchMetrics
from pipelines.seeding.seed_metrics import SeedMetrics
from pipelines.seeding.status import SeedStatus
from tests.support.terraform_files import Module, fields, modules, plain

OPEN_TO_ALL = frozenset[str]()
"""Files that may name the whole internet's addresses: none. The seeder's port is opened by its Service."""
LABELLED = frozenset(
    {
        "google_storage_bucket",
        "google_container_cluster",
        "google_secret_manager_secret",
        "google_compute_address",
        "google_cloud_run_v2_job",
        "google_artifact_registry_repository",
        "google_monitoring_alert_policy",
        "aws_s3_bucket",
        "aws_iam_role",
        "aws_iam_policy",
    }
)
"""Resource types that take labels, and so must carry them."""
PROVIDERS_USED = {"google": "hashicorp/google", "aws": "hashicorp/aws", "helm": "hashicorp/helm"}

each_module = pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)


def _called(module: Module) -> dict[str, Module]:
    by_folder = {found.folder: found for found in modules()}
    return {name: by_folder[(module.folder / plain(body["source"])).resolve()] for name, body in module.of("module").items()}


@each_module
def test_every_variable_is_described_typed_and_used(module: Module) -> None:
    """An unused one misleads the operator who sets it."""
    for name, body in module.of("variable").items():
        assert plain(body.get("description", "")), f"{name} has no description"
        assert "type" in body, f"{name} has no type"
        declared = re.sub(rf'variable "{name}" {{.*?\n}}', "", module.text, flags=re.DOTALL)
        assert re.search(rf"\bvar\.{name}\b", declared), f"{name} is used nowhere but in its own validation"


@each_module
def test_every_output_is_described(module: Module) -> None:
    """Outputs are what the next module reads."""
    assert [name for name, body in module.of("output").items() if not plain(body.get("description", ""))] == []


@each_module
def test_every_reference_is_declared(module: Module) -> None:
    """Variables, modules and their outputs, resources and data sources, locals."""
    called = _called(module)
    assert set(re.findall(r"\bvar\.(\w+)", module.text)) <= set(module.of("variable"))
    for name, output in re.findall(r"\bmodule\.(\w+)(?:\.(\w+))?", module.text):
        assert name in called, f"module.{name} is not called"
        assert not output or output in called[name].of("output"), f"module.{name} has no output {output}"
    declared = {*module.of("resource"), *(f"data.{name}" for name in module.of("data"))}
    for reference in re.findall(r"\b((?:data\.)?(?:google|aws|helm)_\w+\.\w+)", module.text):
        assert reference in declared, f"{reference} is not declared"
    local_names = {name for kind, _, body in module.blocks if kind == "locals" for name in fields(body)}
    assert set(re.findall(r"\blocal\.(\w+)", module.text)) == local_names


@each_module
def test_every_call_passes_what_the_module_takes(module: Module) -> None:
    """All that is required, nothing that is unknown."""
    for name, callee in _called(module).items():
        passed = set(fields(module.of("module")[name])) - {"source", "version", "depends_on", "for_each", "count", "providers"}
        taken = callee.of("variable")
        assert passed <= set(taken), f"{name} is passed {passed - set(taken)}"
        required = {variable for variable, body in taken.items() if "default" not in body}
        assert required <= passed, f"{name} is not passed {required - passed}"


@each_module
def test_versions_are_pinned(module: Module) -> None:
    """Terraform's and every provider's, from below and from above; no module from elsewhere without a version."""
    required = [body for kind, _, body in module.blocks if kind == "terraform"]
    assert plain(required[0]["required_version"]).startswith(">= ")
    for name, provider in module.providers.items():
        assert provider["source"] == PROVIDERS_USED[name]
        assert re.fullmatch(r">= \d+\.\d+, < \d+\.\d+|~> \d+\.\d+", provider["version"]), f"{name} {provider['version']}"
    for name, body in module.of("module").items():
        assert plain(body["source"]).startswith("../"), f"{name} comes from elsewhere: pin its version and allow it here"


@each_module
def test_providers_that_are_used_are_required(module: Module) -> None:
    """And those that are required are used, here or (in an environment) by a module."""
    used = {name.split("_")[0] for name in (*module.of("resource"), *module.of("data"))}
    below = {provider for callee in _called(module).values() for provider in callee.providers}
    assert used <= set(module.providers) <= used | below


@each_module
def test_resources_carry_labels(module: Module) -> None:
    """By them costs are told apart."""
    for name, body in module.of("resource").items():
        if name.split(".")[0] in LABELLED:
            assert {"labels", "tags", "resource_labels", "user_labels"} & set(fields(body)), f"{name} has no labels"


@each_module
def test_nothing_is_open_to_the_whole_internet(module: Module) -> None:
    """By address; who may read a public bucket is said by name."""
    for file in module.folder.glob("*.tf"):
        if str(file.relative_to(module.folder.parents[1])) not in OPEN_TO_ALL:
            assert not re.search(r"\b0\.0\.0\.0/0|::/0", file.read_text()), file.name


@each_module
def test_a_module_has_the_usual_files(module: Module) -> None:
    """And tells in a README what it is."""
    assert {"main.tf", "variables.tf", "outputs.tf", "versions.tf", "README.md"} <= {file.name for file in module.folder.iterdir()}


@each_module
def test_environments_alone_configure_providers_and_state(module: Module) -> None:
    """A module with a provider of its own can't be used twice."""
    environment = module.name.startswith("environments/")
    backends = [body for kind, _, body in module.blocks if kind == "terraform" and "backend" in body]
    assert bool(module.of("provider")) == bool(backends) == environment


@each_module
def test_example_values_are_of_variables_that_are_there(module: Module) -> None:
    """terraform warns about unknown ones and goes on."""
    example = module.folder / "terraform.tfvars.example"
    if module.name.startswith("environments/"):
        given = set(re.findall(r"^(\w+)\s*=", example.read_text(), flags=re.MULTILINE))
        required = {name for name, body in module.of("variable").items() if "default" not in body}
        assert required <= given <= set(module.of("variable"))
    else:
        assert not example.exists()


def test_every_module_is_called() -> None:
    """By an environment, or by a module that one calls."""
    called = {callee.folder for module in modules() for callee in _called(module).values()}
    assert {module.folder for module in modules() if module.name.startswith("modules/")} == called


def test_no_secret_is_written_down() -> None:
    """Neither a key nor a file of terraform's state."""
    folder = modules()[0].folder.parents[1]
    files = [file for file in folder.rglob("*") if file.is_file() and ".terraform" not in file.parts]
    assert [file for file in files if file.suffix in {".tfstate", ".pem", ".key"}] == []
    assert not any(re.search(r"BEGIN [A-Z ]*PRIVATE KEY|\"private_key\"|AKIA[0-9A-Z]{16}", Path(file).read_text()) for file in files)


def test_the_dashboard_shows_metrics_that_exist() -> None:
    """Of a watcher and a seeder."""
    module = next(module for module in modules() if module.name == "modules/monitoring")
    families = [*WatchMetrics().collect(), *SeedMetrics(lambda: SeedStatus("chain", 1, (), None, "", 0)).collect()]
    exported = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    shown = set(re.findall(r"statecast_[a-z_]+", module.text))
    assert shown and shown <= exported
