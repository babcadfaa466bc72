#!/bin/sh
# Start a container that looks like a box of PLATFORM.
#   start.sh PLATFORM FOLDER CONTAINER IMAGE "DISK…" "SHARED DISK…" PROXY FILES
# FILES: the most that each shared disk takes, or 0.
set -eu
platform=$1 folder=$2 container=$3 image=$4 disks=$5 shared=$6 proxy=$7 files=$8
here=$(cd "$(dirname "$0")" && pwd)

mkdir -p "$folder/card"
ssh-keygen -q -t ed25519 -N '' -f "$folder/key"
ssh-keygen -q -t ed25519 -N '' -f "$folder/card/host_key"
cp "$folder/key.pub" "$folder/card/authorized_keys"
cp "$here/../../../src/gpu_tenant/marketplace/engines/nvidia_smi.py" "$folder/card"
cat >"$folder/card/card.json" <<CARD
{"name": "NVIDIA GeForce RTX 4090", "memory_mb": 24564, "count": 1, "driver": "550.54", "cuda": "12.4", "serial": "$platform"}
CARD
"$here/console.sh" "$folder"

set --
for path in $disks; do
    mkdir -p "$folder/disk$path"
    set -- "$@" --volume "$folder/disk$path:$path"
done
# A network disk, as far as the box can tell: FUSE over a folder of this machine.
for path in $shared; do
    mkdir -p "$folder/far$path" "$folder/near$path"
    [ "$files" = 0 ] || mount -t tmpfs -o "nr_inodes=$files,size=1g" tmpfs "$folder/far$path"
    bindfs "$folder/far$path" "$folder/near$path"
    set -- "$@" --volume "$folder/near$path:$path"
done
exec podman run --detach --init --name "$container" --hostname "$platform" --network host --pull never \
    --label "gpu-tenant-dressed=$folder" \
    --add-host huggingface.co:127.0.0.1 --add-host turbo.gpushare.com:127.0.0.1 \
    --env "DRESS=$platform" --env "PROXY=$proxy" \
    --volume "$here:/dress:ro" --volume "$folder/card:/card:ro" "$@" "$image" /bin/sh /dress/init.sh
