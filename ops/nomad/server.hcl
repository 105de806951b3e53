# A Nomad server for slots. Copy it to /etc/nomad.d/ on each of three or five servers, beside a base file of your own with
# data_dir, addresses, TLS, `acl { enabled = true }` and `server { bootstrap_expect = 3 }`.

server {
  enabled = true

  # Jobs of slots are many and short. The registrar purges them; these limits catch what it could not.
  job_gc_interval         = "1m"
  job_gc_threshold        = "10m"
  eval_gc_threshold       = "10m"
  batch_eval_gc_threshold = "10m"

  # Events kept for a reader that was away for a moment; it lists everything after a longer pause.
  event_buffer_size = 1000

  # Refuse clients that nobody introduced, where the version knows the block:
  # client_introduction {
  #   enforcement = "strict"
  # }
}
