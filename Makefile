# One word per habit. Every target makes and reuses .venv/ by itself.
# The newest supported interpreter that can make an environment. An environment that is there keeps its own.
PYTHON ?= $(shell for it in python3.13 python3.12 python3.11 python3; do \
	"$$it" -c "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))" 2>/dev/null \
	&& echo "$$it" && break; done)
VENV := .venv
BIN := $(VENV)/bin
DATA ?= ../shared/data
# Idle threads that spin steal the cores from the engine next door.
export OMP_WAIT_POLICY := PASSIVE

GPU_MINUTES ?= 12

.PHONY: demo docs test test-wheel test-long test-speed test-services test-gateway-sdk test-crash soak test-keystore coverage-keystore test-adapters test-ray test-drills measure-adapters lint types imports format bench bench-keystore evaluate figures gallery people models train-mapper train-mapper-gpu train-subspace train-small teacher gpu-check gpu-prepare gpu-rehearsal train-encoder clean help

help:            ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group dev --editable ".[lab]"
	touch $@

models: $(VENV)/.ready   ## fetch the weights that demo, tests and figures need
	$(BIN)/anonymix models pull --group core
	$(BIN)/anonymix models pull facenet dlib-recognition scrfd-500m sface-int8 landmarks-106

demo: $(VENV)/.ready     ## the whole story as a page: out/demo/index.html
	$(BIN)/anonymix models pull --group core
	$(BIN)/anonymix models pull facenet
	$(BIN)/anonymix demo --output out/demo

# Each worker loads the weights once and takes up to 5 GB. More threads than one a worker wait for each other.
WORKERS ?= 2
test: export OMP_NUM_THREADS := 1
test: export OPENBLAS_NUM_THREADS := 1
test: models             ## the default suite
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-services: models    ## the adapters of commercial services, on local servers of their wire formats
	$(BIN)/python -m pytest -m "services and not long" tests/adapters

# node and npm: those that are there, else Debian's.
SDK := out/sdk
$(SDK)/.ready: tests/adapters/sdk/package.json
	command -v npm > /dev/null || { apt-get update -q && apt-get install -q -y nodejs npm; }
	mkdir -p $(SDK) && cp $< $(SDK)/ && npm install --prefix $(SDK) --ignore-scripts --no-audit --no-fund
	touch $@

test-gateway-sdk: models $(SDK)/.ready   ## CompreFace's official JavaScript SDK through the gateway, unchanged
	SDK_FOLDER=$(abspath $(SDK)) $(BIN)/python -m pytest -m sdk tests/adapters

# Recognisers whose packages ask for versions that exclude each other: one environment on top of ours, without
# their dependencies. What can't be had is named, and its tests are skipped.
ADAPTERS := .venv-adapters
$(ADAPTERS)/.ready: $(VENV)/.ready tests/adapters/requirements.txt
	$(BIN)/python -m venv $(ADAPTERS)
	$(BIN)/python tests/adapters/environment.py $(ADAPTERS) tests/adapters/requirements.txt
	touch $@

test-adapters: models $(ADAPTERS)/.ready   ## the adapters of recognisers that need an environment of their own
	$(ADAPTERS)/bin/python -m pytest -W "ignore::FutureWarning" -W "ignore::UserWarning" \
		-k "insightface or facenet or face_recognition or deepface" tests/adapters

RAY := .venv-ray
$(RAY)/.ready: $(VENV)/.ready tests/cluster/requirements.txt
	$(BIN)/python -m venv $(RAY)
	$(BIN)/python tests/adapters/environment.py $(RAY) tests/cluster/requirements.txt
	touch $@

test-ray: models $(RAY)/.ready   ## bulk work on a Ray cluster of two nodes on this machine, and on Parquet tables
	$(RAY)/bin/python -m pytest -m ray tests/cluster

# The drill on every adapter with twenty people, each in the environment that has its library.
test-drills: models $(ADAPTERS)/.ready   ## the breach drill of every adapter with 20 people (minutes)
	ANONYMIX_DRILL_PEOPLE=20 $(BIN)/python -m pytest -m "long or not long" \
		-k "a_breach_is_survived or twenty_people" tests/adapters
	ANONYMIX_DRILL_PEOPLE=20 $(ADAPTERS)/bin/python -m pytest -m "long or not long" -W "ignore::FutureWarning" \
		-W "ignore::UserWarning" -k "a_breach_is_survived and not opencv and not crops" tests/adapters

# Back ends' own verification of London people behind the adapters, as the README has it.
measure-adapters: models $(ADAPTERS)/.ready   ## accuracy and overhead of the local adapters on London
	$(ADAPTERS)/bin/python tests/adapters/measure_local.py --photos $(DATA)/london --people 16

# In an environment of its own with the core's dependencies alone: torch must not be needed.
test-wheel: models       ## the built wheel in an empty environment, without torch
	$(BIN)/python tests/install/light.py tests/people/alex_1.jpg

test-long: models test-speed   ## the tests that take minutes
	$(BIN)/python -m pytest -m long --hypothesis-profile search

test-crash: $(VENV)/.ready   ## kill -9 a keystore 250 times; then 20 seconds of everything at once
	$(BIN)/python -m pytest -m long tests/keystore/test_keystore_crash.py \
		tests/keystore/test_keystore_soak.py

# ANONYMIX_SOAK_SECONDS sets the length; the figures are printed at the end.
soak: $(VENV)/.ready     ## eight processes do all that the keystore has, with kills (20 minutes)
	ANONYMIX_SOAK_SECONDS=$${ANONYMIX_SOAK_SECONDS:-1200} $(BIN)/python -m pytest -m long -s --timeout 0 \
		tests/keystore/test_keystore_soak.py

test-keystore: $(VENV)/.ready   ## the keystore's long tests: kills, races, every byte flipped, the state machine
	$(BIN)/python -m pytest -m long tests/keystore

coverage-keystore: $(VENV)/.ready   ## line and branch coverage of the keystore, which must be whole
	$(BIN)/python -m coverage run --branch --source anonymix_keystore -m pytest -q tests/keystore
	$(BIN)/python -m coverage report --show-missing --skip-covered --fail-under 100

docs: $(VENV)/.ready     ## the documentation as a site: out/site/index.html
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group docs
	$(BIN)/python -m anonymix_lab.reference docs
	$(BIN)/python -m sphinx -W --keep-going -q docs out/site

lint: $(VENV)/.ready     ## ruff, formatting and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.ready    ## mypy, strict
	$(BIN)/mypy

format: $(VENV)/.ready   ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: models            ## faces on this machine: latency, cold start, throughput, the floor, the alternatives
	$(BIN)/anonymix bench --engines 3 --output out/bench.json

# SPEED_AGAINST names the revision of the last release. A tag, once there is one.
SPEED_AGAINST ?= 8f88573
test-speed: models       ## a face in pairs with the last release's wheel; fails if it takes more than 1.1 times as long
	rm -rf out/speed && mkdir -p out/speed/source
	git archive $(SPEED_AGAINST) | tar -x -C out/speed/source
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir out/speed out/speed/source
	$(BIN)/anonymix measure speed --against out/speed/*.whl --face-alone --fail-over 1.10

bench-keystore: $(VENV)/.ready   ## a million subjects, beside the raw cost of SQLite and AES-GCM
	$(BIN)/anonymix measure keystore

evaluate: models         ## proof on LFW, a quick look at 200 pairs: out/evaluation/index.html
	$(BIN)/anonymix evaluate lfw --data $(DATA)/lfw --limit 200 --output out/evaluation

figures: models          ## accuracy, anonymity and renewal on the London set: out/london.json
	$(BIN)/anonymix measure london --data $(DATA)/london --output out/london.json

gallery: models         ## the pictures of docs/gallery.md
	$(BIN)/anonymix gallery --output docs/images

people: models          ## draw the people of the tests again: tests/people
	$(BIN)/python -m anonymix_lab.demo.people tests/people

train-mapper: models     ## make mixer.safetensors and anchors.safetensors of anonymix_plugin/weights again (hours)
	$(BIN)/anonymix train subspace --people $(DATA)/pins --lfw $(DATA)/lfw -o out/subspace.safetensors
	$(BIN)/anonymix train pairs --count 3500 --pairs out/pairs
	$(BIN)/anonymix train mapper --count 3500 --pairs out/pairs --subspace out/subspace.safetensors \
	    --steps 420 --work out/mapper-first -o out/mixer-first.safetensors
	$(BIN)/anonymix train mapper --start out/mixer-first.safetensors --subspace out/subspace.safetensors \
	    --keyed-dims 40 --steps 700 --work out/mapper -o out/mixer.safetensors
	$(BIN)/anonymix train anchors --mixer out/mixer.safetensors -o out/anchors.safetensors

# The map that ships: tuned on for five minutes through whole faces, on an NVIDIA H200.
train-mapper-gpu: models ## after train-mapper, on a GPU: tune the map on through whole faces (minutes)
	$(BIN)/anonymix train mapper --start out/mixer.safetensors --subspace out/subspace.safetensors \
	    --keyed-dims 40 --device cuda --steps 241 --seed 5 --work out/mapper-gpu -o out/mixer-whole.safetensors
	$(BIN)/anonymix train anchors --mixer out/mixer-whole.safetensors -o out/anchors.safetensors

# A map serves any subspace of as many numbers.
train-subspace: models   ## give the shipped map another identity subspace, and the anchors that belong to it (minutes)
	$(BIN)/anonymix train subspace --people $(DATA)/pins --lfw $(DATA)/lfw -o out/subspace.safetensors
	$(BIN)/anonymix train mapper --start anonymix_plugin/weights/mixer.safetensors --subspace out/subspace.safetensors \
	    --keyed-dims 40 --steps 0 -o out/mixer.safetensors
	$(BIN)/anonymix train anchors --mixer out/mixer.safetensors -o out/anchors.safetensors

train-small: models      ## make anonymix_plugin/weights/small.safetensors again (25 minutes, or 3 with DEVICE=cuda)
	$(BIN)/anonymix train small-generator --minutes $(if $(DEVICE),3,25) $(if $(DEVICE),--device $(DEVICE)) \
	    --work out/small -o out/small.safetensors

# A third recogniser to learn from, which judges nothing: `train mapper --teachers arcface-mbf,sface,faceres`.
TEACHER := out/teachers/faceres.bin
$(TEACHER):
	command -v npm > /dev/null || { apt-get update -q && apt-get install -q -y nodejs npm; }
	mkdir -p $(@D) && cd $(@D) && npm pack --silent @vladmandic/human@3.3.6
	cd $(@D) && tar xzf vladmandic-human-3.3.6.tgz --strip-components=2 --touch \
	    package/models/faceres.json package/models/faceres.bin && rm vladmandic-human-3.3.6.tgz

teacher: $(TEACHER)      ## fetch FaceRes, to learn from (28 MB, by npm)

# Unattended, without a network: `anonymix measure gpu --list` names what the machine must be given.
gpu-check:               ## on a machine with a GPU, after gpu-prepare elsewhere: all its steps in GPU_MINUTES
	PYTHONPATH=.:adapters:keystore:lab python3 -m anonymix_lab.cli.measure gpu --minutes $(GPU_MINUTES) --carried out/gpu/carried.npz -o out/gpu

gpu-prepare: models $(TEACHER)      ## where the photos are: the numbers that gpu-check reads, out/gpu/carried.npz
	$(BIN)/anonymix measure gpu --prepare --lfw $(DATA)/lfw --people $(DATA)/pins --london $(DATA)/london

gpu-rehearsal: models    ## every step of gpu-check with small counts on a CPU (minutes)
	$(BIN)/python -m pytest -q -m long tests/gpu

train-encoder: models    ## make anonymix_plugin/weights/encoder.safetensors again (after train-mapper)
	$(BIN)/anonymix train pairs --count 3500 --pairs out/pairs
	$(BIN)/anonymix train encoder --count 3500 --pairs out/pairs -o out/encoder-first.safetensors
	$(BIN)/anonymix train adapt-encoder --people $(DATA)/pins --encoder out/encoder-first.safetensors \
	    --start out/mixer-first.safetensors --work out/mapper -o out/encoder.safetensors

clean:                   ## remove what make made, but not the weights
	rm -rf $(VENV) $(ADAPTERS) $(RAY) out .pytest_cache .mypy_cache .ruff_cache .hypothesis
