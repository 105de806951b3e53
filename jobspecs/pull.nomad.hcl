# An image pulled ahead: one sysbatch job for each image of a set's `images_ahead`. Each node pulls the image, starts the
# guest from it, which ends at once, and runs nothing of the image. A node that joins while the job is there does the same.
#
# The registrar (`gcompute registrar`) registers it, and purges it when the set no longer wants the image. Everything marked
# WALL is as in slot.nomad.hcl.

variable "job_id" { type = string }
variable "set_name" { type = string }
variable "image" {
  type        = string
  description = "As the set's operator named it, for people."
}
variable "run" {
  type        = string
  description = "What the docker driver pulls: REPOSITORY@DIGEST."
}
variable "places" {
  type        = list(string)
  description = "The image's VOLUMEs: one that nothing covers would stay on the node's disk for ever."
}
variable "guest" { type = string }
variable "seccomp" { type = string }
variable "runtime" { type = string }
variable "region" { type = string }
variable "namespace" { type = string }
variable "datacenters" { type = list(string) }
variable "node_pool" { type = string }

job "pull" {
  id          = var.job_id
  name        = "set ${var.set_name}: pull ${var.image}"
  type        = "sysbatch"
  region      = var.region
  namespace   = var.namespace
  datacenters = var.datacenters
  node_pool   = var.node_pool
  priority    = 30

  ui {
    description = "Image `${var.image}` of set **${var.set_name}**, pulled ahead on every node"
  }

  constraint {
    attribute = "$${attr.kernel.name}"
    value     = "linux"
  }

  group "pull" {
    # A registry may be away for a moment; the registrar registers the job again when it is gone.
    restart {
      attempts = 2
      interval = "30m"
      delay    = "30s"
      mode     = "fail"
    }
    ephemeral_disk { size = 10 }

    volume "bin" {
      type      = "host"
      source    = "gc-bin"
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
        volume      = "hide" # WALL
        destination = "/gc/nomad"
        read_only   = true
      }
      volume_mount {
        volume      = "dev" # WALL
        destination = "/dev"
        read_only   = true
      }

      env = {
        # WALL
        NOMAD_ALLOC_DIR   = "/gc/nomad/alloc"
        NOMAD_TASK_DIR    = "/gc/nomad/local"
        NOMAD_SECRETS_DIR = "/gc/nomad/secrets"
      }

      config {
        image      = var.run
        entrypoint = ["/gc/bin/${var.guest}"]
        args       = ["exit"]

        labels = {
          "org.general-compute.image" = var.image
        }

        # WALL, all of it.
        runtime         = var.runtime
        network_mode    = "none"
        cgroupns        = "private"
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges", "seccomp=${var.seccomp}"]
        readonly_rootfs = true
        pids_limit      = 16

        mount = [for place in var.places : {
          type   = "tmpfs"
          target = place
          tmpfs_options = [{
            size = 1048576
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

      resources {
        cpu    = 100
        memory = 32
      }
    }
  }
}
