"""The seeder as a peer of nearcore's network: the same two ports everywhere, and nothing else of an overlay changes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from tests.infra.test_kubernetes import VERSION
from tests.support.kubernetes import KUBERNETES, OVERLAYS, built_overlay, overlay_with
from tests.support.terraform_files import modules


def _named(documents: tuple[dict[str, Any], ...], kind: str, name: str) -> dict[str, Any]:
    return next(found for found in documents if (found["kind"], found["metadata"]["name"]) == (kind, name))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_component_opens_two_ports_of_the_seeder_and_no_more(overlay: str, tmp_path: Path) -> None:
    """Inside and outside under the numbers that are announced, which are those of the documents and of Terraform's addresses."""
    before = built_overlay(overlay)
    if not any(found["metadata"]["name"] == "statecast-seeder" for found in before if found["kind"] == "Deployment"):
        pytest.skip("the overlay has no seeder")
    after = overlay_with(overlay, "public-peer", "NEAR_PEER=near://ed25519:KEY@host:24567", tmp_path)
    seeder, service, policy = (
        _named(after, kind, name)
        for kind, name in (("Deployment", "statecast-seeder"), ("Service", "statecast-seeder"), ("NetworkPolicy", "seeder-near-peers"))
    )
    for made in (seeder, service, policy):
        kubernetes_validate.validate(made, VERSION, strict=True)
    (container,) = seeder["spec"]["template"]["spec"]["containers"]
    (listen,) = [argument for argument in container["args"] if argument.startswith("--near-listen=")]
    ports = [int(port) for port in re.findall(r":(\d+)", listen)]
    inside = {port["name"]: port["containerPort"] for port in container["ports"]}
    outside = {port["port"]: inside[port["targetPort"]] for port in service["spec"]["ports"]}
    assert [outside[port] for port in ports] == ports == [port["port"] for port in policy["spec"]["ingress"][0]["ports"]]
    assert len(service["spec"]["ports"]) == len(_named(before, "Service", "statecast-seeder")["spec"]["ports"]) + 2
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= seeder["spec"]["template"]["metadata"]["labels"].items()
    assert {found["metadata"]["name"] for found in after if found["kind"] != "ConfigMap"} == {
        found["metadata"]["name"] for found in before if found["kind"] != "ConfigMap"
    } | {"seeder-near-peers"}
    address = next(module for module in modules() if module.name.endswith("seeder_address"))
    assert address.of("variable")["near_ports"]["default"] == ports
    assert listen.removeprefix("--near-listen=") in (KUBERNETES.parents[1] / "docs" / "operations" / "public-peer.md").read_text()
