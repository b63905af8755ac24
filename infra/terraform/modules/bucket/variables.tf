variable "project_id" {
  description = "Google Cloud project."
  type        = string
}

variable "name" {
  description = "Name of the bucket, unique in the world."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 63 lowercase letters, digits or hyphens; dots would need a domain."
  }
}

variable "location" {
  description = "Region of the bucket: the cluster's own, or every part pays for its way."
  type        = string
}

variable "labels" {
  description = "Labels of the bucket."
  type        = map(string)
}

variable "public" {
  description = "Whether the bucket may be opened to everybody (by modules/access; this alone opens nothing)."
  type        = bool
  default     = false
}

variable "storage_class" {
  description = "Class of new objects. Parts are read most in their first hours and deleted after days: STANDARD is cheapest for that."
  type        = string
  default     = "STANDARD"

  validation {
    condition     = contains(["STANDARD", "NEARLINE"], var.storage_class)
    error_message = "storage_class must be STANDARD or NEARLINE; colder classes charge for the early deletion of every epoch."
  }
}

variable "soft_delete_days" {
  description = "Days for which deleted objects can be had back: 0 (off), or 7 to 90. Each deleted epoch is paid for as long."
  type        = number
  default     = 7

  validation {
    condition     = var.soft_delete_days == 0 || (var.soft_delete_days >= 7 && var.soft_delete_days <= 90)
    error_message = "soft_delete_days must be 0 or from 7 to 90."
  }
}

variable "noncurrent_days" {
  description = "Days for which replaced and deleted objects stay as noncurrent versions; 0 turns versioning off."
  type        = number
  default     = 0

  validation {
    condition     = var.noncurrent_days >= 0
    error_message = "noncurrent_days must not be negative."
  }
}

variable "expire_days" {
  description = "Days after which every object is deleted, for buckets of work that can be done again; null for published epochs."
  type        = number
  default     = null

  validation {
    condition     = var.expire_days == null ? true : var.expire_days >= 1
    error_message = "expire_days must be 1 or more, or null."
  }
}
