# Operators read everything in Nomad's UI. Stop, Restart and Edit there would make slots that no set ordered.
#
#   nomad acl policy apply -description "Operators" gc-operators ops/nomad/policies/operators.hcl

namespace "*" {
  policy = "read"
}

node {
  policy = "read"
}

agent {
  policy = "read"
}
