# May delete objects and nothing else: what replacing an object takes on Google's store, on top of creating it.
resource "google_project_iam_custom_role" "deleter" {
  project     = var.project_id
  role_id     = var.deleter_role_id
  title       = "statecast object deleter"
  description = "Deletes objects; given under a condition on their names, except to the keeper."
  permissions = ["storage.objects.delete"]
}

# Collects old epochs, scrubs, repairs. Runs without a node (modules/keeper_jobs), so it is an account of its own.
resource "google_service_account" "keeper" {
  project      = var.project_id
  account_id   = var.keeper_account
  display_name = "statecast keeper: may delete published objects"
}

module "access" {
  source = "../access"

  project_id       = var.project_id
  project_number   = var.project_number
  namespace        = var.namespace
  service_accounts = var.service_accounts
  keeper_member    = google_service_account.keeper.member
  deleter_role     = google_project_iam_custom_role.deleter.name
  readers          = var.readers
  public           = var.public
  tables           = var.buckets.tables != null
}

resource "google_storage_bucket_iam_member" "grants" {
  for_each = module.access.grants

  bucket = var.buckets[each.value.bucket]
  role   = each.value.role
  member = each.value.member

  dynamic "condition" {
    for_each = each.value.condition == null ? [] : [each.value.condition]

    content {
      title       = each.key
      description = "See infra/terraform/modules/access."
      expression  = condition.value
    }
  }
}

# Only the process that drives a run signs, and it runs as the producer; build workers do not.
resource "google_secret_manager_secret_iam_member" "signing_key" {
  project   = var.project_id
  secret_id = var.signing_key_secret
  role      = "roles/secretmanager.secretAccessor"
  member    = module.access.members.producer
}
