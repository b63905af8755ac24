# The operator alone. Runs are RayJobs, and those are in infra/kubernetes: terraform would need the API and its types to plan them.
resource "helm_release" "operator" {
  name             = "kuberay-operator"
  namespace        = var.namespace
  create_namespace = true

  repository = "https://ray-project.github.io/kuberay-helm/"
  chart      = "kuberay-operator"
  version    = var.chart_version

  # A half-made release is taken back, so that the next apply begins from something known.
  atomic  = true
  wait    = true
  timeout = 600

  values = [yamlencode({
    # It looks after these alone. Its permissions are the cluster's all the same: the chart can bind them to namespaces only where those
    # are there before it (singleNamespaceInstall), and this namespace comes with the manifests.
    watchNamespace = var.watched_namespaces

    nodeSelector = { "statecast/pool" = "on-demand" }
    resources = {
      requests = { cpu = "100m", memory = "512Mi" }
      limits   = { memory = "512Mi" }
    }
  })]
}
