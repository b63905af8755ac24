locals {
  # Cloud names are lowercase letters, digits and hyphens; a chain id may hold more.
  chain = trim(replace(lower(var.chain_id), "/[^a-z0-9]+/", "-"), "-")
  base  = "${var.prefix}-${local.chain}"

  labels = merge(var.labels, {
    app         = "statecast"
    chain       = local.chain
    environment = var.environment
    managed-by  = "terraform"
  })
}
