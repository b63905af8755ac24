locals {
  pools = {
    # Ray heads, the operator, the seeder, the system: must stay.
    on-demand = { machine_type = var.machine_types.on_demand, disk_gib = var.boot_disk_gib.on_demand, spot = false, min = 1, max = var.on_demand_max, zones = var.zones, tainted = false }
    # neard and what reads its disk. The disk is zonal, so is the pool; one machine.
    node-disk = { machine_type = var.machine_types.node_disk, disk_gib = var.boot_disk_gib.node_disk, spot = false, min = 1, max = 1, zones = [var.zones[0]], tainted = true }
    # Everything else of a run. Empty between epochs. In every zone: spot machines of one may not come, or go together.
    build = { machine_type = var.machine_types.build, disk_gib = var.boot_disk_gib.build, spot = true, min = 0, max = var.build_max, zones = var.zones, tainted = true }
  }

  # roles/container.defaultNodeServiceAccount is what Google documents as enough for logs and metrics.
  node_roles = toset(["roles/container.defaultNodeServiceAccount", "roles/artifactregistry.reader"])
}

resource "google_service_account" "nodes" {
  project      = var.project_id
  account_id   = var.nodes_account
  display_name = "Machines of the cluster ${var.name}"
}

resource "google_project_iam_member" "nodes" {
  for_each = local.node_roles

  project = var.project_id
  role    = each.value
  member  = google_service_account.nodes.member
}

resource "google_container_cluster" "this" {
  # checkov:skip=CKV_GCP_12: Dataplane V2 enforces network policies; the check looks for its predecessor
  # checkov:skip=CKV_GCP_21: labels come in by a variable without a default
  # checkov:skip=CKV_GCP_69: the default pool is removed; each pool of ours has the metadata server on
  # checkov:skip=CKV_GCP_65: RBAC by Google groups needs a domain of the operator's; who may come in is decided by IAM and the authorized networks
  # checkov:skip=CKV_GCP_66: images are pinned by tag from the operator's own registry; attestations are left to the organisation
  name     = var.name
  project  = var.project_id
  location = var.region

  node_locations = var.zones
  network        = var.network
  subnetwork     = var.subnetwork

  resource_labels     = var.labels
  deletion_protection = var.deletion_protection

  # Every pool is its own resource; the one that Google insists on making goes at once.
  remove_default_node_pool = true
  initial_node_count       = 1

  # While that one lives it must not act as the project's default account, which an organisation may have deleted.
  node_config {
    service_account = google_service_account.nodes.email
    oauth_scopes    = ["https://www.googleapis.com/auth/cloud-platform"]
  }

  # Dataplane V2 enforces the network policies of infra/kubernetes.
  datapath_provider           = "ADVANCED_DATAPATH"
  networking_mode             = "VPC_NATIVE"
  enable_intranode_visibility = true
  enable_shielded_nodes       = true
  enable_legacy_abac          = false

  release_channel {
    channel = "REGULAR"
  }

  ip_allocation_policy {
    cluster_secondary_range_name  = var.range_names.pods
    services_secondary_range_name = var.range_names.services
  }

  private_cluster_config {
    enable_private_nodes    = true
    enable_private_endpoint = false
    master_ipv4_cidr_block  = var.control_plane_range
  }

  # Only these reach the API from outside of the network; an empty list closes it.
  master_authorized_networks_config {
    gcp_public_cidrs_access_enabled = false

    dynamic "cidr_blocks" {
      for_each = var.authorized_networks

      content {
        display_name = cidr_blocks.key
        cidr_block   = cidr_blocks.value
      }
    }
  }

  master_auth {
    client_certificate_config {
      issue_client_certificate = false
    }
  }

  # Pods get cloud identities without keys: modules/access names them.
  workload_identity_config {
    workload_pool = "${var.project_id}.svc.id.goog"
  }

  # The signing key as a volume, straight out of Secret Manager.
  secret_manager_config {
    enabled = true
  }

  addons_config {
    network_policy_config {
      # Dataplane V2 does it; this switch is for its predecessor.
      disabled = true
    }
    gce_persistent_disk_csi_driver_config {
      enabled = true
    }
  }

  logging_config {
    enable_components = ["SYSTEM_COMPONENTS", "WORKLOADS"]
  }

  monitoring_config {
    enable_components = ["SYSTEM_COMPONENTS", "POD", "STATEFULSET", "DEPLOYMENT"]

    managed_prometheus {
      enabled = true
    }
  }

  # When Google may replace machines: a window that an epoch can do without.
  maintenance_policy {
    recurring_window {
      start_time = var.maintenance.start_time
      end_time   = var.maintenance.end_time
      recurrence = var.maintenance.recurrence
    }
  }

  lifecycle {
    # Of the default pool, which is gone.
    ignore_changes = [initial_node_count, node_config]
  }
}

resource "google_container_node_pool" "pools" {
  for_each = local.pools

  name           = each.key
  project        = var.project_id
  location       = var.region
  cluster        = google_container_cluster.this.name
  node_locations = each.value.zones

  # Totals, not for each zone. A build machine is asked for by a pending pod of a run, and goes when it has been idle.
  autoscaling {
    total_min_node_count = each.value.min
    total_max_node_count = each.value.max
    location_policy      = each.value.spot ? "ANY" : "BALANCED"
  }

  management {
    auto_repair  = true
    auto_upgrade = true
  }

  upgrade_settings {
    # The machine with the node's disk can't have a twin beside it.
    max_surge       = each.key == "node-disk" ? 0 : 1
    max_unavailable = each.key == "node-disk" ? 1 : 0
  }

  node_config {
    machine_type    = each.value.machine_type
    spot            = each.value.spot
    service_account = google_service_account.nodes.email
    # Permissions are the service account's; scopes are an older lock on the same door.
    oauth_scopes = ["https://www.googleapis.com/auth/cloud-platform"]
    image_type   = "COS_CONTAINERD"
    disk_type    = "pd-balanced"
    disk_size_gb = each.value.disk_gib

    labels          = { "statecast/pool" = each.key }
    resource_labels = var.labels

    metadata = {
      disable-legacy-endpoints = "true"
    }

    dynamic "taint" {
      for_each = each.value.tainted ? [each.key] : []

      content {
        key    = "statecast/pool"
        value  = taint.value
        effect = "NO_SCHEDULE"
      }
    }

    shielded_instance_config {
      enable_secure_boot          = true
      enable_integrity_monitoring = true
    }

    workload_metadata_config {
      mode = "GKE_METADATA"
    }
  }

  lifecycle {
    # Set once, then the autoscaler's.
    ignore_changes = [initial_node_count]
  }
}
