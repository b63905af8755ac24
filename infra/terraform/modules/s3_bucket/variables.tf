variable "name" {
  description = "Name of the bucket, unique in the world."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.name))
    error_message = "name must be 3 to 63 lowercase letters, digits or hyphens."
  }
}

variable "tags" {
  description = "Tags of the bucket."
  type        = map(string)
}

variable "public" {
  description = "Whether a policy may open the bucket to everybody (modules/s3_identities writes it)."
  type        = bool
  default     = false
}

variable "noncurrent_days" {
  description = "Days for which replaced and deleted objects can be had back; 0 turns versioning off."
  type        = number
  default     = 7

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
