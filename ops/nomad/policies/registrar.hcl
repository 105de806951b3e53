# The registrar's token: what `gcompute registrar` calls, and nothing more. Still it is root's on every node of the
# namespace's pool, as a job may mount what it likes. Only the registrar's user may read it.
#
#   nomad acl policy apply -description "Registrar of set a" gc-a-registrar ops/nomad/policies/registrar.hcl
#   nomad acl token create -name gc-a-registrar -policy gc-a-registrar

namespace "gc-a" {
  capabilities = [
    "list-jobs", "read-job", "parse-job", # lists, events, the template
    "register-job", "deregister-job",     # before Nomad 2.0: "submit-job"
    "purge-job",
    "alloc-lifecycle", # kills surplus slots by signal
  ]
}

# Mounts of the platform's folders.
host_volume "gc-*" {
  policy = "read"
}

# How many nodes take slots.
node {
  policy = "read"
}
