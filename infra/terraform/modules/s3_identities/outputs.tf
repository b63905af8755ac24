output "role_arns" {
  description = "ARNs of the roles, by role; for the annotation eks.amazonaws.com/role-arn of the service account."
  value       = { for key, role in aws_iam_role.this : key => role.arn }
}

output "policy_arns" {
  description = "ARNs of the policies, by role, where the roles are made elsewhere; the bucket then lets such a producer replace what it may put."
  value       = { for key, policy in aws_iam_policy.this : key => policy.arn }
}
