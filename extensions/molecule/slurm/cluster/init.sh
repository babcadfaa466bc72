#!/bin/sh
# What the container runs: munged, slurmctld, slurmd, and in the end an sshd for $PERSON, who is nobody's administrator.
set -eu
python=$(readlink -f /usr/bin/python3)
if [ ! -e /etc/slurm/slurm.conf ]; then
    useradd --create-home --shell /bin/bash --password '*' "$PERSON"
    install -d -o "$PERSON" "/scratch/$PERSON"
    install -d -o slurm /var/spool/slurmctld /var/log/slurm
    install -d /etc/slurm /var/spool/slurmd
    printf '#!/bin/sh\nexec %s -I -S /card/nvidia_smi.py "$@"\n' "$python" >/usr/bin/nvidia-smi
    chmod 755 /usr/bin/nvidia-smi
    [ -s /etc/munge/munge.key ] || (umask 077 && head -c 1024 /dev/urandom >/etc/munge/munge.key)
    chown munge /etc/munge/munge.key
    sed -e "s/@NODE@/$(hostname)/g" -e "s/@CONTROL@/$CONTROL_PORT/" -e "s/@NODE_PORT@/$NODE_PORT/" \
        -e "s/@CPUS@/$(nproc)/" /cluster/slurm.conf >/etc/slurm/slurm.conf
    printf 'AutoDetect=off\nName=gpu File=/dev/zero\n' >/etc/slurm/gres.conf
    # What lies here before anybody of ours was here.
    touch /var/lib/dressed
fi
install -d -o munge /run/munge
setpriv --reuid munge --regid munge --clear-groups munged --socket /run/munge/munge.socket.2
setpriv --reuid slurm --regid slurm --clear-groups slurmctld
slurmd
mkdir -p /run/sshd
exec /usr/sbin/sshd -D -e -f /dev/null \
    -o ListenAddress=127.0.0.1 -o "Port=$PORT" -o HostKey=/card/host_key -o PidFile=none \
    -o AuthorizedKeysFile=/card/authorized_keys -o StrictModes=no -o "AllowUsers=$PERSON" \
    -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no -o PermitRootLogin=no \
    -o UsePAM=no -o UseDNS=no -o 'Subsystem=sftp internal-sftp'
