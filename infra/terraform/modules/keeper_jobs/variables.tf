variable "project_id" {
  description = "Google Cloud project."
  type        = string
}

variable "region" {
  description = "Region of the jobs: the bucket's."
  type        = string
}

variable "name" {
  description = "What the jobs' names begin with."
  type        = string
}

variable "labels" {
  description = "Labels of the jobs."
  type        = map(string)
}

variable "image" {
  description = "Image of statecast with its tag or digest."
  type        = string

  validation {
    condition     = can(regex("(:[A-Za-z0-9._-]+|@sha256:[0-9a-f]{64})$", var.image)) && !endswith(var.image, ":latest")
    error_message = "image must name a version by tag or digest, not latest."
  }
}

variable "keeper_email" {
  description = "E-mail of the keeper's service account."
  type        = string
}

variable "scheduler_account" {
  description = "Account id of the service account that starts the jobs."
  type        = string
}

variable "jobs" {
  description = "Arguments of statecast and when they run (cron, UTC), by name."
  type = map(object({
    args      = list(string)
    schedule  = string
    timeout_s = optional(number, 3600)
    cpu       = optional(string, "2")
    memory    = optional(string, "4Gi")
  }))

  validation {
    condition     = alltrue([for job in values(var.jobs) : length(split(" ", job.schedule)) == 5])
    error_message = "A schedule must have the five fields of cron."
  }

  validation {
    condition     = alltrue([for job in values(var.jobs) : job.timeout_s >= 60 && job.timeout_s <= 86400])
    error_message = "timeout_s must be from 60 to 86400."
  }
}
