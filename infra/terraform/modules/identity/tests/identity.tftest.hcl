# NEEDS A PROVIDER REGISTRY: mock_provider takes the schema from the provider's own program. `make infra-check` leaves this file out.
mock_provider "google" {
  mock_resource "google_service_account" {
    defaults = {
      member = "serviceAccount:example-mainnet-keeper@example-project.iam.gserviceaccount.com"
    }
  }

  mock_resource "google_project_iam_custom_role" {
    defaults = {
      name = "projects/example-project/roles/statecastObjectDeleter"
    }
  }
}

variables {
  project_id         = "example-project"
  project_number     = "123456789012"
  buckets            = { state = "example-mainnet-state", work = "example-mainnet-work" }
  signing_key_secret = "example-mainnet-signing-key"
  keeper_account     = "example-mainnet-keeper"
}

# apply: members and roles are known only then, mocked or not.
run "every_grant_is_applied_to_its_bucket" {
  assert {
    condition = alltrue([
      for name, grant in module.access.grants : google_storage_bucket_iam_member.grants[name].bucket == var.buckets[grant.bucket]
    ])
    error_message = "A grant lies on another bucket."
  }

  assert {
    condition     = google_project_iam_custom_role.deleter.permissions == toset(["storage.objects.delete"])
    error_message = "The custom role must hold one permission."
  }
}
