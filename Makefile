.POSIX:
.PHONY: help run record test drill stores browser promises soak check unit one docs bench alerts several pictures lock clean

SECONDS = 20
MINUTES = 30
ARGS =
TEST =
UNIT = tests/recording/test_stream.py tests/recording/test_manifest.py tests/scheduling tests/settings
PYTHON = .venv/bin/python
INSTALL = $(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes
COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

help:
	@echo 'make run       start the daemon with its own Valkey and S3 server; it watches ./input'
	@echo 'make record    record a live test pattern into ./input (SECONDS=20)'
	@echo 'make test      run the tests that are quick, with everything they need'
	@echo 'make drill     kill the daemon at every crash point, and other tests that take long (minutes)'
	@echo 'make stores    hold SeaweedFS, MinIO, versitygw and rclone to docs/stores.md (builds two of them with Go)'
	@echo 'make browser   try the status page and the player in a real Chromium'
	@echo 'make promises  break each promise of docs/promises.md by one line and see its test fail (3 minutes)'
	@echo 'make soak      record at three sites while everything fails, then compare every byte (MINUTES=30)'
	@echo 'make check     what CI runs: format, lint, types, tests'
	@echo 'make unit      run the tests of the modules without I/O, in seconds'
	@echo 'make one       run one test, loudly (TEST=tests/s3/test_bucket.py, with ::test_name if you like)'
	@echo 'make docs      write the pages and pictures that are made from the code'
	@echo 'make bench     measure, beside other uploaders (ARGS="--quick" for a short one)'
	@echo 'make alerts    try every alert and every panel, with a real Prometheus (5 minutes)'
	@echo 'make several   three daemons on 60 growing files, one killed, one stopped (ARGS="--files 20")'
	@echo 'make pictures  take pictures of the status page in its states, into data/screenshots (needs chromium)'
	@echo 'make lock      pin requirements/*.in, with hashes (needs uv)'
	@echo 'make clean     delete .venv and caches; ./data and ./input stay'

run: .venv/embedded.stamp
	@mkdir -p input
	@exec $(PYTHON) main.py --embedded $(ARGS)

record: .venv/record.stamp
	@mkdir -p input
	@exec $(PYTHON) tools/record_test_pattern.py --seconds $(SECONDS)

# Three at once on two cores: the tests wait as long as they work.
test: .venv/dev.stamp .venv/prometheus.stamp
	@$(PYTHON) -m pytest -n 3 --dist loadfile $(ARGS)

drill: .venv/dev.stamp
	@$(PYTHON) -m pytest -n 2 -m drill $(ARGS)

stores: .venv/dev.stamp .venv/stores.stamp
	@$(PYTHON) -m pytest -n 2 --dist loadfile -m '' -r s $(ARGS) tests/stores tests/system/test_corruption.py
	@$(PYTHON) -m tools.make_docs

browser: .venv/dev.stamp
	@$(PYTHON) -m pytest -n 2 --dist loadfile -m browser $(ARGS)

promises: .venv/dev.stamp
	@$(PYTHON) -m tools.promises $(ARGS)

soak: .venv/dev.stamp
	@$(PYTHON) -m tests.drills soak --minutes $(MINUTES) $(ARGS)

check: .venv/dev.stamp .venv/prometheus.stamp
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports --no-logo >.venv/imports.txt || { cat .venv/imports.txt; exit 1; }
	@$(PYTHON) -m pytest -n 3 --dist loadfile $(ARGS)

unit: .venv/dev.stamp
	@$(PYTHON) -m pytest $(UNIT) $(ARGS)

one: .venv/dev.stamp .venv/prometheus.stamp
	@$(PYTHON) -m pytest -vv -m '' --log-level DEBUG $(TEST) $(ARGS)

docs: .venv/dev.stamp
	@$(PYTHON) -m tools.make_docs

bench: .venv/bench.stamp
	@$(PYTHON) -m benchmarks.run $(ARGS)

alerts: .venv/dev.stamp .venv/prometheus.stamp
	@$(PYTHON) -m tests.drills alerts $(ARGS)

several: .venv/dev.stamp
	@$(PYTHON) -m tests.drills several $(ARGS)

pictures: .venv/dev.stamp
	@$(PYTHON) -m tools.page_screenshots $(ARGS)

lock:
	@command -v uv >/dev/null || { echo 'error: make lock needs uv: pip install uv' >&2; exit 1; }
	@$(COMPILE) --output-file requirements.txt requirements/run.in
	@for wanted in dev embedded bench; do \
		$(COMPILE) --output-file "requirements/$$wanted.txt" "requirements/$$wanted.in" || exit 1; \
	done

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A name alone proves nothing: some machines have a python3.13 that only says it is not installed.
.venv/bin/python:
	@for python in python3.13 python3.12 python3.11 python3; do \
		if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			echo "Making .venv with $$($$python --version)"; \
			exec $$python -m venv .venv; \
		fi; \
	done; \
	echo 'error: this needs Python 3.11 or newer with its venv module (on Debian: apt install python3-venv)' >&2; \
	exit 1

.venv/embedded.stamp: requirements/embedded.txt .venv/bin/python
	@echo 'Installing requirements/embedded.txt into .venv'
	@$(INSTALL) -r requirements/embedded.txt
	@touch $@

.venv/dev.stamp: requirements/dev.txt .venv/bin/python
	@echo 'Installing requirements/dev.txt into .venv'
	@$(INSTALL) -r requirements/dev.txt
	@touch $@

.venv/bench.stamp: requirements/bench.txt .venv/bin/python
	@echo 'Installing requirements/bench.txt into .venv'
	@$(INSTALL) -r requirements/bench.txt
	@touch $@

# Only the ffmpeg of requirements/dev.txt, so that a newcomer does not wait for the rest.
.venv/record.stamp: requirements/dev.txt .venv/bin/python
	@echo 'Installing ffmpeg into .venv'
	@awk '/^[a-z]/ { wanted = /^imageio-ffmpeg==/ } wanted' requirements/dev.txt >.venv/record.txt
	@$(INSTALL) --no-deps -r .venv/record.txt
	@touch $@

# promtool and prometheus for the tests of the alerts: unpacked, not installed, so no service starts.
# Without them those tests are skipped, and fail in CI.
DOWNLOAD = apt-get -qq -o APT::Sandbox::User=root download prometheus >/dev/null 2>&1

.venv/prometheus.stamp: .venv/bin/python
	@if command -v promtool >/dev/null && command -v prometheus >/dev/null; then \
		touch $@; \
	elif command -v apt-get >/dev/null && echo "Unpacking Debian's prometheus into .venv" && \
		rm -rf .venv/prometheus && mkdir .venv/prometheus && cd .venv/prometheus && \
		{ $(DOWNLOAD) || { apt-get -qq update >/dev/null 2>&1 && $(DOWNLOAD); }; } && \
		dpkg-deb -x prometheus_*.deb . && mv usr/bin/prometheus usr/bin/promtool ../bin/; then \
		cd ../.. && rm -rf .venv/prometheus && touch $@; \
	else \
		echo 'note: without promtool the tests of the alerts are skipped'; \
	fi

# Built into a cache that outlives .venv, and in which each version has its folder. Without Go, or without a way to
# its modules, the tests of these two are skipped, and the next call tries again.
MINIO = github.com/minio/minio@v0.0.0-20250907161309-07c3a429bfed
VERSITYGW = github.com/versity/versitygw/cmd/versitygw@v1.8.0
GO_FOLDER = /usr/local/go/bin

.venv/stores.stamp: Makefile .venv/bin/python
	@PATH="$$PATH:$(GO_FOLDER)"; \
	cache="$${XDG_CACHE_HOME:-$$HOME/.cache}/video-chunk-uploader"; \
	if ! command -v go >/dev/null; then \
		echo 'note: without Go the tests of MinIO and versitygw are skipped'; exit 0; \
	fi; \
	for module in $(MINIO) $(VERSITYGW); do \
		folder="$$cache/$${module##*/}"; name="$${module##*/}"; name="$${name%@*}"; \
		if [ ! -x "$$folder/$$name" ]; then \
			echo "Building $$module (minutes, once)"; \
			GOBIN="$$folder" CGO_ENABLED=0 go install -trimpath -ldflags='-s -w' "$$module" 2>.venv/stores.log || { \
				echo "note: the tests of $$name are skipped, for it could not be built:"; \
				tail -n 3 .venv/stores.log; exit 0; \
			}; \
		fi; \
		ln -sf "$$folder/$$name" ".venv/bin/$$name" || exit 1; \
	done && touch $@
