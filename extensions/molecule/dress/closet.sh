# shellcheck shell=sh
# A team's own machine, a platform by one YAML file in the team's folder: a user, a scratch disk and a network disk
account lab
mkdir -p /scratch/lab
chown lab: /scratch /scratch/lab /nas
python_at /opt/lab/bin/python
