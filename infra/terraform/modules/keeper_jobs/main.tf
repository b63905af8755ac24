# What is to be done regularly and needs no node: collecting old epochs, scrubbing. Runs as the keeper, outside of the cluster, so that the
# cluster holds no identity that may delete. Making epochs is not here: it needs the node's disk (infra/kubernetes/produce).
resource "google_cloud_run_v2_job" "this" {
  for_each = var.jobs

  name                = "${var.name}-${each.key}"
  project             = var.project_id
  location            = var.region
  labels              = var.labels
  deletion_protection = false

  template {
    task_count  = 1
    parallelism = 1

    template {
      service_account = var.keeper_email
      timeout         = "${each.value.timeout_s}s"
      # The next run by the clock is the retry.
      max_retries = 0

      containers {
        image = var.image
        args  = each.value.args

        resources {
          limits = { cpu = each.value.cpu, memory = each.value.memory }
        }
      }
    }
  }
}

resource "google_service_account" "scheduler" {
  project      = var.project_id
  account_id   = var.scheduler_account
  display_name = "Starts statecast's keeper jobs"
}

resource "google_cloud_run_v2_job_iam_member" "scheduler" {
  for_each = google_cloud_run_v2_job.this

  project  = var.project_id
  location = each.value.location
  name     = each.value.name
  role     = "roles/run.invoker"
  member   = google_service_account.scheduler.member
}

resource "google_cloud_scheduler_job" "this" {
  for_each = var.jobs

  name             = "${var.name}-${each.key}"
  project          = var.project_id
  region           = var.region
  schedule         = each.value.schedule
  time_zone        = "Etc/UTC"
  attempt_deadline = "60s"

  retry_config {
    retry_count = 3
  }

  http_target {
    http_method = "POST"
    uri         = "https://run.googleapis.com/v2/projects/${var.project_id}/locations/${var.region}/jobs/${google_cloud_run_v2_job.this[each.key].name}:run"

    oauth_token {
      service_account_email = google_service_account.scheduler.email
    }
  }
}
