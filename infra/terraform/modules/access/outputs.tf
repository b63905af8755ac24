output "grants" {
  description = "Grants by name: bucket (state, work or tables), member, role, and condition (an expression, or null)."
  value       = merge(local.of_buckets, var.tables ? local.of_tables : {}, local.of_readers, local.of_public)
}

output "members" {
  description = "IAM members by role."
  value       = local.members
}
