# The registrar's token: what `gcompute registrar` calls, and nothing more. Still it is root's on every node of the
# namespace's pool, as a job may mount what it likes. Only the registrar's user may read it.
#
# For another set write its namespace below, and give the policy another name.
#
#   nomad acl policy apply -description "Registrar of set a" gc-registrar ops/nomad/policies/registrar.hcl
#   nomad acl token create -name gc-registrar -policy gc-registrar

namespace "gc-a" {
  capabilities = [
    "list-jobs", "read-job", "parse-job", # lists, events, the template
    "register-job", "deregister-job",     # before Nomad 2.0: "submit-job"
    "purge-job",
    "alloc-lifecycle", # kills surplus slots by signal
  ]
}

# The platform's folders that slots mount. Not gc-*: a machine that runs sets has the folders of other registrars.
host_volume "gc-bin" {
  policy = "read"
}
host_volume "gc-dev" {
  policy = "read"
}
host_volume "gc-hide" {
  policy = "read"
}
host_volume "gc-hosts" {
  policy = "read"
}
host_volume "gc-run" {
  policy = "read"
}

# How many nodes take slots.
node {
  policy = "read"
}
