# On a fresh machine with Python 3.11+, make and git, each of these does everything that it needs:
#   make report       trains, samples, scores and typesets the table on the mini scale
#   make replication  typesets the study with many seeds
#   make test         the test suite's fast part (make test-all: all of it; make lint: lint and types)
PYTHON ?= python3
CORES ?= all
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.synced

# One process, one thread: two processes with two threads each collapse on two cores.
export OMP_NUM_THREADS ?= 1
# Containers often set it; then every process compiles torch, transformers and diffusers again, for 7 s each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: report replication test test-all lint format pretrain lock clean

report: $(STAMP)
	$(BIN)/snakemake --cores $(CORES) reports/table.pdf

# Typesets what the study with many seeds found, from the results in replication/mini, and trains nothing.
replication: $(STAMP)
	$(BIN)/snakemake --cores $(CORES) replication
	@echo "See reports/mini-replication/table.pdf"

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not gpu"

test-all: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not gpu"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile profiles/kubernetes/Snakefile mini/pretrain/Snakefile
	$(BIN)/snakemake --lint
	$(BIN)/snakemake --lint --snakefile mini/pretrain/Snakefile

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile profiles/kubernetes/Snakefile mini/pretrain/Snakefile

# Makes those of the miniature's weights that are missing below mini/weights (all: about six hours of CPU time), or of a
# STAGE or several. Delete a network's folder to make that again. Stopped, it goes on where it was.
# With OUT they are made in another folder, and compared with the shipped ones. With a SHARE, say .002, of the steps it
# is a rehearsal: every stage goes through, in the folder OUT/rehearsal, and nothing is compared.
pretrain: $(STAMP)
	$(BIN)/snakemake --snakefile mini/pretrain/Snakefile --directory . --cores $(CORES) \
	  --config $(if $(OUT),"out=$(OUT)") $(if $(SHARE),"share=$(SHARE)") \
	  $(if $(STAGE),"stage=$(STAGE)" -- stages)
	$(if $(SHARE),,$(if $(OUT),$(BIN)/python -m mini.pretrain compare --out "$(OUT)"))

# The environment is a function of requirements.lock alone.
$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

lock: $(STAMP)
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links -o requirements.lock requirements.in

# Removes what the project made and can make again; says what stays (your data, votes, keys of studies) and why.
clean:
	$(PYTHON) -m addbench.clean
