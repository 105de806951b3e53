# Slots of one pool: one batch job for each "add k slots", one group with one allocation for each slot.
#
# The registrar (`gcompute registrar`) has Nomad parse this file with the variables below, and registers the result. It
# reads the file again for each job, so a change counts for slots that start after it. Running slots keep what they have.
#
# Safe to change: priority, node_pool, ui, additional meta, additional constraints, affinities and spreads, resources
# within reason. Everything marked WALL keeps an algorithm inside its slot: SECURITY.md says what each line is for, and
# tests/scheduler/launchers/nomad compares a slot of this file with a slot of the Docker launcher. Values in braces that
# begin with two dollar signs are for Nomad's clients; nothing that a user wrote may be interpolated there, and the
# registrar refuses orders that try.

variable "job_id" { type = string }
variable "set_name" { type = string }
variable "installation" { type = string }
variable "account" { type = string }
variable "image" {
  type        = string
  description = "As the caller named it, for people."
}
variable "run" {
  type        = string
  description = "What the docker driver runs: REPOSITORY@DIGEST, or the id of an image that is on the node."
}
variable "digest" { type = string }
variable "pool" {
  type        = string
  description = "The pool in words, for people."
}
variable "cpu" {
  type        = number
  description = "Reserved, in thousandths of a core: clients set cpu_total_compute to 1000 for each core."
}
variable "cpu_hard_limit" {
  type        = bool
  description = "True if the reservation is the limit as well. Else the executor sets the limit before the first task."
}
variable "memory_mib" { type = number }
variable "max_run_s" {
  type        = number
  description = "How long a slot may be there. The set gives it no task that might run for longer."
}
variable "cpu_features" { type = list(string) }
variable "places" { type = list(object({ path = string, size_bytes = number })) }
variable "arguments" {
  type        = list(string)
  description = "Of the guest, after its socket: descriptors, places, --, variables that it passes on."
}
variable "env" { type = map(string) }
variable "pids" { type = number }
variable "ulimits" { type = map(string) }
variable "sysctls" { type = map(string) }
variable "oom_score_adj" { type = number }
variable "guest" {
  type        = string
  description = "The guest's file in the host volume gc-bin; its name carries its build."
}
variable "seccomp" {
  type        = string
  description = "The seccomp profile, a file on every client; its name carries its digest."
}
variable "runtime" {
  type        = string
  description = "The OCI runtime, as daemon.json of each client's engine names it; empty: the engine's own."
}
variable "slots" { type = list(object({ id = string, token = string, door = string, node = string })) }
variable "status_url" { type = string }
variable "region" { type = string }
variable "namespace" { type = string }
variable "datacenters" { type = list(string) }
variable "node_pool" { type = string }

job "slots" {
  id          = var.job_id
  name        = "set ${var.set_name}: ${var.account} / ${var.image}"
  type        = "batch"
  region      = var.region
  namespace   = var.namespace
  datacenters = var.datacenters
  node_pool   = var.node_pool
  priority    = 50

  # The title of the job's page in Nomad's UI.
  ui {
    description = "Slots of set **${var.set_name}** for account **${var.account}**: image `${var.image}`, pool `${var.pool}`"
    dynamic "link" {
      for_each = var.status_url == "" ? [] : [var.status_url]
      content {
        label = "Set ${var.set_name}"
        url   = link.value
      }
    }
  }

  # Searched in the UI as: Meta["gc.account"] == "acme"
  meta = {
    "gc.set"          = var.set_name
    "gc.installation" = var.installation
    "gc.account"      = var.account
    "gc.image"        = var.image
    "gc.digest"       = var.digest
    "gc.pool"         = var.pool
  }

  constraint {
    attribute = "$${attr.kernel.name}"
    value     = "linux"
  }

  # CPU flags are not among a node's attributes: clients carry them as metadata, gc_cpu_avx2 = "1".
  dynamic "constraint" {
    for_each = var.cpu_features
    content {
      attribute = "$${meta.gc_cpu_${constraint.value}}"
      value     = "1"
    }
  }

  dynamic "group" {
    for_each = var.slots
    iterator = slot
    labels   = [slot.value.id]

    content {
      count = 1

      # The set decides what becomes of a slot: Nomad neither restarts nor replaces one. A node that is away longer
      # than any outage is given up; the set has long since started slots elsewhere.
      restart {
        attempts = 0
        mode     = "fail"
      }
      reschedule {
        attempts  = 0
        unlimited = false
      }
      disconnect {
        lost_after = "24h"
        replace    = false
      }

      # Ends a slot that its set has forgotten, whatever happened. Needs Nomad 2.0.3.
      max_run_duration = "${var.max_run_s}s"

      # Nothing that an algorithm writes reaches the disk; this is Nomad's smallest.
      ephemeral_disk { size = 10 }

      dynamic "constraint" {
        for_each = slot.value.node == "" ? [] : [slot.value.node]
        content {
          attribute = "$${node.unique.name}"
          value     = constraint.value
        }
      }

      # ops/nomad lays these folders out on every client. WALL: all are read-only.
      volume "bin" {
        type      = "host"
        source    = "gc-bin"
        read_only = true
      }
      volume "run" {
        type      = "host"
        source    = "gc-run"
        read_only = true
      }
      volume "hide" {
        type      = "host"
        source    = "gc-hide"
        read_only = true
      }
      volume "dev" {
        type      = "host"
        source    = "gc-dev"
        read_only = true
      }
      volume "hosts" {
        type      = "host"
        source    = "gc-hosts"
        read_only = true
      }

      task "guest" {
        driver       = "docker"
        kill_signal  = "SIGKILL"
        kill_timeout = "1s"

        volume_mount {
          volume      = "bin"
          destination = "/gc/bin"
          read_only   = true
        }
        volume_mount {
          volume      = "run"
          destination = "/gc/run"
          read_only   = true
        }
        # WALL: a folder that nobody can enter. Nomad mounts its own directories inside, with the agent's API among them.
        volume_mount {
          volume      = "hide"
          destination = "/gc/nomad"
          read_only   = true
        }
        # WALL: devices that no task can replace or add to.
        volume_mount {
          volume      = "dev"
          destination = "/dev"
          read_only   = true
        }
        volume_mount {
          volume      = "hosts" # a file
          destination = "/etc/hosts"
          read_only   = true
        }

        env = merge(var.env, {
          GENERAL_COMPUTE_SLOT_TOKEN = slot.value.token
          # WALL: moves Nomad's directories into gc-hide.
          NOMAD_ALLOC_DIR   = "/gc/nomad/alloc"
          NOMAD_TASK_DIR    = "/gc/nomad/local"
          NOMAD_SECRETS_DIR = "/gc/nomad/secrets"
        })

        config {
          image      = var.run
          entrypoint = ["/gc/bin/${var.guest}"] # also drops the image's CMD: the executor sends both with each task
          args       = concat(["/gc/run/${slot.value.door}/executor.sock"], var.arguments)
          hostname   = "slot"

          labels = {
            "org.general-compute.set"          = var.set_name
            "org.general-compute.installation" = var.installation
            "org.general-compute.account"      = var.account
            "org.general-compute.image"        = var.image
            "org.general-compute.digest"       = var.digest
            "org.general-compute.pool"         = var.pool
            "org.general-compute.slot"         = slot.value.id
          }

          # WALL, all of it.
          runtime         = var.runtime
          network_mode    = "none"
          cgroupns        = "private"
          cap_drop        = ["all"]
          security_opt    = ["no-new-privileges", "seccomp=${var.seccomp}"]
          readonly_rootfs = true
          pids_limit      = var.pids
          oom_score_adj   = var.oom_score_adj
          cpu_hard_limit  = var.cpu_hard_limit
          ulimit          = [var.ulimits]
          sysctl          = [var.sysctls]

          # Places that the image may write to, and covers of its VOLUMEs that have files: without one, the engine would
          # make a volume of each, which stays on the disk for ever. The driver can express neither `exec`, nor inodes, nor
          # an owner: the executor sets these, and takes the covers away, before the slot's first task (dress.c).
          mount = [for place in var.places : {
            type   = "tmpfs"
            target = place.path
            tmpfs_options = [{
              size = place.size_bytes
              mode = 1023 # 01777
            }]
          }]

          healthchecks { disable = true }
          logging { type = "none" }
        }

        logs {
          disabled      = true
          max_files     = 1
          max_file_size = 1
        }

        # A warm slot that does nothing reserves little CPU. Memory has no swap beside it.
        resources {
          cpu    = var.cpu
          memory = var.memory_mib
        }
      }
    }
  }
}
