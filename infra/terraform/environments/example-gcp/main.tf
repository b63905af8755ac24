data "google_client_config" "current" {}

data "google_project" "this" {
  project_id = var.project_id
}

# What the modules below call. Left on when the installation goes: something else may use them.
resource "google_project_service" "apis" {
  for_each = toset([
    "artifactregistry.googleapis.com",
    "cloudkms.googleapis.com",
    "cloudscheduler.googleapis.com",
    "compute.googleapis.com",
    "container.googleapis.com",
    "iam.googleapis.com",
    "monitoring.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
    "storage.googleapis.com",
  ])

  project            = var.project_id
  service            = each.value
  disable_on_destroy = false
}

module "naming" {
  source = "../../modules/naming"

  prefix      = var.prefix
  chain_id    = var.chain_id
  environment = var.environment
}

module "sizing" {
  source = "../../modules/sizing"

  state_gib         = var.state_gib
  deadline_minutes  = var.deadline_minutes
  read_mib_per_s    = var.read_mib_per_s
  cores_per_machine = 8
}

module "state_bucket" {
  source = "../../modules/bucket"

  project_id = var.project_id
  name       = module.naming.names.state_bucket
  location   = var.region
  labels     = module.naming.labels
  public     = var.public

  depends_on = [google_project_service.apis]
}

# What stages leave each other: of no use after the run, and made again if it is lost.
module "work_bucket" {
  source = "../../modules/bucket"

  project_id       = var.project_id
  name             = module.naming.names.work_bucket
  location         = var.region
  labels           = module.naming.labels
  soft_delete_days = 0
  expire_days      = 3

  depends_on = [google_project_service.apis]
}

# Decoded tables, which are replaced in place: a bucket of their own, so that parts stay where only creating is allowed.
module "tables_bucket" {
  source = "../../modules/bucket"
  count  = var.tables ? 1 : 0

  project_id = var.project_id
  name       = module.naming.names.tables_bucket
  location   = var.region
  labels     = module.naming.labels
  public     = var.public

  depends_on = [google_project_service.apis]
}

module "signing_key" {
  source = "../../modules/signing_key"

  project_id = var.project_id
  name       = module.naming.names.signing_key
  labels     = module.naming.labels
  locations  = [var.region]

  depends_on = [google_project_service.apis]
}

module "identity" {
  source = "../../modules/identity"

  project_id         = var.project_id
  project_number     = data.google_project.this.number
  buckets            = { state = module.state_bucket.name, work = module.work_bucket.name, tables = var.tables ? module.tables_bucket[0].name : null }
  signing_key_secret = module.signing_key.secret_id
  keeper_account     = module.naming.names.keeper_account
  readers            = var.readers
  public             = var.public

  # The pool of identities comes with the first cluster of a project.
  depends_on = [module.gke]
}

# Instead of the secret: a key that can't be copied. Its first version signs where an overlay says so (infra/kubernetes/key-service).
module "signing_kms" {
  source = "../../modules/signing_kms"
  count  = var.sign_in_key_service ? 1 : 0

  project_id = var.project_id
  name       = module.naming.names.signing_key
  location   = var.region
  labels     = module.naming.labels
  signer     = module.identity.members.producer

  depends_on = [google_project_service.apis]
}

module "network" {
  source = "../../modules/network"

  project_id = var.project_id
  name       = module.naming.names.network
  region     = var.region

  depends_on = [google_project_service.apis]
}

module "gke" {
  source = "../../modules/gke"

  project_id          = var.project_id
  name                = module.naming.names.cluster
  region              = var.region
  zones               = var.zones
  network             = module.network.network
  subnetwork          = module.network.subnetwork
  range_names         = module.network.range_names
  authorized_networks = var.authorized_networks
  nodes_account       = module.naming.names.nodes_account
  labels              = module.naming.labels
  # A run, and a backfill of the same size beside it.
  build_max = module.sizing.build_workers * 2
}

module "kuberay" {
  source = "../../modules/kuberay"

  # Machines that it can run on.
  depends_on = [module.gke]
}

module "seeder_address" {
  source = "../../modules/seeder_address"

  project_id = var.project_id
  name       = module.naming.names.seeder_address
  region     = var.region
  labels     = module.naming.labels

  depends_on = [google_project_service.apis]
}

module "image_registry" {
  source = "../../modules/image_registry"

  project_id = var.project_id
  region     = var.region
  labels     = module.naming.labels

  depends_on = [google_project_service.apis]
}

module "keeper_jobs" {
  source = "../../modules/keeper_jobs"

  project_id        = var.project_id
  region            = var.region
  name              = module.naming.base
  labels            = module.naming.labels
  image             = "${module.image_registry.image}:${var.image_tag}"
  keeper_email      = module.identity.keeper_email
  scheduler_account = module.naming.names.scheduler_account

  jobs = {
    collect = {
      args     = ["gc", "${module.state_bucket.url}/near", "--keep-epochs", tostring(var.keep_epochs), "--json"]
      schedule = "20 * * * *"
    }
    scrub = {
      args      = concat(["scrub", "${module.state_bucket.url}/near", "--sample", "5%", "--in-process", "--json"], [for key in var.trust_keys : "--trust-key=${key}"])
      schedule  = "40 3 * * *"
      timeout_s = 14400
    }
  }
}

module "monitoring" {
  source = "../../modules/monitoring"

  project_id            = var.project_id
  rule_files            = ["${path.module}/../../../monitoring/alerts.yaml", "${path.module}/../../../monitoring/cluster-alerts.yaml"]
  left_out              = ["StatecastWatchDown"]
  notification_channels = var.notification_channels
  docs_url              = var.docs_url
  dashboard_name        = module.naming.base
  labels                = module.naming.labels

  depends_on = [google_project_service.apis]
}
