# The same arithmetic as `statecast plan`, reduced to what a node pool needs; measure, then replace the defaults.
locals {
  # Time between the export's end and the deadline, in which the spot workers do everything else.
  build_s = var.deadline_minutes * 60 - ceil(var.state_gib * 1024 / var.read_mib_per_s)

  core_seconds = var.state_gib * 1024 / var.build_mib_per_core_s
  # At least one second, so that the check below reports an impossible deadline, not a division by zero.
  cores_needed = ceil(local.core_seconds / max(local.build_s, 1) * var.headroom)

  # A Ray worker takes a whole machine less one core for the system.
  worker_cores  = var.cores_per_machine - 1
  build_workers = max(var.build_workers_min, ceil(local.cores_needed / local.worker_cores))

  parts = ceil(var.state_gib * 1024 / var.part_mib)
}
