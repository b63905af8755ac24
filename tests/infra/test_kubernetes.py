"""The manifests are what Kubernetes and KubeRay take, and every pod keeps the rules that all of them share."""

from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from pipelines.execution.placement import NODE_DISK_RESOURCE
from tests.support.kubernetes import KUBERNETES, OVERLAYS, built_overlay, containers_of, named, overlay_with, pod_templates

VERSION = "1.33"
OWN_KINDS = frozenset({"RayJob", "PodMonitoring", "SecretProviderClass", "Kustomization", "Component"})
"""Kinds that Kubernetes itself does not have."""
RAYJOB_SCHEMA = json.loads((Path(__file__).parent / "rayjob.schema.json").read_text())

each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def _sources() -> list[Path]:
    return sorted(file for file in KUBERNETES.rglob("*.yaml"))


@pytest.mark.parametrize("file", _sources(), ids=lambda file: str(file.relative_to(KUBERNETES)))
def test_files_are_yaml_without_surprises(file: Path) -> None:
    """No key twice, no tabs, no truth that is written `yes`."""
    config = YamlLintConfig(
        "{extends: default, rules: {line-length: {max: 160}, document-start: disable, comments: {min-spaces-from-content: 1},"
        " braces: {max-spaces-inside: 0}, key-duplicates: {forbid-duplicated-merge-keys: true}}}"
    )
    assert [str(problem) for problem in linter.run(file.read_text(), config)] == []


@each_overlay
def test_built_documents_are_valid(overlay: str) -> None:
    """By Kubernetes' own schemas, no field unknown; RayJob by ours."""
    for document in built_overlay(overlay):
        if document["kind"] == "RayJob":
            jsonschema.Draft202012Validator(RAYJOB_SCHEMA).validate(document)
        elif document["kind"] not in OWN_KINDS:
            kubernetes_validate.validate(document, VERSION, strict=True)
    for _, template in pod_templates(built_overlay(overlay)):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", **template["metadata"]}, "spec": template["spec"]}
        kubernetes_validate.validate(pod, VERSION, strict=True)


@each_overlay
def test_pods_are_locked_down(overlay: str) -> None:
    """Not root, nothing to gain, a root file system that can't be written; the namespace enforces most of it."""
    for name, pod in pod_templates(built_overlay(overlay)):
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] and context["runAsUser"] == 10001 and context["seccompProfile"]["type"] == "RuntimeDefault", name
        for container in containers_of(pod):
            inner = container["securityContext"]
            assert inner["readOnlyRootFilesystem"] and not inner["allowPrivilegeEscalation"], name
            assert inner["capabilities"] == {"drop": ["ALL"]}, name
    namespace = named(overlay, "Namespace", "statecast")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@each_overlay
def test_only_the_trigger_and_heads_get_a_token_of_kubernetes(overlay: str) -> None:
    """They start runs and bring build workers; cloud identities need none."""
    with_token = [name for name, pod in pod_templates(built_overlay(overlay)) if pod["spec"].get("automountServiceAccountToken", True)]
    assert {name for name in with_token if not name.endswith(" head")} <= {"CronJob statecast-trigger"}
    assert not any("holds-key" in json.dumps(pod) for name, pod in pod_templates(built_overlay(overlay)) if name in with_token)


@each_overlay
def test_every_container_asks_for_what_it_needs(overlay: str) -> None:
    """And memory has a limit: a pod that grows must end before its machine does."""
    for name, pod in pod_templates(built_overlay(overlay)):
        for container in containers_of(pod):
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert "memory" in container["resources"]["limits"], name


@each_overlay
def test_the_nodes_disk_is_read_only_and_keeps_its_owner(overlay: str) -> None:
    """Mounted so twice over; a group for the volume would change the owner of the node's files."""
    seen = 0
    for name, pod in pod_templates(built_overlay(overlay)):
        claims = [volume for volume in pod["spec"]["volumes"] if volume.get("persistentVolumeClaim", {}).get("claimName") == "near-home"]
        if not claims:
            continue
        seen += 1
        assert claims[0]["persistentVolumeClaim"]["readOnly"], name
        mounts = [mount for container in containers_of(pod) for mount in container["volumeMounts"] if mount["name"] == claims[0]["name"]]
        assert all(mount["readOnly"] for mount in mounts), name
        assert "fsGroup" not in pod["spec"]["securityContext"], name
        assert pod["spec"]["nodeSelector"] == {"statecast/pool": "node-disk"}, name
        assert "podAffinity" in pod["spec"]["affinity"], name
    assert seen


@each_overlay
def test_only_pods_that_drive_a_run_have_the_signing_key(overlay: str) -> None:
    """As a file of the pod's own user, copied by an init container; build workers and seeder never see it."""
    holders = {name for name, pod in pod_templates(built_overlay(overlay)) if "signing_key" in json.dumps(pod)}
    assert holders == {"one-machine": {"StatefulSet statecast-watch"}}.get(
        overlay, {"RayJob statecast-produce node-disk", "RayJob statecast-backfill node-disk"}
    )
    for name, pod in pod_templates(built_overlay(overlay)):
        # An identity that may read the secret is as good as the key.
        assert (pod["spec"]["serviceAccountName"] == "statecast-producer") == (name in holders), name
        if name in holders:
            install = pod["spec"]["initContainers"][0]
            assert install["command"][:3] == ["install", "-m", "0600"], name


@each_overlay
def test_pods_with_the_key_connect_to_little(overlay: str) -> None:
    """To names, to HTTPS outside of private networks, to where their identity comes from, and in a run to Ray's ports; no others are limited."""
    held = {"statecast/holds-key": "true"}
    holders = {name for name, pod in pod_templates(built_overlay(overlay)) if held.items() <= pod["metadata"]["labels"].items()}
    assert holders == {name for name, pod in pod_templates(built_overlay(overlay)) if "signing_key" in json.dumps(pod)}
    limits = [found for found in built_overlay(overlay) if found["kind"] == "NetworkPolicy" and "Egress" in found["spec"]["policyTypes"]]
    assert all(held.items() <= found["spec"]["podSelector"]["matchLabels"].items() for found in limits)
    for rule in (rule for found in limits for rule in found["spec"]["egress"]):
        # A rule without either lets everything through.
        assert rule["to"] and rule["ports"]
        for place in rule["to"]:
            block = place.get("ipBlock", {})
            network = ipaddress.ip_network(block.get("cidr", "10.0.0.1/32"))
            assert network.prefixlen in (0, network.max_prefixlen)
            if network.prefixlen == 0:
                left_out = [ipaddress.ip_network(text) for text in block["except"]]
                for address in ("10.9.8.7", "169.254.169.254", "192.168.1.1", "172.31.0.1", "fd00::1", "fe80::1"):
                    found = ipaddress.ip_address(address)
                    assert found.version != network.version or any(found in one for one in left_out), address
                assert rule["ports"] == [{"protocol": "TCP", "port": 443}]
    in_runs = [found["spec"] for found in limits if found["metadata"]["name"] == "ray-driver-egress"]
    if overlay != "one-machine":
        assert in_runs[0]["egress"] == [
            {"to": rule["from"], "ports": rule["ports"]} for rule in named(overlay, "NetworkPolicy", "ray-among-itself")["spec"]["ingress"]
        ]


@each_overlay
def test_what_a_run_ends_with_comes_before_other_pods(overlay: str) -> None:
    """Head and driver, and the watcher; build workers and the seeder can go."""
    first = {name.split()[-1] for name, pod in pod_templates(built_overlay(overlay)) if pod["spec"].get("priorityClassName")}
    assert first == ({"statecast-watch"} if overlay == "one-machine" else {"head", "node-disk"})
    classes = {pod["spec"].get("priorityClassName") for _, pod in pod_templates(built_overlay(overlay))} - {None}
    priority = named(overlay, "PriorityClass", *classes)
    assert priority["value"] > 0 and not priority["globalDefault"]


@each_overlay
def test_with_a_key_service_no_pod_holds_a_key(overlay: str, tmp_path: Path) -> None:
    """The component takes the secret, its copy and the mounts out of an overlay; nothing else changes."""
    changed = overlay_with(overlay, "key-service", "SIGNING_KEY=kms://aws/alias/statecast", tmp_path)
    before, after = (dict(pod_templates(documents)) for documents in (built_overlay(overlay), changed))
    assert before.keys() == after.keys()
    for name, pod in after.items():
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", ())}
        assert not {"signing-key", "signing-key-secret"} & volumes and "/run/statecast" not in json.dumps(pod), name
        left = [container["image"] for container in containers_of(before[name]) if container["name"] != "signing-key"]
        assert [container["image"] for container in containers_of(pod)] == left, name
        mounted = {mount["name"] for container in containers_of(pod) for mount in container.get("volumeMounts", ())}
        assert mounted <= volumes, name


@each_overlay
def test_every_setting_that_is_used_is_set(overlay: str) -> None:
    """By name, and not left as the base has it."""
    settings = next(
        found
        for found in built_overlay(overlay)
        if found["kind"] == "ConfigMap" and found["metadata"]["name"].startswith("statecast-settings")
    )
    for name, pod in pod_templates(built_overlay(overlay)):
        text = json.dumps([container.get("args", []) for container in containers_of(pod)])
        for wanted in re.findall(r"\$\((\w+)\)", text):
            assert settings["data"].get(wanted, "set-in-the-overlay") != "set-in-the-overlay", f"{name}: {wanted}"
    for document in built_overlay(overlay):
        if document["kind"] == "RayJob":
            for wanted in re.findall(r"\$\{?(\w+)", document["spec"]["entrypoint"]):
                assert settings["data"].get(wanted, "set-in-the-overlay") != "set-in-the-overlay", wanted


@each_overlay
def test_settings_carry_a_hash_that_every_pod_names(overlay: str) -> None:
    """So that changed settings make new pods, in RayJobs too."""
    names = {found["metadata"]["name"] for found in built_overlay(overlay) if found["kind"] == "ConfigMap"}
    used = set(re.findall(r"'configMapRef': {'name': '([^']+)'}", str(built_overlay(overlay))))
    assert used <= names and all(re.search(r"-[a-z0-9]{10}$", name) for name in used) and len(used) == 1


@each_overlay
def test_images_have_a_version(overlay: str) -> None:
    """One image for all, with a registry, by a tag that is not latest."""
    images = {container["image"] for _, pod in pod_templates(built_overlay(overlay)) for container in containers_of(pod)}
    assert len(images) == 1
    assert re.fullmatch(r"[\w.-]+\.[\w.-]+/[\w./-]+:(?!latest)[\w.]+", images.pop())


@each_overlay
def test_selectors_find_pods(overlay: str) -> None:
    """Of services, budgets and network policies alike; labels that KubeRay adds are taken for granted."""
    labels = [pod["metadata"]["labels"] for _, pod in pod_templates(built_overlay(overlay))]
    for document in built_overlay(overlay):
        spec = document.get("spec", {})
        match document["kind"]:
            case "Service":
                selector = spec.get("selector")
            case "PodDisruptionBudget":
                selector = spec["selector"]["matchLabels"]
            case "NetworkPolicy":
                selector = spec["podSelector"]["matchLabels"]
            case _:
                selector = None
        if selector:
            wanted = {key: value for key, value in selector.items() if not key.startswith("ray.io/")}
            assert any(wanted.items() <= found.items() for found in labels), document["metadata"]["name"]


@each_overlay
def test_probes_ask_where_the_program_answers(overlay: str) -> None:
    """The port of --health-port or --metrics, under its name; /healthz for life."""
    for kind, name in (("Deployment", "statecast-seeder"), ("StatefulSet", "statecast-watch")):
        for document in built_overlay(overlay):
            if (document["kind"], document["metadata"]["name"]) != (kind, name):
                continue
            container = document["spec"]["template"]["spec"]["containers"][0]
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            assert ports["metrics"] == 9464 and re.search(r"(--metrics=0\.0\.0\.0:|--health-port=)9464", " ".join(container["args"]))
            for probe in ("startupProbe", "livenessProbe"):
                assert container[probe]["httpGet"] == {"path": "/healthz", "port": "metrics"}


def test_only_the_clouds_own_overlay_names_its_collector() -> None:
    """Elsewhere there is no such namespace, and no collector could read the metrics."""
    let_in = {
        overlay: named(overlay, "NetworkPolicy", "metrics")["spec"]["ingress"][0]["from"][0]["namespaceSelector"]["matchLabels"]
        for overlay in OVERLAYS
    }
    assert let_in == {
        overlay: {"kubernetes.io/metadata.name": "gmp-system" if overlay == "example-gcp" else "monitoring"} for overlay in OVERLAYS
    }


def _run() -> dict[str, Any]:
    found: dict[str, Any] = named("example-gcp", "RayJob", "statecast-produce")["spec"]
    return found


def test_a_run_is_a_template_until_it_is_started() -> None:
    """Applying the manifests starts nothing."""
    assert all(found["spec"]["suspend"] for found in built_overlay("example-gcp") if found["kind"] == "RayJob")


def test_the_driver_runs_where_the_disk_is() -> None:
    """The entry point takes the resource that one group of workers has, and that tasks ask for under this name."""
    (group,) = (found for found in _run()["rayClusterSpec"]["workerGroupSpecs"] if found["groupName"] == "node-disk")
    offered = json.loads(json.loads(group["rayStartParams"]["resources"]))
    wanted = json.loads(_run()["entrypointResources"])
    assert set(offered) == set(wanted) == {NODE_DISK_RESOURCE}
    assert 0 < wanted[NODE_DISK_RESOURCE] < offered[NODE_DISK_RESOURCE]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (1, 1, 1)


def test_a_run_that_ends_well_has_published() -> None:
    """The trigger starts no other run of that epoch; with --if-missing it would also end well where a killed run has left its claim."""
    assert _run()["entrypoint"].startswith("statecast produce ") and "--if-missing" not in _run()["entrypoint"]


def test_the_head_runs_no_task() -> None:
    """Its memory is Ray's."""
    assert _run()["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_ray_asks_for_a_token() -> None:
    """Said to KubeRay, and to every pod by itself: Ray's own default has changed between versions."""
    assert _run()["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    for name, pod in pod_templates(built_overlay("example-gcp")):
        if name.startswith("RayJob"):
            assert {"name": "RAY_AUTH_MODE", "value": "token"} in pod["spec"]["containers"][0]["env"], name


def test_every_port_that_ray_is_given_is_let_through_and_no_other() -> None:
    """Between its own pods; the dashboard to the operator, metrics to the collector, 10001 closed."""
    allowed: set[int] = set()
    for port in named("example-gcp", "NetworkPolicy", "ray-among-itself")["spec"]["ingress"][0]["ports"]:
        allowed |= set(range(port["port"], port.get("endPort", port["port"]) + 1))
    cluster = _run()["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        given = {key: int(value) for key, value in group["rayStartParams"].items() if key.endswith("-port")}
        workers = set(range(given.pop("min-worker-port"), given.pop("max-worker-port") + 1))
        metrics = given.pop("metrics-export-port")
        assert {6379, *given.values(), *workers} == allowed
        assert metrics not in allowed
    assert not allowed & {8265, 10001}
    dashboard = named("example-gcp", "NetworkPolicy", "ray-dashboard")["spec"]["ingress"][0]
    assert [port["port"] for port in dashboard["ports"]] == [8265] and "from" in dashboard


def test_the_budget_keeps_what_a_run_ends_with() -> None:
    """Head and driver, of a production and of a backfill beside it."""
    budget = named("example-gcp", "PodDisruptionBudget", "statecast-run")["spec"]
    kept = [
        name
        for name, pod in pod_templates(built_overlay("example-gcp"))
        if budget["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    ]
    assert {name.split()[-1] for name in kept} == {"head", "node-disk"}
    # A smaller number would let one run's pods go while another's are there.
    assert budget["minAvailable"] == len(kept)


def test_the_trigger_is_never_twice_and_never_stops_for_good() -> None:
    """By concurrency policy and by a deadline for a missed start."""
    trigger = named("example-gcp", "CronJob", "statecast-trigger")["spec"]
    assert trigger["concurrencyPolicy"] == "Forbid"
    assert 10 <= trigger["startingDeadlineSeconds"] < 600
    assert trigger["jobTemplate"]["spec"]["backoffLimit"] == 0


def test_spot_pods_are_told_apart_from_those_that_stay() -> None:
    """Only build workers go to spot machines."""
    pools = {
        name.split()[-1]: pod["spec"]["nodeSelector"]["statecast/pool"]
        for name, pod in pod_templates(built_overlay("example-gcp"))
        if name.startswith("RayJob")
    }
    assert pools == {"head": "on-demand", "node-disk": "node-disk", "build": "build"}


def test_pools_and_service_accounts_are_those_that_terraform_makes() -> None:
    """By name on both sides."""
    terraform = KUBERNETES.parent / "terraform" / "modules"
    pools = re.findall(r"^    ([a-z-]+) += \{ machine_type", (terraform / "gke/main.tf").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"statecast/pool: ([a-z-]+)", "".join(file.read_text() for file in _sources()))) == set(pools)
    accounts = set(re.findall(r'optional\(string, "([^"]+)"\)', (terraform / "access/variables.tf").read_text()))
    there = {found["metadata"]["name"] for found in built_overlay("example-gcp") if found["kind"] == "ServiceAccount"}
    assert there == accounts | {"statecast-head", "statecast-trigger"}, "head and trigger are given nothing in the cloud"


def _scratch_gib(pod: dict[str, Any]) -> float:
    """Return what a pod asks for of its machine's boot disk; init containers end before."""
    asked = (container["resources"]["requests"].get("ephemeral-storage", "0Gi") for container in pod["spec"]["containers"])
    return sum(float(size[:-2]) / {"Gi": 1, "Mi": 1024}[size[-2:]] for size in asked)


def test_the_scratch_space_that_pods_ask_for_is_on_their_machines() -> None:
    """By GKE's rule of what it takes of a boot disk; a pod that fits on no machine stays pending, and so does its run."""
    variables = (KUBERNETES.parent / "terraform/modules/gke/variables.tf").read_text()
    disks = variables[variables.index('variable "boot_disk_gib"') :]
    asked: dict[str, list[float]] = {}
    for _, pod in pod_templates(built_overlay("example-gcp")):
        asked.setdefault(pod["spec"].get("nodeSelector", {}).get("statecast/pool", "on-demand"), []).append(_scratch_gib(pod))
    assert set(asked) == {"on-demand", "node-disk", "build"}
    for pool, sizes in asked.items():
        match = re.search(rf"{pool.replace('-', '_')} += optional\(number, (\d+)\)", disks)
        assert match, pool
        disk = int(match[1])
        left = disk - 0.1 * disk - min(0.5 * disk, 6 + 0.35 * disk, 100)
        # A production and a backfill beside it share the one machine with the node's disk; a build worker has one to itself.
        assert (max(sizes) if pool == "build" else sum(sizes)) < left, pool


def test_the_example_names_what_the_example_environment_makes() -> None:
    """Buckets, secret and address are named after prefix and chain of terraform.tfvars.example."""
    terraform = KUBERNETES.parent / "terraform"
    values = dict(
        re.findall(r'^(\w+) += "([^"]+)"', (terraform / "environments/example-gcp/terraform.tfvars.example").read_text(), re.MULTILINE)
    )
    names = re.findall(r'(\w+) += "\$\{local\.base\}-([a-z-]+)"', (terraform / "modules/naming/outputs.tf").read_text())
    of = {key: f"{values['prefix']}-{values['chain_id']}-{tail}" for key, tail in names}
    settings = next(
        found["data"] for found in built_overlay("example-gcp") if found["kind"] == "ConfigMap" and "STATE_URL" in found["data"]
    )
    assert settings["CHAIN_ID"] == values["chain_id"]
    assert settings["STATE_URL"] == f"gs://{of['state_bucket']}/near" and settings["WORK_URL"] == f"gs://{of['work_bucket']}/near"
    secrets = named("example-gcp", "SecretProviderClass", "statecast-signing-key")["spec"]["parameters"]["secrets"]
    assert f"projects/{values['project_id']}/secrets/{of['signing_key']}/versions/" in secrets
    annotations = named("example-gcp", "Service", "statecast-seeder")["metadata"]["annotations"]
    assert annotations["networking.gke.io/load-balancer-ip-addresses"] == of["seeder_address"]


def test_alerts_find_the_jobs_that_are_scraped() -> None:
    """Google's collector names a job after its PodMonitoring; the alerts ask for these names."""
    alerts = (KUBERNETES.parent / "monitoring" / "alerts.yaml").read_text()
    scraped = {found["metadata"]["name"] for found in built_overlay("example-gcp") if found["kind"] == "PodMonitoring"}
    assert set(re.findall(r'job="([^"]+)"', alerts)) <= scraped


def test_alerts_of_the_cluster_are_promql_with_a_section_to_read() -> None:
    """As those of infra/monitoring/alerts.yaml are."""
    root = KUBERNETES.parents[1]
    for group in yaml.safe_load((root / "infra/monitoring/cluster-alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            promql_parser.parse(rule["expr"])
            file, _, section = rule["annotations"]["runbook"].partition("#")
            assert section == rule["alert"].lower()
            assert f"### {rule['alert']}\n" in (root / file).read_text()
            assert rule["labels"]["severity"] in ("warning", "critical")


def test_the_keepers_alert_names_the_jobs_that_terraform_makes() -> None:
    """By the ends of their names, which modules/keeper_jobs takes from the environment's map."""
    infra = KUBERNETES.parent
    named = re.search(r'job_name=~"\.\+-\(([a-z|]+)\)"', (infra / "monitoring/cluster-alerts.yaml").read_text())
    jobs = (infra / "terraform/environments/example-gcp/main.tf").read_text().partition("  jobs = {")[2]
    assert named and named[1].split("|") == re.findall(r"^    (\w+) = \{", jobs, flags=re.MULTILINE)
