output "rules" {
  description = "Rules by alert: query, duration_s, severity, group and text (Markdown)."
  value = {
    for name, rule in local.rules : name => {
      query      = trimspace(rule.expr)
      duration_s = local.waits_s[name]
      severity   = upper(rule.labels.severity)
      group      = rule.group
      text       = "${rule.annotations.description}\n\n${var.docs_url}/${rule.annotations.runbook}"
    }
  }

  precondition {
    condition     = length(setsubtract(var.left_out, flatten([for group in local.groups : group.rules[*].alert]))) == 0
    error_message = "left_out names an alert that is in no file."
  }
}
