variable "name" {
  description = "What the names of roles and policies begin with."
  type        = string
}

variable "state_bucket" {
  description = "Bucket of published epochs."
  type        = object({ name = string, arn = string })
}

variable "work_bucket" {
  description = "Bucket of what stages leave each other."
  type        = object({ name = string, arn = string })
}

variable "tables_bucket" {
  description = "Bucket of decoded tables; null where none are made."
  type        = object({ name = string, arn = string })
  default     = null
}

variable "trust_policies" {
  description = "Who may take a role, as a policy document (JSON), by role: producer, builder (build workers of a Ray cluster), seeder, keeper. On EKS: the cluster's identity provider and the service account."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for role, policy in var.trust_policies : contains(["producer", "builder", "seeder", "keeper"], role) && can(jsondecode(policy).Statement)])
    error_message = "trust_policies must be policy documents by producer, builder, seeder or keeper."
  }
}

variable "public" {
  description = "Whether everybody may read the bucket of published epochs. Egress is the owner's to pay."
  type        = bool
  default     = false
}

variable "readers" {
  description = "ARNs of AWS principals that may read, where the bucket is not public."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for reader in var.readers : startswith(reader, "arn:")])
    error_message = "readers must be ARNs; for everybody set public."
  }
}

variable "tags" {
  description = "Tags of roles and policies."
  type        = map(string)
}
