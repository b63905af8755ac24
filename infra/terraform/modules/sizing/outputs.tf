output "build_workers" {
  description = "Ray workers, one a machine, of the build pool; maxReplicas of the group `build` in the RayJob."
  value       = local.build_workers

  precondition {
    condition     = local.build_s > 0
    error_message = "Reading ${var.state_gib} GiB at ${var.read_mib_per_s} MiB/s alone takes longer than ${var.deadline_minutes} minutes: no number of workers can meet this deadline."
  }
}

output "cores" {
  description = "Cores that meet the deadline, headroom included."
  value       = local.cores_needed
}

output "parts" {
  description = "State parts of an epoch, about."
  value       = local.parts
}

output "objects_per_epoch" {
  description = "Objects that an epoch puts, about: parts, and some for each shard and the epoch."
  value       = local.parts + 64
}
