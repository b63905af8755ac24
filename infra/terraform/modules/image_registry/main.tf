resource "google_artifact_registry_repository" "this" {
  # checkov:skip=CKV_GCP_84: images are public code; Google's own key does
  project       = var.project_id
  location      = var.region
  repository_id = var.name
  format        = "DOCKER"
  labels        = var.labels
  description   = "Images of statecast"

  docker_config {
    # A tag never changes: manifests pin by it.
    immutable_tags = true
  }

  cleanup_policies {
    id     = "keep-newest"
    action = "KEEP"

    most_recent_versions {
      keep_count = var.keep_count
    }
  }

  cleanup_policies {
    id     = "delete-old"
    action = "DELETE"

    condition {
      older_than = "7776000s"
    }
  }
}
