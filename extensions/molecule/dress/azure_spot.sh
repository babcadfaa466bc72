# shellcheck shell=sh
# Azure: the user that its portal proposes, and a temporary disk at /mnt that no eviction spares.
account azureuser
