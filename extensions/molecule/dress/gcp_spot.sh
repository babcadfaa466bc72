# shellcheck shell=sh
# Google Compute Engine: the user of an Ubuntu image, on the one disk of the machine.
account ubuntu
