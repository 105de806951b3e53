# A Nomad server for slots. Copy it to /etc/nomad.d/ on each of three or five servers, beside base.hcl, with mode 600, and
# set the lines marked HERE.

server {
  enabled          = true
  bootstrap_expect = 3     # HERE: how many servers there are
  encrypt          = "KEY" # HERE: from `nomad operator gossip keyring generate`, the same on all servers
  server_join {
    retry_join = ["10.0.0.1", "10.0.0.2", "10.0.0.3"] # HERE: the servers
  }

  # Jobs of slots are many and short. The registrar purges them; these limits catch what it could not.
  job_gc_interval         = "1m"
  job_gc_threshold        = "10m"
  eval_gc_threshold       = "10m"
  batch_eval_gc_threshold = "10m"

  # Events kept for a reader that was away for a moment; it lists everything after a longer pause.
  event_buffer_size = 1000

  # Refuse clients that nobody introduced: a stranger's client would be given jobs, and the tokens of slots in them.
  client_introduction {
    enforcement = "strict"
  }
}
