# The routers: equal, each on a machine of its own, behind the balancer that clients know (ops/front).
#
#   nomad var put -force -namespace gc-platform nomad/jobs/gc-router router=@router.yaml ca=@/etc/nomad.d/tls/ca.pem
#   nomad job run -var image=registry.example/general-compute:VERSION jobspecs/router.nomad.hcl
#
# The operators' file is a Nomad variable, so all routers have the same one. After another `nomad var put` every router
# takes the new version within seconds, with no restart and no lost request; one with mistakes changes nothing, and the
# router says so in its log. Keep the file in version control, and check it first: `gcompute router check router.yaml`.
# Commands that write a router's file (`set-weight`, `rollout`) are for routers outside Nomad: here, edit the variable.
# A variable has 64 KiB.
#
# In that file, sets are found by their services:
#
#   discovery: {nomad: "https://10.0.0.1:4646", namespace: gc-platform, token_file: /secrets/nomad_token, ca_file: /local/ca.pem}
#   sets:
#     a: {service: gc-set-a, state: ready}

variable "image" {
  type        = string
  description = "The platform's image (`make image`), by a fixed tag or digest."
}
variable "routers" {
  type    = number
  default = 2
}
variable "canaries" {
  type        = number
  description = "New routers beside the old ones at an upgrade. With fixed ports each needs a machine without a router; with none to spare, 0."
  default     = 1
}
variable "workers" {
  type        = number
  description = "Processes of each router: one a core."
  default     = 1
}
variable "port" {
  type        = number
  description = "The port for clients or the balancer. 0: Nomad chooses one."
  default     = 8080
}
variable "admin_port" {
  type        = number
  description = "The port for operators, on the machine's loopback address alone. 0: Nomad chooses one."
  default     = 8081
}
variable "memory_mib" {
  type    = number
  default = 512
}
variable "datacenters" {
  type    = list(string)
  default = ["*"]
}
variable "node_pool" {
  type    = string
  default = "default"
}

job "gc-router" {
  name        = "routers"
  type        = "service"
  namespace   = "gc-platform"
  datacenters = var.datacenters
  node_pool   = var.node_pool
  priority    = 90

  ui {
    description = "The routers. Their file is the variable `nomad/jobs/gc-router`."
  }

  constraint {
    attribute = "$${meta.gc_address}"
    operator  = "is_set"
  }
  constraint {
    operator = "distinct_hosts"
    value    = "true"
  }
  # One router for each datacenter first.
  spread {
    attribute = "$${node.datacenter}"
  }

  # An upgrade starts a canary, waits until it serves, and goes on router by router. A version that does not become
  # healthy is taken back.
  update {
    max_parallel     = 1
    canary           = var.canaries
    auto_promote     = var.canaries > 0
    auto_revert      = true
    health_check     = "checks"
    min_healthy_time = "10s"
    healthy_deadline = "3m"
  }

  group "router" {
    count = var.routers

    network {
      mode = "host"
      port "http" { static = var.port }
      port "admin" { static = var.admin_port }
    }

    restart {
      attempts = 10
      interval = "1m"
      delay    = "1s"
      mode     = "delay"
    }

    # Addresses of sets and the history of the file outlive an upgrade.
    ephemeral_disk {
      size   = 300
      sticky = true
    }

    service {
      name     = "gc-router"
      provider = "nomad"
      port     = "http"
      address  = "$${meta.gc_address}"
      # A router that serves answers; the path is not one of a set's.
      check {
        type     = "tcp"
        interval = "5s"
        timeout  = "3s"
      }
    }

    task "router" {
      driver         = "docker"
      user           = "10001:10001"
      kill_signal    = "SIGTERM"
      kill_timeout   = "60s" # requests in work may end: 30 s
      shutdown_delay = "5s"  # by then the balancer sends it no new requests

      # The token by which the router reads services, as /secrets/nomad_token: Nomad renews it.
      identity {
        file = true
      }

      config {
        image   = var.image
        command = "gcompute"
        args = [
          "router", "start", "$${NOMAD_TASK_DIR}/router.yaml",
          "--bind", "$${meta.gc_address}:$${NOMAD_PORT_http}",
          "--admin-bind", "127.0.0.1:$${NOMAD_PORT_admin}",
          "--state-dir", "$${NOMAD_ALLOC_DIR}/data/router",
          "--workers", "${var.workers}",
        ]
        network_mode    = "host"
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        pids_limit      = 256
        # Clients that run slots collect no logs (client.hcl), so the engine keeps them: `docker logs` on the node, or
        # `journald` here.
        logging {
          type = "json-file"
          config {
            max-size = "50m"
            max-file = "3"
          }
        }
        mount {
          type   = "tmpfs"
          target = "/tmp"
          tmpfs_options {
            size = 67108864
          }
        }
      }

      # The router looks at its file by itself.
      template {
        destination = "local/router.yaml"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/gc-router\" }}{{ .router }}{{ end }}"
      }
      template {
        destination = "local/ca.pem"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/gc-router\" }}{{ .ca }}{{ end }}"
      }

      resources {
        cpu    = 1000 * var.workers
        memory = var.memory_mib
      }
    }
  }
}
