# NEEDS A PROVIDER REGISTRY: mock_provider takes the schema from the provider's own program. `make infra-check` leaves this file out.
mock_provider "google" {}

variables {
  project_id    = "example-project"
  name          = "example-mainnet"
  region        = "europe-west4"
  zones         = ["europe-west4-a", "europe-west4-b"]
  network       = "projects/example-project/global/networks/example-mainnet"
  subnetwork    = "projects/example-project/regions/europe-west4/subnetworks/example-mainnet"
  range_names   = { pods = "pods", services = "services" }
  nodes_account = "example-mainnet-nodes"
  labels        = { app = "statecast" }
  build_max     = 4
}

run "only_build_machines_are_spot_and_they_go_to_none" {
  command = plan

  assert {
    condition = alltrue([
      for name, pool in google_container_node_pool.pools :
      one(pool.node_config).spot == (name == "build") && (one(pool.autoscaling).total_min_node_count == 0) == (name == "build")
    ])
    error_message = "Heads and readers of the node's disk must stay; build machines must not cost between epochs."
  }
}

run "the_pool_beside_the_node_is_one_machine_in_the_disks_zone" {
  command = plan

  assert {
    condition = (
      one(google_container_node_pool.pools["node-disk"].autoscaling).total_max_node_count == 1
      && google_container_node_pool.pools["node-disk"].node_locations == toset(["europe-west4-a"])
    )
    error_message = "A zonal disk is read by one machine of its zone."
  }
}

run "spot_machines_come_from_every_zone" {
  command = plan

  assert {
    condition     = google_container_node_pool.pools["build"].node_locations == toset(["europe-west4-a", "europe-west4-b"])
    error_message = "A zone without spot machines must not hold up a run."
  }
}

run "the_whole_internet_is_no_authorized_network" {
  command = plan

  variables {
    authorized_networks = { all = "0.0.0.0/0" }
  }

  expect_failures = [var.authorized_networks]
}

run "a_disk_without_room_for_a_pod_is_refused" {
  command = plan

  variables {
    boot_disk_gib = { node_disk = 100 }
  }

  expect_failures = [var.boot_disk_gib]
}
