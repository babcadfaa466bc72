# shellcheck shell=sh
# LanRui: the user is called user, and has a data disk that bills and a netdisk that every workspace of the zone sees.
account user
chown user: /home/user /home/user/datadisk /home/user/netdisk /home/user/netdisk/data
python_at /opt/conda/bin/python /opt/conda/bin/python3
