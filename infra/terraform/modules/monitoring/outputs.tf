output "alerts" {
  description = "Alerts that are on."
  value       = sort(keys(module.alert_rules.rules))
}
