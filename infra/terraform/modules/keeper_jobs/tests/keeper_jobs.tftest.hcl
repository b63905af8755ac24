# NEEDS A PROVIDER REGISTRY: mock_provider takes the schema from the provider's own program. `make infra-check` leaves this file out.
mock_provider "google" {}

variables {
  project_id        = "example-project"
  region            = "europe-west4"
  name              = "example-mainnet"
  labels            = { app = "statecast" }
  image             = "europe-west4-docker.pkg.dev/example-project/statecast/statecast:0.1.0"
  keeper_email      = "example-mainnet-keeper@example-project.iam.gserviceaccount.com"
  scheduler_account = "example-mainnet-sched"
  jobs = {
    collect = { args = ["gc", "gs://example-mainnet-state/near", "--keep-epochs", "6"], schedule = "20 * * * *" }
  }
}

run "each_job_runs_once_as_the_keeper" {
  command = plan

  assert {
    condition = (
      one(one(google_cloud_run_v2_job.this["collect"].template).template).service_account == var.keeper_email
      && one(one(google_cloud_run_v2_job.this["collect"].template).template).max_retries == 0
    )
    error_message = "A job must run as the keeper, and not retry beside the clock."
  }
}

run "an_image_that_moves_is_refused" {
  command = plan

  variables {
    image = "europe-west4-docker.pkg.dev/example-project/statecast/statecast:latest"
  }

  expect_failures = [var.image]
}
