# meterflow: build it, install it, test it, try it. For another PostgreSQL: `make test PG=18`, or PG_CONFIG=/path/to/it.
# Each target first installs what it lacks (tests/setup; on Debian 12 that is all but Rust itself).

PG ?= 15
PG_CONFIG ?= $(shell tests/setup/pg-config $(PG))
VERSION = $(shell $(PG_CONFIG) --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')

# Invoices as HTML and PDF, by a program beside the library that takes as long to build as all the rest: `make install
# DOCUMENTS=no` goes without, and the functions say so.
DOCUMENTS ?= yes
with_documents = $(filter yes,$(DOCUMENTS))

# One build directory for each PostgreSQL, so that changing between them rebuilds nothing. The first variable stands
# in for `cargo pgrx init`, which nothing here needs.
build_env = PGRX_PG_CONFIG_PATH=$(PG_CONFIG) CARGO_TARGET_DIR=target/pg$(VERSION)
built = target/package/pg$(VERSION)
documents_env = CARGO_TARGET_DIR=target/documents
again = $(if $(filter-out file,$(origin PG)), PG=$(PG))
on_cluster = tests/cluster run --pg $(PG_CONFIG)

.PHONY: build setup install test installcheck demo psql stop bench package clean

build: setup
	@rm -rf $(built)
	$(build_env) cargo pgrx package --pg-config $(PG_CONFIG) --no-default-features --features "pg$(VERSION) $(if $(with_documents),documents)" --out-dir $(built)
ifneq ($(with_documents),)
	$(documents_env) cargo build --package meterflow_documents --profile documents
	@install -m 755 target/documents/documents/meterflow_documents $(built)$(shell $(PG_CONFIG) --pkglibdir)/
endif
	@chmod -R a+rX $(built)

setup:
	@tests/setup/packages build-essential clang libclang-dev libssl-dev pkg-config
	@tests/setup/rust
	@tests/setup/postgresql $(if $(filter file,$(origin PG_CONFIG)),$(PG),$(PG_CONFIG))

# Not `cargo pgrx install`: that writes into the old library, under the feet of a server that has it loaded. Here the
# old file is unlinked, so that such a server goes on with it until it's restarted.
install: build
	$(shell test -w "`$(PG_CONFIG) --pkglibdir`" || echo sudo) sh -c 'umask 022 && cp -r --remove-destination $(built)/. /'

# Everything, on a server of its own that is made for it.
test: setup
	@tests/run $(PG_CONFIG)

# Behaviour and races only, of what is installed already, on the server that `demo` and `psql` use too.
installcheck:
	@$(on_cluster) -- tests/pg_regress/run
	@$(on_cluster) -- tests/isolation/run

# A tour that leaves its server running, to be looked at with `make psql`.
demo: install
	@$(on_cluster) -- tests/cargo bench --quiet --bench demo --
	@echo
	@echo "The server is still running. 'make psql$(again)' opens it, 'make stop$(again)' stops it, 'make clean' removes it."

# Opens the demo's database when there is one.
psql:
	@$(on_cluster) -- sh -c 'psql -qXlt | cut -d "|" -f 1 | grep -qw meterflow_demo && export PGDATABASE=meterflow_demo; exec psql'

stop:
	@tests/cluster stop --pg $(PG_CONFIG)

bench: install
	@$(on_cluster) bench$(VERSION) -- tests/cargo bench --bench 'core*'
	@$(on_cluster) bench$(VERSION) -- tests/cargo bench --bench 'surface*'
	@tests/cluster stop bench$(VERSION)

package: build
	@name=meterflow-pg$(VERSION)-$$(uname -m).tar.gz && \
	    tar -C $(built) --owner=0 --group=0 -czf target/package/$$name . && \
	    echo "target/package/$$name: unpack it at /"

clean:
	@for home in target/clusters/*; do [ ! -e "$$home" ] || tests/cluster destroy "$${home##*/}"; done
	rm -rf target
