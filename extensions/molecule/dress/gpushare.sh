# shellcheck shell=sh
# GpuShare: a base environment that no login activates.
python_at /usr/local/miniconda3/bin/python /usr/local/miniconda3/bin/python3
