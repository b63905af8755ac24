module "alert_rules" {
  source = "../alert_rules"

  rule_files = var.rule_files
  left_out   = var.left_out
  docs_url   = var.docs_url
}

resource "google_monitoring_alert_policy" "this" {
  for_each = module.alert_rules.rules

  project      = var.project_id
  display_name = each.key
  combiner     = "OR"
  severity     = each.value.severity
  user_labels  = var.labels

  notification_channels = var.notification_channels

  conditions {
    display_name = each.key

    condition_prometheus_query_language {
      query               = each.value.query
      duration            = "${each.value.duration_s}s"
      evaluation_interval = "60s"
      rule_group          = each.value.group
      alert_rule          = each.key

      # The alerts are there before the first run has given its first metric; Google would refuse them.
      disable_metric_validation = true
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = each.value.text
  }

  alert_strategy {
    auto_close = "86400s"
  }
}

locals {
  tiles = [
    { title = "Epochs that the node has and the bucket has not", query = "max(statecast_epochs_behind)" },
    { title = "Seconds from snapshot to last part", query = "max(statecast_last_part_seconds)" },
    { title = "Failures an hour, by kind", query = "sum by (kind) (increase(statecast_failures_total[1h])) > 0" },
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
