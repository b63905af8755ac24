variable "project_id" {
  description = "Google Cloud project of the cluster."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id must be a project's id, not its name or number."
  }
}

variable "project_number" {
  description = "Number of that project; members of Workload Identity Federation are named by it."
  type        = string

  validation {
    condition     = can(regex("^[0-9]+$", var.project_number))
    error_message = "project_number must be digits."
  }
}

variable "namespace" {
  description = "Kubernetes namespace of statecast."
  type        = string
  default     = "statecast"
}

variable "service_accounts" {
  description = "Kubernetes service accounts of infra/kubernetes by role."
  type = object({
    producer = optional(string, "statecast-producer")
    builder  = optional(string, "statecast-builder")
    seeder   = optional(string, "statecast-seeder")
  })
  default = {}
}

variable "keeper_member" {
  description = "IAM member that may delete: it collects old epochs, scrubs and repairs."
  type        = string

  validation {
    condition     = can(regex("^(serviceAccount|user|group|principal|principalSet):", var.keeper_member))
    error_message = "keeper_member must be an IAM member such as serviceAccount:NAME@PROJECT.iam.gserviceaccount.com."
  }
}

variable "deleter_role" {
  description = "Custom role that holds storage.objects.delete and nothing else."
  type        = string

  validation {
    condition     = can(regex("^(projects|organizations)/[^/]+/roles/[A-Za-z0-9_.]+$", var.deleter_role))
    error_message = "deleter_role must be the full name of a custom role."
  }
}

variable "readers" {
  description = "IAM members that may read the state bucket, where it is not public."
  type        = set(string)
  default     = []

  validation {
    condition     = !anytrue([for member in var.readers : contains(["allUsers", "allAuthenticatedUsers"], member)])
    error_message = "Everybody is not a reader by name: set public instead, so that it is seen."
  }
}

variable "public" {
  description = "Whether everybody may read the state bucket."
  type        = bool
  default     = false
}

variable "tables" {
  description = "Whether decoded tables are made, in a bucket of their own."
  type        = bool
  default     = false
}
