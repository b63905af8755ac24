variable "region" {
  description = "Region of the buckets: that of the NEAR node, or every part pays for its way."
  type        = string
  default     = "eu-central-1"
}

variable "prefix" {
  description = "What all names begin with; see modules/naming."
  type        = string
}

variable "chain_id" {
  description = "The NEAR chain whose state is published."
  type        = string
  default     = "mainnet"
}

variable "environment" {
  description = "Which of several installations this is, for tags."
  type        = string
  default     = "production"
}

variable "trust_policy_files" {
  description = "Files that say who may take the roles producer, builder, seeder and keeper; without one the role is not made, and its policy is for a role of yours."
  type        = map(string)
  default     = {}
}

variable "tables" {
  description = "Whether decoded tables are made, in a bucket of their own (docs/operations/data.md)."
  type        = bool
  default     = false
}

variable "public" {
  description = "Whether everybody may read. Egress is the owner's to pay."
  type        = bool
  default     = false
}

variable "readers" {
  description = "ARNs of AWS principals that may read."
  type        = list(string)
  default     = []
}
