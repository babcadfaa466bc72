#!/bin/sh
# What a dressed container runs: at its first start it becomes a box of $DRESS, then its sshd is all that it does. What the
# outside decides anew at each start lies in /card: the port, the password, and whether there is a GPU.
set -eu
person=root
image_python=$(readlink -f /usr/bin/python3 || :)

# python_at PATH…: an environment's Python, which is the image's own by another name.
python_at() {
    for path; do
        mkdir -p "$(dirname "$path")"
        ln -s "$image_python" "$path"
    done
}

# no_python3: none that a search path leads to.
no_python3() {
    mv "$image_python" /usr/lib/python-of-the-image
    image_python=/usr/lib/python-of-the-image
    rm -f /usr/bin/python3 /usr/bin/python3.*
}

# account NAME: who logs in, where that is not root.
account() {
    person=$1
    useradd --create-home --shell /bin/bash --password '*' "$person"
}

# by_password: there is no key before its owner has put it there by the password of the console.
by_password() {
    touch /var/lib/by-password
}

# program PATH: a program of the box, from standard input.
program() {
    cat >"$1"
    chmod 755 "$1"
}

if [ ! -e /var/lib/dressed ]; then
    . "/dress/$DRESS.sh"
    printf '#!/bin/sh\n[ -e /card/card.json ] || { echo No devices were found; exit 6; }\n' | program /usr/bin/nvidia-smi
    printf 'exec %s -I -S /card/nvidia_smi.py "$@"\n' "$image_python" >>/usr/bin/nvidia-smi
    echo "$person" >/var/lib/dressed
fi
keys=/card/authorized_keys passwords=no root=prohibit-password
if [ -e /var/lib/by-password ]; then
    keys=.ssh/authorized_keys passwords=yes root=yes
    echo "$(cat /var/lib/dressed):$(cat /card/password)" | chpasswd
fi
mkdir -p /run/sshd
exec /usr/sbin/sshd -D -e -f /dev/null \
    -o ListenAddress=127.0.0.1 -o "Port=$(cat /card/port)" -o HostKey=/card/host_key -o PidFile=none \
    -o "AuthorizedKeysFile=$keys" -o StrictModes=no -o "AllowUsers=$(cat /var/lib/dressed)" \
    -o "PasswordAuthentication=$passwords" -o KbdInteractiveAuthentication=no -o "PermitRootLogin=$root" \
    -o UsePAM=no -o UseDNS=no -o 'Subsystem=sftp internal-sftp'
