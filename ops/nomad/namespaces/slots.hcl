# The namespace of one set's slots: its registrar may register jobs here and nowhere else.
#
#   nomad namespace apply ops/nomad/namespaces/slots.hcl

name        = "gc-a"
description = "Slots of set a"

capabilities {
  # Slots need no other driver. Without this line a stolen token could also start programs by raw_exec.
  enabled_task_drivers = ["docker"]
}
