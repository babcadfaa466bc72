# shellcheck shell=sh
# AutoDL: the base environment is the only Python, and it is called python; no tmux; a proxy to be sourced; a shared disk
# that takes so many files; another port and another password after each start.
by_password
no_python3
python_at /root/miniconda3/bin/python
rm -f /usr/bin/tmux
mkdir -p /root/tf-logs
cat >/etc/network_turbo <<TURBO
export http_proxy=$PROXY
export https_proxy=$PROXY
export no_proxy=127.0.0.1,localhost,modelscope.com,aliyuncs.com,tencentyun.com
export REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt
export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
TURBO
# The power of the box: what is its process 1 hands the signal on, and ends when sshd has.
program /usr/bin/shutdown <<'SHUTDOWN'
#!/bin/sh
kill -TERM 1
SHUTDOWN
# What the platform calls the instance, by which a box is the same one at another port.
program /usr/local/bin/hostname <<'HOSTNAME'
#!/bin/sh
echo autodl-container-4a7f45b869-e38322e3
HOSTNAME
