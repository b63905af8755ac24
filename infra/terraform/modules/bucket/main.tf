resource "google_storage_bucket" "this" {
  # checkov:skip=CKV_GCP_62: reads of a public bucket are counted by its own metrics; data access logs are the project's decision
  # checkov:skip=CKV_GCP_78: versioning is on unless the bucket holds only what can be computed again
  # checkov:skip=CKV_GCP_114: enforced unless the bucket is made public by name
  name     = var.name
  project  = var.project_id
  location = var.location
  labels   = var.labels

  # Permissions by IAM alone: an object's own list of readers would go round what modules/access says.
  uniform_bucket_level_access = true
  public_access_prevention    = var.public ? "inherited" : "enforced"
  storage_class               = var.storage_class

  # Terraform never deletes a bucket that has something in it.
  force_destroy = false

  versioning {
    enabled = var.noncurrent_days > 0
  }

  # Retention is by soft delete, not by a bucket lock: a lock would also forbid to replace the pointers, and no epoch could be published.
  soft_delete_policy {
    retention_duration_seconds = var.soft_delete_days * 86400
  }

  # A killed writer leaves incomplete uploads, which no listing shows and which cost money.
  lifecycle_rule {
    condition {
      age = 1
    }
    action {
      type = "AbortIncompleteMultipartUpload"
    }
  }

  # What a pointer was before: kept for looking back, for a limited time.
  dynamic "lifecycle_rule" {
    for_each = var.noncurrent_days > 0 ? [var.noncurrent_days] : []

    content {
      condition {
        days_since_noncurrent_time = lifecycle_rule.value
        with_state                 = "ARCHIVED"
      }
      action {
        type = "Delete"
      }
    }
  }

  # For work buckets. Never for published epochs: age would take parts away from under a manifest; `statecast gc` removes the manifest first.
  dynamic "lifecycle_rule" {
    for_each = var.expire_days == null ? [] : [var.expire_days]

    content {
      condition {
        age = lifecycle_rule.value
      }
      action {
        type = "Delete"
      }
    }
  }
}
