output "grants" {
  description = "Grants by name: bucket (state or work), member, role, and condition (an expression, or null)."
  value       = merge(local.of_buckets, local.of_readers, local.of_public)
}

output "members" {
  description = "IAM members by role."
  value       = local.members
}
