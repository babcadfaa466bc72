#!/bin/sh
# Start the container that is the cluster.
#   start.sh FOLDER CONTAINER IMAGE PERSON
set -eu
folder=$1 container=$2 image=$3 person=$4
here=$(cd "$(dirname "$0")" && pwd)

mkdir -p "$folder/card"
ssh-keygen -q -t ed25519 -N '' -f "$folder/key"
ssh-keygen -q -t ed25519 -N '' -f "$folder/card/host_key"
cp "$folder/key.pub" "$folder/card/authorized_keys"
cp "$here/../../../../src/gpu_tenant/marketplace/engines/nvidia_smi.py" "$folder/card"
cat >"$folder/card/card.json" <<CARD
{"name": "NVIDIA A100-SXM4-80GB", "memory_mb": 81920, "count": 1, "driver": "550.54", "cuda": "12.4", "serial": "slurm"}
CARD
# Three at a time, so that they differ.
python -c '
import socket, sys
held = [socket.socket() for _name in sys.argv[1:]]
for each, name in zip(held, sys.argv[1:]):
    each.bind(("127.0.0.1", 0))
    print(each.getsockname()[1], file=open(name, "w"))
' "$folder/port" "$folder/control" "$folder/node"

exec podman run --detach --init --name "$container" --hostname slurm --network host --pull never \
    --add-host slurm:127.0.0.1 \
    --env "PERSON=$person" --env "PORT=$(cat "$folder/port")" --env "CONTROL_PORT=$(cat "$folder/control")" \
    --env "NODE_PORT=$(cat "$folder/node")" \
    --volume "$here:/cluster:ro" --volume "$folder/card:/card:ro" "$image" /bin/sh /cluster/init.sh
