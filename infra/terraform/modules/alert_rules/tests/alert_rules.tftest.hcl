variables {
  rule_files = ["./tests/rules.yaml"]
  docs_url   = "https://example.org/docs"
}

run "a_rule_is_taken_over" {
  command = plan

  assert {
    condition = output.rules["First"] == {
      query      = "up == 0"
      duration_s = 5400
      severity   = "CRITICAL"
      group      = "one"
      text       = "It is down.\n\nhttps://example.org/docs/runbook.md#first"
    }
    error_message = "A rule was changed on its way: ${jsonencode(output.rules["First"])}"
  }
}

run "a_rule_without_a_wait_has_none" {
  command = plan

  assert {
    condition     = output.rules["Second"].duration_s == 0
    error_message = "No `for` must mean no wait."
  }
}

run "an_alert_can_be_left_out" {
  command = plan

  variables {
    left_out = ["First"]
  }

  assert {
    condition     = keys(output.rules) == ["Second"]
    error_message = "First must be gone, and First alone."
  }
}

run "leaving_out_what_is_not_there_is_an_error" {
  command = plan

  variables {
    left_out = ["Frist"]
  }

  expect_failures = [output.rules]
}

run "the_projects_own_rules_are_taken" {
  command = plan

  variables {
    rule_files = ["../../../monitoring/alerts.yaml", "../../../monitoring/cluster-alerts.yaml"]
  }

  assert {
    condition     = alltrue([for rule in values(output.rules) : contains(["CRITICAL", "ERROR", "WARNING"], rule.severity) && rule.duration_s % 60 == 0])
    error_message = "Google knows three severities, and waits of whole minutes."
  }
}
