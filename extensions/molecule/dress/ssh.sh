# shellcheck shell=sh
# Any machine with an ssh server: nothing is as on a rented one, and nothing ends by itself.
