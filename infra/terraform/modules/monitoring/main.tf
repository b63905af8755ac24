locals {
  # The same rule files that Prometheus loads: one place says when somebody is woken.
  groups = flatten([for file in var.rule_files : yamldecode(file(file)).groups])

  rules = merge([
    for group in local.groups : {
      for rule in group.rules : rule.alert => merge(rule, { group = group.name })
      if !contains(var.left_out, rule.alert)
    }
  ]...)
}

resource "google_monitoring_alert_policy" "this" {
  for_each = local.rules

  project      = var.project_id
  display_name = each.key
  combiner     = "OR"
  severity     = upper(each.value.labels.severity)
  user_labels  = var.labels

  notification_channels = var.notification_channels

  conditions {
    display_name = each.key

    condition_prometheus_query_language {
      query               = trimspace(each.value.expr)
      duration            = local.durations_s[each.key]
      evaluation_interval = "60s"
      rule_group          = each.value.group
      alert_rule          = each.key
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "${each.value.annotations.description}\n\n${var.docs_url}/${each.value.annotations.runbook}"
  }

  alert_strategy {
    auto_close = "86400s"
  }
}

locals {
  # Prometheus writes 10m, Google 600s.
  units_s     = { s = 1, m = 60, h = 3600, d = 86400 }
  durations_s = { for name, rule in local.rules : name => "${sum([for part in regexall("([0-9]+)([smhd])", lookup(rule, "for", "0s")) : tonumber(part[0]) * local.units_s[part[1]]])}s" }

  tiles = [
    { title = "Epochs that the node has and the bucket has not", query = "max(statecast_epochs_behind)" },
    { title = "Seconds from snapshot to last part", query = "max(statecast_last_part_seconds)" },
    { title = "Failures an hour, by kind", query = "sum by (kind) (increase(statecast_failures_total[1h]))" },
    { title = "Parts that seeders have, share", query = "sum(statecast_seed_parts_complete) / sum(statecast_seed_parts_wanted)" },
    { title = "Bytes a second to peers", query = "sum(rate(statecast_seed_uploaded_bytes_total[5m]))" },
    { title = "Ray tasks, by state", query = "sum by (State) (ray_tasks)" },
  ]
}

# The first look; infra/monitoring/grafana-dashboard.json is the long one.
resource "google_monitoring_dashboard" "this" {
  project = var.project_id

  dashboard_json = jsonencode({
    displayName = var.dashboard_name
    mosaicLayout = {
      columns = 48
      tiles = [
        for index, tile in local.tiles : {
          xPos   = (index % 2) * 24
          yPos   = floor(index / 2) * 16
          width  = 24
          height = 16
          widget = {
            title = tile.title
            xyChart = {
              dataSets = [{
                plotType        = "LINE"
                timeSeriesQuery = { prometheusQuery = tile.query }
              }]
            }
          }
        }
      ]
    }
  })
}
