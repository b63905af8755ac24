# A start: buckets and identities, for infra/kubernetes/overlays/example-aws on an EKS cluster of yours, or one-machine.
module "naming" {
  source = "../../modules/naming"

  prefix      = var.prefix
  chain_id    = var.chain_id
  environment = var.environment
}

module "state_bucket" {
  source = "../../modules/s3_bucket"

  name   = module.naming.names.state_bucket
  tags   = module.naming.labels
  public = var.public
}

module "work_bucket" {
  source = "../../modules/s3_bucket"

  name            = module.naming.names.work_bucket
  tags            = module.naming.labels
  noncurrent_days = 0
  expire_days     = 3
}

# Decoded tables, which are replaced in place: a bucket of their own, so that parts stay where only creating is allowed.
module "tables_bucket" {
  source = "../../modules/s3_bucket"
  count  = var.tables ? 1 : 0

  name   = module.naming.names.tables_bucket
  tags   = module.naming.labels
  public = var.public
}

module "identities" {
  source = "../../modules/s3_identities"

  name           = module.naming.base
  state_bucket   = { name = module.state_bucket.name, arn = module.state_bucket.arn }
  work_bucket    = { name = module.work_bucket.name, arn = module.work_bucket.arn }
  tables_bucket  = var.tables ? { name = module.tables_bucket[0].name, arn = module.tables_bucket[0].arn } : null
  trust_policies = { for role, file in var.trust_policy_files : role => file(file) }
  public         = var.public
  readers        = var.readers
  tags           = module.naming.labels
}
