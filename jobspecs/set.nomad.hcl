# A set and its registrar. A set is one process with a folder of its own, so it has one instance; for more, run more sets.
#
#   nomad job run -var image=registry.example/general-compute:VERSION -var set_name=a -var memory_mib=2048 \
#       -var 'executors={n1="10.0.0.11:8201", n2="10.0.0.12:8201"}' -var 'registries=["registry.example"]' \
#       -var settings=set-a.yaml jobspecs/set.nomad.hcl
#
# The set needs no engine: it reads images from its registries, and its executors run the tasks. `settings` names a file
# on your machine with the other settings of sets/docs/settings.md, `registries` at least.
#
# The machine that holds the set's host volumes runs it (ops/nomad/platform.hcl). They belong to user 10001; the volume
# of the registrar belongs to 10002 and is mounted into the registrar alone: the token in it is root on every node.
#
# An upgrade stops the set and starts the new version: about a second, in which the router sends new work to other sets.
# Tasks that wait are in its store. If the new version does not become ready, Nomad returns to the version before.

variable "image" {
  type        = string
  description = "The platform's image (`make image`), by a fixed tag or digest."
}
variable "set_name" { type = string }
variable "executors" {
  type        = map(string)
  description = "Address of each node's executor, by the node's name."
}
variable "settings" {
  type        = string
  description = "A YAML file with more settings of the set: registries, accounts, limits."
}
variable "registries" {
  type        = list(string)
  description = "Registries from which nodes may pull the set's images: the names in `registries` of its settings."
  default     = []
}
variable "nomad_url" {
  type        = string
  description = "Address of Nomad's API for the registrar."
  default     = "https://127.0.0.1:4646"
}
variable "node_folder" {
  type        = string
  description = "The folder of slots on every node: gc_folder in ops/nomad/client.hcl."
  default     = "/var/lib/general-compute"
}
variable "status_url" {
  type        = string
  description = "Page of the set, as a button on its slots' jobs."
  default     = ""
}
variable "port" {
  type        = number
  description = "The set's port, open for routers. 0: Nomad chooses one."
  default     = 8101
}
variable "memory_mib" {
  type    = number
  default = 1024
}
variable "datacenters" {
  type    = list(string)
  default = ["*"]
}
variable "node_pool" {
  type    = string
  default = "default"
}

job "gc-set" {
  id          = "gc-set-${var.set_name}"
  name        = "set ${var.set_name}"
  type        = "service"
  namespace   = "gc-platform"
  datacenters = var.datacenters
  node_pool   = var.node_pool
  priority    = 80

  ui {
    description = "Set **${var.set_name}**: its API, its task manager, its store, and its registrar."
  }

  constraint {
    attribute = "$${meta.gc_address}"
    operator  = "is_set"
  }

  update {
    max_parallel     = 1
    health_check     = "checks"
    min_healthy_time = "5s"
    healthy_deadline = "5m"
    auto_revert      = true
    # No canary: two processes on one store are refused. Gray release goes by sets: upgrade one, and weigh it by the router.
    canary = 0
  }

  group "set" {
    count = 1

    network {
      mode = "host"
      port "api" { static = var.port }
    }

    restart {
      attempts = 10
      interval = "1m"
      delay    = "1s"
      mode     = "delay"
    }
    # Its store is on this machine, so no other could run it.
    reschedule {
      attempts  = 0
      unlimited = false
    }
    # The machine may come back: then the set goes on from its store.
    disconnect {
      lost_after = "24h"
      replace    = false
    }

    volume "state" {
      type   = "host"
      source = "gc-set-${var.set_name}"
    }
    volume "config" {
      type      = "host"
      source    = "gc-set-${var.set_name}-config"
      read_only = true
    }
    volume "registrar" {
      type      = "host"
      source    = "gc-set-${var.set_name}-registrar"
      read_only = true
    }

    # Routers find the set by this name (`discovery` in their file).
    service {
      name     = "gc-set-${var.set_name}"
      provider = "nomad"
      port     = "api"
      address  = "$${meta.gc_address}"
      check {
        type     = "http"
        path     = "/readyz"
        interval = "5s"
        timeout  = "3s"
      }
    }

    task "registrar" {
      driver = "docker"
      user   = "10002:10001" # the group of the set, which may connect to the socket
      lifecycle {
        hook    = "prestart"
        sidecar = true
      }

      config {
        image           = var.image
        command         = "gcompute"
        args            = ["registrar", "$${NOMAD_TASK_DIR}/registrar.yaml"]
        network_mode    = "host"
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        pids_limit      = 128
        # Clients that run slots collect no logs (client.hcl), so the engine keeps them: `docker logs` on the node, or
        # `journald` here.
        logging {
          type = "json-file"
          config {
            max-size = "50m"
            max-file = "3"
          }
        }
      }

      volume_mount {
        volume      = "registrar"
        destination = "/registrar"
        read_only   = true
      }

      template {
        destination = "local/registrar.yaml"
        change_mode = "restart"
        data        = <<-YAML
          set_name: ${var.set_name}
          socket: {{ env "NOMAD_ALLOC_DIR" }}/registrar.sock
          address: ${var.nomad_url}
          ca_file: /registrar/ca.pem
          token_file: /registrar/token
          namespace: gc-${var.set_name}
          node_folder: ${var.node_folder}
          registries: ${jsonencode(var.registries)}
          status_url: "${var.status_url}"
        YAML
      }

      resources {
        cpu    = 200
        memory = 256
      }
    }

    task "set" {
      # Stopped first: it ends its slots, for which it needs its registrar.
      leader = true

      driver         = "docker"
      user           = "10001:10001"
      kill_signal    = "SIGTERM"
      shutdown_delay = "1s"
      kill_timeout   = "100s" # above drain_timeout_s and the 45 s in which its parts close

      config {
        image           = var.image
        command         = "gcompute"
        args            = ["set", "$${NOMAD_TASK_DIR}/set.yaml"]
        network_mode    = "host"
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        pids_limit      = 512
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

      volume_mount {
        volume      = "state"
        destination = "/state"
      }
      volume_mount {
        volume      = "config"
        destination = "/config"
        read_only   = true
      }

      # A change restarts the set; its executors and accounts are read at its start.
      template {
        destination = "local/set.yaml"
        change_mode = "restart"
        data        = <<-YAML
          name: ${var.set_name}
          state_dir: /state
          bind: "{{ env "meta.gc_address" }}:{{ env "NOMAD_PORT_api" }}"
          launcher: nomad
          registrar: {{ env "NOMAD_ALLOC_DIR" }}/registrar.sock
          node_folder: ${var.node_folder}
          link_certificates: /config/link
          executors: ${jsonencode({ for node, address in var.executors : node => { address = address } })}
          ${file(var.settings)}
        YAML
      }

      resources {
        cpu    = 1000
        memory = var.memory_mib
      }
    }
  }
}
