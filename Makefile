# Everything a newcomer needs: `make demo`, `make test`. Both set up .venv first; only Python 3.11+ and make are needed.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test style quality bench docs site card clean

demo: .venv/base
	$(BIN)/foundir demo --output demo

test: .venv/dev
	$(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist loadfile

quality: .venv/dev
	$(BIN)/pre-commit run --all-files
	$(BIN)/pyright --pythonpath $(BIN)/python

style: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/base
	$(BIN)/python benchmarks/restore.py

# What the task table draws and says; a test compares docs/tasks.md with the table.
docs: .venv/base
	printf '%s\n\n' '# Sub-tasks' 'Made by `make docs` from `foundir_hf/data/tasks.py`; `foundir degrade PHOTO --task NAME -o FILE` does one on a photograph of yours.' \
		'Blur, noise and compression are measured in pixels of the photograph: on a camera file of 24 megapixels they show at full size only.' \
		'![Every sub-task on the sample photographs](tasks.jpg)' > docs/tasks.md
	$(BIN)/foundir tasks >> docs/tasks.md
	$(BIN)/foundir tasks --sheet docs/tasks.jpg --overwrite

# The documents and the API as a site in build/site; a broken link is an error.
site: .venv/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# All that the model card states, measured anew (half an hour on two cores): DATA has the test sets, TRAIN the training photographs.
FIGURES := docs/figures
card: .venv/classics
	for suite in families peers; do \
		$(BIN)/foundir evaluate --suite $$suite --data $(DATA) --metrics psnr,ssim,removed --without baselines --without figures -o build/$$suite \
		&& cp build/$$suite/report.json $(FIGURES)/$$suite.json || exit 1; done
	$(BIN)/python benchmarks/classics.py --data $(DATA) -o $(FIGURES)/classics.json
	$(BIN)/python benchmarks/steps.py --data $(DATA) --limit 1 -o $(FIGURES)/steps.json
	$(BIN)/python benchmarks/experts.py --photos $(DATA)/real_no_gt --limit 1 -o $(FIGURES)
	$(BIN)/python benchmarks/gallery.py --photos $(DATA)/real_no_gt -o $(FIGURES)/real.jpg
	$(BIN)/python benchmarks/false_alarms.py --photos $(TRAIN) -o $(FIGURES)
	$(BIN)/foundir demo --output build/demo && cp build/demo/overview.jpg docs/overview.jpg
	$(BIN)/python benchmarks/card.py --manifest $(TRAIN)/manifest.csv

clean:
	rm -rf .venv build dist *.egg-info demo

# Pinned: constraints.txt lists a set that was tested together; its torch is a CPU build where one is to be had.
.venv/base: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "foundir_hf needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0 --editable .
	touch $@

.venv/dev: .venv/base
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0 --editable '.[dev,space]'
	touch $@

.venv/classics: .venv/dev
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[classics]'
	touch $@
