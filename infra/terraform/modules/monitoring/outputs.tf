output "alerts" {
  description = "Alerts that are on."
  value       = sort(keys(local.rules))
}
