# What every agent needs, server or client. Copy it to /etc/nomad.d/ on each machine and set the lines marked HERE.
# Nomad 2.0.3 or later. README.md beside this file says how to make the certificates and the first token.

name       = "n1" # HERE. Sets, executors and their certificates call a node by this name.
datacenter = "dc1"
data_dir   = "/var/lib/nomad"
bind_addr  = "10.0.0.1" # HERE, four times: this machine's address
advertise {
  http = "10.0.0.1"
  rpc  = "10.0.0.1"
  serf = "10.0.0.1"
}

# Restarts of an agent must not look like a node that leaves for ever.
leave_on_interrupt   = false
leave_on_terminate   = false
disable_update_check = true

# Anybody who may register jobs owns every client: without a token a caller may do nothing.
acl {
  enabled = true
}

tls {
  http = true
  rpc  = true

  ca_file   = "/etc/nomad.d/tls/ca.pem"
  cert_file = "/etc/nomad.d/tls/agent.pem"
  key_file  = "/etc/nomad.d/tls/agent-key.pem"

  # A client's certificate must not pass for a server's.
  verify_server_hostname = true
  # Callers of the API show a token. True would ask for a certificate as well: give the registrar one (`cert_file`).
  verify_https_client = false
}

# Idle slots cost a tenth of the CPU that they cost at the default of 1s.
telemetry {
  collection_interval = "30s"
}
