# The namespace of the platform's own jobs: executors, sets, routers. Only operators who own the machines register jobs here.
#
#   nomad namespace apply ops/nomad/namespaces/platform.hcl

name        = "gc-platform"
description = "Executors, sets and routers of General Compute"

capabilities {
  enabled_task_drivers = ["docker", "raw_exec"]
}
