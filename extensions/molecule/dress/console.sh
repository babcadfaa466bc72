#!/bin/sh
# Choose the port on which the box in FOLDER is reached from its next start on.
set -eu
python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])' >"$1/card/port"
