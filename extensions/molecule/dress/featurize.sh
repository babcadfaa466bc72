# shellcheck shell=sh
# Featurize: another user than root, whose home folder is the instance's own; only work in it is kept.
account featurize
chown featurize: /home/featurize /home/featurize/work
python_at /environment/miniconda3/bin/python /environment/miniconda3/bin/python3
