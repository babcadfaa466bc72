#!/bin/sh
# What the console shows of the box in FOLDER from its next start on: another port than it had, and another password.
set -eu
python - "$1/card" <<'CHOOSE'
import pathlib, secrets, socket, sys

card = pathlib.Path(sys.argv[1])
former = (card / "port").read_text().strip() if (card / "port").exists() else ""
chosen = former
while chosen == former:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        chosen = str(free.getsockname()[1])
(card / "port").write_text(chosen + "\n")
(card / "password").write_text(secrets.token_urlsafe() + "\n")
CHOOSE
