# rt: what can be made. `make` alone lists the targets; each is a short script in scripts/ or bench/.
#
# Variables:
#   RT=path            the runtime that `demo`, `engines` and `bench` use (default: bin/rt)
#   PREFIX, DESTDIR    where `install` puts the program (default: /usr/local, no DESTDIR)
#   N=30               rounds of `bench` (default: 15)
#   GUEST=all          the machines of `vm-test`: bookworm, trixie (default), testing, or all of them
#   VM_TESTS=all       every test in `vm-test` (default: those that depend on the kernel's and systemd's ways)
#   VM_PARTS="podman criu"  which parts of `vm-engines` run (default: all)
#   ENGINES="docker podman"  which of `engines` run: parts of "engine: scenario" (default: all)
#   VALIDATION=folder  for `conformance`: a checkout of opencontainers/runtime-tools in which
#                      `make runtimetest validation-executables` was done (Go 1.21 or newer)
#   SCENARIOS="run list"  which scenarios `bench` takes (default: all)

PREFIX  ?= /usr/local
DESTDIR ?=

# Where the shells look below the prefix.
BASH_COMPLETION = share/bash-completion/completions/rt
ZSH_COMPLETION  = share/zsh/site-functions/_rt
FISH_COMPLETION = share/fish/vendor_completions.d/rt.fish
MANUAL          = share/man/man1
MANUAL_PAGES    = $(notdir $(wildcard contrib/man/*.1))

.PHONY: help build demo test test-long vm-test vm-engines check engines conformance bench floor install uninstall clean

help: ## print this list (the default)
	@echo 'Targets of rt:'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

build: ## build the static release binary bin/rt, installing what that needs
	scripts/build

demo: ## build, then take real containers through their life, as root and as an ordinary user
	scripts/demo

test: ## run every test, the last line sums them up
	scripts/test

test-long: ## random seccomp profiles against libseccomp, random configurations through check, create, start and delete (ORACLE_SEEDS=20, RT_CASES=500, RT_SEED=...)
	scripts/test-long

vm-test: ## run the integration suite on pure cgroup v2, with and without systemd, in a virtual machine
	scripts/vm-test

vm-engines: ## Podman with systemd and Quadlet, and CRIU, with rt in a virtual machine
	scripts/vm-engines

check: ## formatting, lints and documentation, warnings are errors
	scripts/check

engines: $(if $(RT),,bin/rt) ## real engines with rt as their runtime, and with runc as control (root; installs them)
	engines/install
	python3 -B engines $(ENGINES)

conformance: $(if $(RT),,bin/rt) ## run opencontainers/runtime-tools' validation suite (VALIDATION=...), as root, writes docs/conformance.md
	@test -n '$(VALIDATION)' || { echo 'usage: make conformance VALIDATION=<built checkout of runtime-tools>' >&2; exit 2; }
	conformance/run $(if $(RT),--rt '$(RT)') --write docs/conformance.md '$(VALIDATION)'

bench: ## compare bin/rt with the kernel's floor and with other runtimes, writes docs/bench/
	scripts/bench

floor: bin/floor ## build bin/floor, the same container by bare system calls
	@echo 'usage: bin/floor ROOTFS [FILTER]   (FILTER: seccomp program; its presence also means limits and a cgroup namespace)'

install: bin/rt ## install bin/rt, manual pages and completions for shells to $(DESTDIR)$(PREFIX)
	install -D -m 0755 bin/rt '$(DESTDIR)$(PREFIX)/bin/rt'
	install -d '$(DESTDIR)$(PREFIX)/$(MANUAL)'
	install -m 0644 $(addprefix contrib/man/,$(MANUAL_PAGES)) '$(DESTDIR)$(PREFIX)/$(MANUAL)'
	bin/rt completion bash | install -D -m 0644 /dev/stdin '$(DESTDIR)$(PREFIX)/$(BASH_COMPLETION)'
	bin/rt completion zsh | install -D -m 0644 /dev/stdin '$(DESTDIR)$(PREFIX)/$(ZSH_COMPLETION)'
	bin/rt completion fish | install -D -m 0644 /dev/stdin '$(DESTDIR)$(PREFIX)/$(FISH_COMPLETION)'

uninstall: ## remove what install has put there
	rm -f '$(DESTDIR)$(PREFIX)/bin/rt' '$(DESTDIR)$(PREFIX)/$(BASH_COMPLETION)' \
		'$(DESTDIR)$(PREFIX)/$(ZSH_COMPLETION)' '$(DESTDIR)$(PREFIX)/$(FISH_COMPLETION)'
	cd '$(DESTDIR)$(PREFIX)/$(MANUAL)' 2>/dev/null && rm -f $(MANUAL_PAGES) || true

clean: ## remove what was built and the cache of the demo
	rm -rf bin target .cache

# `make install` after `make build` needs no compiler: root often has none.
bin/rt:
	scripts/build

bin/floor: bench/floor.c | bin/.deps
	$(CC) -std=gnu11 -O2 -Wall -Wextra -Werror -static -s -o $@ $<

bin/measure: bench/measure.c | bin/.deps
	$(CC) -std=gnu11 -O2 -Wall -Wextra -Werror -static -s -o $@ $<

bin/mkfilter: bench/mkfilter.c | bin/.deps
	$(CC) -std=gnu11 -O2 -Wall -Wextra -Werror -o $@ $< -lseccomp

bin/.deps:
	scripts/install-build-deps
	@mkdir -p bin && touch $@
