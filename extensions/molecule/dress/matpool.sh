# shellcheck shell=sh
# Matpool: logins activate the environment myconda; the base environment beside it is another one.
python_at /root/miniconda3/bin/python /root/miniconda3/envs/myconda/bin/python
# shellcheck disable=SC2016 # for the login to expand
printf 'export PATH=/root/miniconda3/envs/myconda/bin:$PATH CONDA_DEFAULT_ENV=myconda\n' >>/root/.bashrc
# A snapshot lies on the netdisk, and counts.
head -c 1048576 /dev/zero >/mnt/environment.snap
