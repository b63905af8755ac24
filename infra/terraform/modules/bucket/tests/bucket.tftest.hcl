# NEEDS A PROVIDER REGISTRY: mock_provider takes the schema from the provider's own program. `make infra-check` leaves this file out.
mock_provider "google" {}

variables {
  project_id = "example-project"
  name       = "example-mainnet-state"
  location   = "europe-west4"
  labels     = { app = "statecast" }
}

run "closed_by_default" {
  command = plan

  assert {
    condition     = google_storage_bucket.this.uniform_bucket_level_access && google_storage_bucket.this.public_access_prevention == "enforced"
    error_message = "A bucket must be closed unless it is opened by name."
  }
}

run "published_epochs_do_not_expire_by_age" {
  command = plan

  assert {
    condition     = alltrue([for rule in google_storage_bucket.this.lifecycle_rule : one(rule.action).type != "Delete"])
    error_message = "Age would delete parts from under a manifest."
  }
}

run "a_work_bucket_expires" {
  command = plan

  variables {
    expire_days = 3
  }

  assert {
    condition     = anytrue([for rule in google_storage_bucket.this.lifecycle_rule : one(rule.action).type == "Delete" && one(rule.condition).age == 3])
    error_message = "A work bucket must empty itself."
  }
}

run "a_cold_class_is_refused" {
  command = plan

  variables {
    storage_class = "COLDLINE"
  }

  expect_failures = [var.storage_class]
}
