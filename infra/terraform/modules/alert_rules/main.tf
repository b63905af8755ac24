locals {
  # The same rule files that Prometheus loads: alerts are defined in one place.
  groups = flatten([for file in var.rule_files : yamldecode(file(file)).groups])

  rules = merge([
    for group in local.groups : {
      for rule in group.rules : rule.alert => merge(rule, { group = group.name })
      if !contains(var.left_out, rule.alert)
    }
  ]...)

  # Prometheus writes 10m or 1h30m, Google seconds.
  units_s = { s = 1, m = 60, h = 3600, d = 86400 }
  waits_s = {
    for name, rule in local.rules :
    name => sum([for part in regexall("([0-9]+)([smhd])", lookup(rule, "for", "0s")) : tonumber(part[0]) * local.units_s[part[1]]])
  }
}
