# In the virtual machine: unpacks the project from the second disk, which is a tar archive, and does what it says.
mkdir -p /project && cd /project && tar x < /dev/vdb
sh /project/command.sh
echo "vm-exit-status $?"
sync
echo o > /proc/sysrq-trigger
sleep 60
