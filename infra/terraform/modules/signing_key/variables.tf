variable "project_id" {
  description = "Google Cloud project."
  type        = string
}

variable "name" {
  description = "Id of the secret."
  type        = string
}

variable "labels" {
  description = "Labels of the secret."
  type        = map(string)
}

variable "locations" {
  description = "Regions that keep a copy."
  type        = set(string)

  validation {
    condition     = length(var.locations) >= 1
    error_message = "locations must name one region at least."
  }
}

variable "destroy_after_days" {
  description = "Days between destroying a version and its end."
  type        = number
  default     = 7

  validation {
    condition     = var.destroy_after_days >= 1 && var.destroy_after_days <= 1000
    error_message = "destroy_after_days must be from 1 to 1000."
  }
}

variable "deletion_protection" {
  description = "Whether terraform refuses to delete the secret."
  type        = bool
  default     = true
}
