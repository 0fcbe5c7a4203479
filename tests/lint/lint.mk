# SPDX-License-Identifier: Apache-2.0
# The checks behind `make lint`. A rule that is not on here is not written anywhere;
# each house rule has a sample in tests/lint/samples that it must refuse.

L       := $(B)/lint
OURS    := $(shell git ls-files 'user/*.[ch]' 'bpf/*.[ch]' 'include/*.h' 'tests/*.[ch]' | grep -v '^tests/lint/samples/')
OUR_USER_C := $(filter user/%.c,$(OURS))
OUR_TEST_C := $(filter tests/unit/%.c tests/bpf/%.c tests/lib/%.c tests/stimulus/%.c,$(OURS))
OUR_HDR := $(filter include/%.h user/%.h,$(OURS))
SCRIPTS := $(shell git ls-files '*.sh' .ci/run)
PYTHON  := $(shell git ls-files '*.py')
YAML    := $(shell git ls-files '*.yaml' '*.yml')
PROSE   := $(shell git ls-files '*.md' 'docs/man/*' 'user/*' 'bpf/*' 'include/*' 'tests/*.[ch]' 'tests/*.py' 'tests/*.sh' Makefile)
RULES   := $(wildcard deploy/prometheus/*.yaml)

# Beyond the warnings of every build: gcc's flow-sensitive ones, on the code we ship.
LINT_WARN := -Walloca -Wduplicated-cond -Wlogical-op -Wredundant-decls

lint-all: $(L)/format $(L)/layers $(L)/banned $(L)/spdx $(L)/shell $(L)/python $(L)/spelling $(L)/yaml $(L)/promtool \
          $(L)/man $(L)/rules $(L)/headers $(L)/padding $(L)/cppcheck $(L)/bpf $(L)/config-docs $(L)/health-docs $(L)/links $(L)/unit \
          $(OUR_USER_C:%=$(L)/%.warn) $(OUR_USER_C:%=$(L)/%.tidy) $(OUR_TEST_C:%=$(L)/%.tidy)
	@echo 'lint: clean'

lint_done = @mkdir -p $(@D) && touch $@
lint_say  = $(if $(V),,@printf '  %-8s %s\n' LINT '$(patsubst $(L)/%,%,$@)')

$(L)/format: $(OURS) .clang-format
	$(lint_say)
	$(Q)clang-format --dry-run -Werror $(OURS)
	$(lint_done)

# A folder may include itself and what stands to its left.
$(L)/layers: $(OURS) tests/lint/layers.awk
	$(lint_say)
	$(Q)awk -f tests/lint/layers.awk $(filter user/%,$(OURS))
	$(lint_done)

$(L)/banned: $(OURS) tests/lint/banned.awk
	$(lint_say)
	$(Q)awk -f tests/lint/banned.awk $(OURS)
	$(lint_done)

$(L)/spdx: $(OURS) $(SCRIPTS) $(PYTHON) tests/lint/spdx.awk
	$(lint_say)
	$(Q)awk -f tests/lint/spdx.awk $(OURS) $(SCRIPTS) $(PYTHON)
	$(lint_done)

# The rules' own test: every sample must be refused, by the rule it is named after.
$(L)/rules: $(wildcard tests/lint/*.awk tests/lint/*.sh tests/lint/*.py tests/lint/samples/* tests/lint/samples/*/*)
	$(lint_say)
	$(Q)tests/lint/rules_test.sh
	$(lint_done)

$(L)/shell: $(SCRIPTS)
	$(lint_say)
	$(Q)shellcheck $(SCRIPTS)
	$(lint_done)

$(L)/python: $(PYTHON)
	$(lint_say)
	$(Q)$(if $(PYTHON),for f in $(PYTHON); do python3 -c "import ast; ast.parse(open('$$f').read())" || exit 1; done)
	$(lint_done)

$(L)/spelling: $(PROSE) tests/lint/words
	$(lint_say)
	$(Q)codespell -I tests/lint/words $(PROSE)
	$(lint_done)

$(L)/yaml: $(YAML) .yamllint
	$(lint_say)
	$(Q)$(if $(YAML),yamllint -s $(YAML))
	$(lint_done)

$(L)/promtool: $(RULES)
	$(lint_say)
	$(Q)promtool check rules deploy/prometheus/rules.yaml > /dev/null
	$(Q)promtool check config --syntax-only deploy/prometheus/scrape.yaml > /dev/null
	$(lint_done)

$(L)/man: $(MAN)
	$(lint_say)
	$(Q)$(if $(MAN),mandoc -T lint -W warning $(MAN))
	$(lint_done)

# Every header compiles on its own, whatever was included before it.
$(L)/headers: $(OUR_HDR) | $(SKEL) $(PROTO)
	$(lint_say)
	$(Q)for h in $(OUR_HDR); do $(CC) $(CPPFLAGS) $(ALLCFLAGS) -fsyntax-only -include $$h -x c /dev/null || exit 1; done
	$(lint_done)

# What the kernel and user space share has no hole that one side might fill differently.
$(L)/padding: $(filter include/%.h,$(OURS))
	$(lint_say)
	$(Q)for h in $^; do $(CC) $(CPPFLAGS) -std=gnu17 -Wpadded -Werror -fsyntax-only -include $$h -x c /dev/null || exit 1; done
	$(lint_done)

# Leaks are left to ASan and the analyzer: cppcheck does not know the cleanup attribute. readdir_r, which
# it asks for, is deprecated by POSIX; a DIR of one's own is safe.
CPPCHECK_OFF := resourceLeak memleak readdirCalled missingIncludeSystem *:$(B)/skel/* *:$(B)/proto/*
$(L)/cppcheck: $(OUR_USER_C) $(OUR_HDR) | $(SKEL) $(PROTO)
	$(lint_say)
	$(Q)mkdir -p $(L)/cppcheck.cache && cppcheck -q -j 2 --std=c11 --enable=warning,portability,performance \
		--inline-suppr --error-exitcode=1 --cppcheck-build-dir=$(L)/cppcheck.cache --library=posix \
		$(CPPCHECK_OFF:%=--suppress='%') -D'LIBBPF_OPTS(t,n,...)=struct t n' \
		-D_GNU_SOURCE -D__x86_64__ -DKILTER_VERSION='""' -DKILTER_REVISION='""' -Iinclude -Iuser -I$(B)/skel -I$(B)/proto $(OUR_USER_C)
	$(lint_done)

# The objects compile against the types of the architecture that this machine is not.
OTHER_ARCH := $(if $(filter x86_64,$(ARCH)),arm64,x86_64)
$(L)/bpf: $(filter bpf/%,$(OURS)) $(filter include/%,$(OURS)) vmlinux/$(OTHER_ARCH)/vmlinux.h
	$(lint_say)
	$(Q)$(MAKE) --no-print-directory -s ARCH=$(OTHER_ARCH) B=$(L)/$(OTHER_ARCH) bpf > /dev/null
	$(lint_done)

# The reference pages are what kilterd prints; see user/core/config_fields.c.
$(L)/config-docs: $(B)/kilterd docs/configuration.md docs/man/kilter.yaml.5 tests/lint/config_docs.py
	$(lint_say)
	$(Q)python3 tests/lint/config_docs.py $(B)/kilterd docs/configuration.md docs/man/kilter.yaml.5
	$(lint_done)

# Each rule of health has a row in its page.
$(L)/health-docs: user/health/rules/rules.c user/health/engine.c docs/health.md
	$(lint_say)
	$(Q)for c in $$(sed -nE 's/^    \{"([a-z_]+)", ON.*/\1/p; s/.*code = "([a-z_]+)".*/\1/p' user/health/rules/rules.c \
		user/health/engine.c | sort -u); do \
		grep -q "^| .$$c. |" docs/health.md || { echo "docs/health.md has no row for '$$c'" >&2; exit 1; }; done
	$(lint_done)

$(L)/unit: deploy/systemd/kilter.service.in $(B)/kilterd
	$(lint_say)
	$(Q)mkdir -p $(L)/systemd && sed 's|@PREFIX@/sbin|$(abspath $(B))|' $< > $(L)/systemd/kilter.service
	$(Q)systemd-analyze verify --man=no $(L)/systemd/kilter.service
	$(lint_done)

# Every relative link of a page leads to a file, and every page of docs/ is reached from its index.
$(L)/links: $(filter %.md,$(PROSE)) tests/lint/links.py
	$(lint_say)
	$(Q)python3 tests/lint/links.py README.md docs/README.md
	$(lint_done)

$(L)/%.c.warn: %.c $(OUR_HDR) | $(SKEL) $(PROTO)
	$(lint_say)
	$(Q)$(CC) $(CPPFLAGS) $(ALLCFLAGS) $(LINT_WARN) -c -o /dev/null $<
	$(lint_done)

$(L)/%.c.tidy: %.c $(OUR_HDR) .clang-tidy | $(SKEL) $(PROTO)
	$(lint_say)
	$(Q)clang-tidy --quiet $< -- $(CPPFLAGS) -Itests/lib -Ibpf -std=gnu17 $(PKG_CFLAGS) 2>/dev/null
	$(lint_done)

.PHONY: lint-all
