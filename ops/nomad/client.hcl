# A Nomad client that runs slots. Copy it to /etc/nomad.d/ on every node, beside base.hcl, and set the lines marked HERE.
# Lay the folders out first: python -m ops.nomad layout

client {
  enabled = true
  servers = ["10.0.0.1", "10.0.0.2", "10.0.0.3"] # HERE: the servers

  # 1000 for each core: then a job's `cpu` counts thousandths of a core on every node alike.
  cpu_total_compute = 2000 # HERE

  # Jobs that pin cores (`cores` instead of `cpu`) push slots off them. Keep such jobs in another pool.
  node_pool = "default"

  # An executor and a set need time to end their tasks. Nomad cuts a job's `kill_timeout` to this.
  max_kill_timeout = "2m"

  # The package of an executor has more files than the default of 4,096.
  artifact {
    decompression_file_count_limit = 16384
  }

  # Above the slots, alive and dead, that a node may have: at this number new ones hang as `pending`.
  gc_max_allocs = 500
  gc_interval   = "1m"

  meta {
    # Address at which sets reach this node's executor, and routers the sets that run here.
    gc_address = "10.0.0.1" # HERE
    # The folder that `python -m ops.nomad layout` made.
    gc_folder = "/var/lib/general-compute"
  }

  # CPU features that slots may ask for are metadata: /var/lib/general-compute/features.hcl, which the layout writes. Link
  # it into /etc/nomad.d/, or start the agent with it: -config=/var/lib/general-compute/features.hcl

  host_volume "gc-bin" {
    path      = "/var/lib/general-compute/bin"
    read_only = true
  }
  host_volume "gc-run" {
    path      = "/var/lib/general-compute/run"
    read_only = true
  }
  host_volume "gc-hide" {
    path      = "/var/lib/general-compute/hide"
    read_only = true
  }
  host_volume "gc-dev" {
    path      = "/var/lib/general-compute/dev"
    read_only = true
  }
  host_volume "gc-hosts" {
    path      = "/var/lib/general-compute/hosts" # a file
    read_only = true
  }
}

plugin "docker" {
  config {
    endpoint = "unix:///var/run/docker.sock"

    allow_privileged = false
    allow_caps       = []
    allow_runtimes   = ["runc", "gcompute-runc"]
    pids_limit       = 4096
    volumes { enabled = false }

    disable_log_collection = true
    logging { type = "none" }
    extra_labels = ["job_id", "job_name", "namespace", "node_name"]

    image_pull_timeout    = "15m" # Nomad 2.0.5 gives up after 5m all the same: pull large images ahead
    pull_activity_timeout = "1m"

    gc {
      image     = false # images are pruned by age; else they go three minutes after their last use
      container = true

      # Set `enabled = false` where two agents share one engine: each would remove the other's slots.
      dangling_containers {
        enabled = true
      }
    }
  }
}

# The executor runs in the host's own namespaces (jobspecs/executor.nomad.hcl). Leave this out where systemd runs it.
# The namespace of slots allows no such job: namespaces/slots.hcl.
plugin "raw_exec" {
  config {
    enabled = true
  }
}
