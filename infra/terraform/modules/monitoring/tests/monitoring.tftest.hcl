# NEEDS A PROVIDER REGISTRY: mock_provider takes the schema from the provider's own program. `make infra-check` leaves this file out.
mock_provider "google" {}

variables {
  project_id     = "example-project"
  rule_files     = ["../../../monitoring/alerts.yaml", "../../../monitoring/cluster-alerts.yaml"]
  left_out       = ["StatecastWatchDown"]
  docs_url       = "https://example.org/docs"
  dashboard_name = "example-mainnet"
  labels         = { app = "statecast" }
}

run "every_rule_is_a_policy" {
  command = plan

  assert {
    condition     = sort(keys(google_monitoring_alert_policy.this)) == output.alerts && !contains(output.alerts, "StatecastWatchDown")
    error_message = "Policies and rules must be the same, but for what is left out."
  }
}

run "alerts_come_before_their_metrics" {
  command = plan

  assert {
    condition = alltrue([
      for policy in google_monitoring_alert_policy.this : one(one(policy.conditions).condition_prometheus_query_language).disable_metric_validation
    ])
    error_message = "Google refuses a policy over a metric that was never sent."
  }
}
