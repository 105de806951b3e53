# A Nomad client that runs sets, routers or both, beside base.hcl and client.hcl. The folders of a set belong to user
# 10001, those of its registrar to user 10002, each with mode 700:
#
#   install -d -o 10001 -g 10001 -m 700 /var/lib/general-compute-a /etc/general-compute/a
#   install -d -o 10002 -g 10001 -m 700 /etc/general-compute/a-registrar
#
# A machine with these folders holds the token that is root on every client: let no slots run on it (`node_pool`), unless
# you have only a few machines.

client {
  # The store of set a. Anybody who has this machine has the set's tasks. Keep it on a disk that survives the machine.
  host_volume "gc-set-a" {
    path = "/var/lib/general-compute-a"
  }
  # link/ with the set's certificate (`gcompute cert set a`), passwords of registries.
  host_volume "gc-set-a-config" {
    path      = "/etc/general-compute/a"
    read_only = true
  }
  # token: the registrar's; ca.pem: the authority of Nomad's API. Only the registrar's task mounts it.
  host_volume "gc-set-a-registrar" {
    path      = "/etc/general-compute/a-registrar"
    read_only = true
  }
}
