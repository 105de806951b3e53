# The executor of every node that runs slots: it runs tasks of sets in the slots of its own machine.
#
#   nomad job run -var package=https://files.example/general-compute-VERSION-linux-x86_64-python3.11.tar.gz \
#       -var checksum=sha256:... -var 'shares={a: {}}' jobspecs/executor.nomad.hcl
#
# `make package` makes the package. Where it is unpacked on the nodes already, leave `package` out.
#
# A node needs, beside what ops/nomad/client.hcl says: Python of the package's version, the folder that `python -m
# ops.nomad layout` makes, and its certificate in CERTIFICATES/NAME-OF-THE-NODE (`gcompute cert executor`).
#
# An upgrade restarts one executor after another. A stopping executor ends its tasks first (`drain_timeout_s`, 30 s); its
# sets run new tasks elsewhere meanwhile. Slots end with their executor, as their guests lose their connection.

variable "package" {
  type        = string
  description = "Address of the package. Empty: it is in `folder` already."
  default     = ""
}
variable "checksum" {
  type        = string
  description = "Of the package, such as sha256:0a1b...: nodes run no other one. Needed with `package`."
  default     = ""
}
variable "folder" {
  type        = string
  description = "The unpacked package on each node, used where `package` is empty."
  default     = "/opt/general-compute"
}
variable "shares" {
  type        = string
  description = "The sets that may run tasks, and their part of each node, as YAML: {a: {cores: 8, max_slots: 64}}"
}
variable "certificates" {
  type    = string
  default = "/etc/general-compute/link"
}
variable "state_dir" {
  type        = string
  description = "Folder for the executor's lock, on each node."
  default     = "/var/lib/general-compute-executor"
}
variable "port" {
  type        = number
  description = "The port of the link, open for sets. 0: Nomad chooses one."
  default     = 8201
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

job "gc-executor" {
  name        = "executors"
  type        = "system"
  namespace   = "gc-platform"
  datacenters = var.datacenters
  node_pool   = var.node_pool
  priority    = 80 # before slots: without an executor a node's slots are of no use

  ui {
    description = "The executor of each node: it runs tasks in the node's slots. Nodes without it take no task."
  }

  # Address of this node for sets, and the folder of slots: `meta` in ops/nomad/client.hcl.
  constraint {
    attribute = "$${meta.gc_address}"
    operator  = "is_set"
  }
  constraint {
    attribute = "$${meta.gc_folder}"
    operator  = "is_set"
  }

  update {
    max_parallel     = 1
    health_check     = "checks"
    min_healthy_time = "5s"
    healthy_deadline = "3m"
  }

  group "executor" {
    network {
      mode = "host"
      port "link" { static = var.port }
    }

    # An executor that fails is started again at once, for ever: its node is of no use without.
    restart {
      attempts = 10
      interval = "1m"
      delay    = "1s"
      mode     = "delay"
    }

    service {
      name     = "gc-executor"
      provider = "nomad"
      port     = "link"
      address  = "$${meta.gc_address}"
      tags     = ["$${node.unique.name}"]
      check {
        type     = "tcp"
        interval = "10s"
        timeout  = "3s"
      }
    }

    task "executor" {
      # The host's own namespaces: an executor tells slots by their processes and cgroups, and enters them.
      driver         = "raw_exec"
      user           = "root"
      kill_signal    = "SIGTERM"
      shutdown_delay = "1s"
      kill_timeout   = "60s" # above drain_timeout_s; client.hcl allows it by max_kill_timeout

      dynamic "artifact" {
        for_each = var.package == "" ? [] : [var.package]
        content {
          source      = artifact.value
          destination = "local/package"
          options { checksum = var.checksum }
        }
      }

      config {
        command = "/bin/sh"
        # The package's folder bears its version.
        args = ["-c", "exec ${var.package == "" ? var.folder : "$${NOMAD_TASK_DIR}/package/*"}/bin/gcompute executor $${NOMAD_TASK_DIR}/executor.yaml"]
      }

      template {
        destination = "local/executor.yaml"
        change_mode = "restart"
        data        = <<-YAML
          node: {{ env "node.unique.name" }}
          bind: "{{ env "meta.gc_address" }}:{{ env "NOMAD_PORT_link" }}"
          state_dir: ${var.state_dir}/{{ env "node.unique.name" }}
          run_folder: {{ env "meta.gc_folder" }}/run
          certificates: ${var.certificates}/{{ env "node.unique.name" }}
          sets: ${var.shares}
        YAML
      }

      resources {
        cpu    = 500
        memory = var.memory_mib
      }
    }
  }
}
