variable "project_id" {
  description = "Google Cloud project."
  type        = string
}

variable "project_number" {
  description = "Number of that project."
  type        = string
}

variable "namespace" {
  description = "Kubernetes namespace of statecast."
  type        = string
  default     = "statecast"
}

variable "service_accounts" {
  description = "Kubernetes service accounts by role; see modules/access."
  type = object({
    producer = optional(string, "statecast-producer")
    builder  = optional(string, "statecast-builder")
    seeder   = optional(string, "statecast-seeder")
  })
  default = {}
}

variable "buckets" {
  description = "Names of the buckets of published epochs, of work and, where decoded tables are made, of those."
  type        = object({ state = string, work = string, tables = optional(string) })
}

variable "signing_key_secret" {
  description = "Id of the secret with the signing key."
  type        = string
}

variable "keeper_account" {
  description = "Account id of the keeper."
  type        = string
}

variable "deleter_role_id" {
  description = "Id of the custom role; one a project, so name it after the installation where there are several."
  type        = string
  default     = "statecastObjectDeleter"

  validation {
    condition     = can(regex("^[A-Za-z0-9_.]{3,64}$", var.deleter_role_id))
    error_message = "deleter_role_id must be 3 to 64 letters, digits, underscores or dots."
  }
}

variable "readers" {
  description = "IAM members that may read the state bucket."
  type        = set(string)
  default     = []
}

variable "public" {
  description = "Whether everybody may read the state bucket."
  type        = bool
  default     = false
}
