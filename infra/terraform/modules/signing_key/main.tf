# The place for the key, not the key: a value that terraform knows lies readable in its state. `gcloud secrets versions add` puts it there.
resource "google_secret_manager_secret" "this" {
  project             = var.project_id
  secret_id           = var.name
  labels              = var.labels
  deletion_protection = var.deletion_protection

  # Deleted versions can be had back for a while: a lost key is a rotation for every reader.
  version_destroy_ttl = "${var.destroy_after_days * 86400}s"

  replication {
    user_managed {
      dynamic "replicas" {
        for_each = var.locations

        content {
          location = replicas.value
        }
      }
    }
  }
}
