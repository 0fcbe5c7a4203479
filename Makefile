# SPDX-License-Identifier: Apache-2.0
# Everything a person or CI does here is a verb of this file: `make help` lists them.
# Outputs go to $(B) alone; V=1 shows the commands; B=DIR builds elsewhere.

VERSION  := 0.1.0
REVISION := $(shell git rev-parse --short HEAD 2>/dev/null)
ARCH     := $(shell uname -m | sed 's/aarch64/arm64/')
BPF_ARCH := $(if $(filter x86_64,$(ARCH)),x86,$(ARCH))
B        := $(if $(filter 1,$(SAN)),build/san,build)

CC       ?= gcc
CLANG    ?= clang
BPFTOOL  ?= bpftool
PROTOC_C ?= protoc-c
STRIP    ?= llvm-strip

DESTDIR    ?=
PREFIX     ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR    ?= $(PREFIX)/lib/systemd/system
FUZZ_SECONDS ?= 60

# --- How things are compiled -------------------------------------------------
# The same tree gives the same bytes: no dates, no build paths, sorted inputs.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

PKGS   := libbpf libmicrohttpd jansson yaml-0.1 libseccomp libcap libnghttp2 libprotobuf-c zlib
CFLAGS ?= $(if $(SAN),-O1 -g -fno-omit-frame-pointer,-O2 -g -D_FORTIFY_SOURCE=3)
WARN   := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition \
          -Wpointer-arith -Wwrite-strings -Wformat=2 -Wundef -Wvla -Wimplicit-fallthrough$(if $(findstring clang,$(CC)),,=5) -fno-common
HARDEN := $(if $(SAN),,-fstack-protector-strong -fstack-clash-protection -ftrivial-auto-var-init=zero \
          $(if $(filter x86_64,$(ARCH)),-fcf-protection)) -fPIE
SANITIZE := $(if $(filter 1,$(SAN)),-fsanitize=address -fsanitize=undefined -fno-sanitize-recover=all,$(SAN))

CPPFLAGS += -D_GNU_SOURCE -Iinclude -Iuser -I$(B)/skel -I$(B)/proto -DKILTER_VERSION='"$(VERSION)"' -DKILTER_REVISION='"$(REVISION)"'
ALLCFLAGS = -std=gnu17 $(CFLAGS) $(WARN) $(HARDEN) $(SANITIZE) -ffile-prefix-map=$(CURDIR)=. $(PKG_CFLAGS)
ALLLDFLAGS = $(if $(STATIC),-static-pie,-pie) -Wl,-z,relro,-z,now $(SANITIZE) $(LDFLAGS)
LDLIBS    = $(PKG_LIBS) -lelf -lresolv -lm
# STATIC=1: see the verb `static`.
PKG_CFLAGS := $(if $(STATIC),-I$(B)/deps/include -DKILTER_STATIC,$(shell pkg-config --cflags $(PKGS) 2>/dev/null))
PKG_LIBS   := $(if $(STATIC),-L$(B)/deps/lib -lbpf -lmicrohttpd -ljansson -lyaml -lseccomp -lcap -lnghttp2 -lprotobuf-c -lelf -lz,\
              $(shell pkg-config --libs $(PKGS) 2>/dev/null))
BPF_CFLAGS := -g -O2 -mcpu=v3 -target bpf -D__TARGET_ARCH_$(BPF_ARCH) -Iinclude -Ibpf -Ivmlinux/$(ARCH) -Wall -Wextra -Werror \
              -Wno-unused-parameter -Wno-missing-declarations -Wno-address-of-packed-member -ffile-prefix-map=$(CURDIR)=.

# --- What there is: a new file is found by its place and name ------------------
LIB_SRC  := $(sort $(wildcard user/*/*.c user/*/*/*.c))
PROTO    := $(patsubst user/model/metadata/%.proto,$(B)/proto/%.pb-c.h,$(wildcard user/model/metadata/*.proto))
LIB_OBJ  := $(LIB_SRC:%.c=$(B)/%.o) $(PROTO:.h=.o)
BPF_SRC  := $(sort $(wildcard bpf/probes/*.bpf.c))
SKEL     := $(BPF_SRC:bpf/probes/%.bpf.c=$(B)/skel/%.skel.h)
UNIT_SRC := $(sort $(wildcard tests/unit/*/*_test.c))
UNIT     := $(UNIT_SRC:%.c=$(B)/%)
BPF_TEST := $(patsubst %.c,$(B)/%,$(sort $(wildcard tests/bpf/*_test.c)))
TEST_LIB := $(patsubst %.c,$(B)/%.o,$(sort $(wildcard tests/lib/*.c)))
STIMULUS := $(patsubst %.c,$(B)/%,$(sort $(wildcard tests/stimulus/*.c)))
FUZZERS  := $(patsubst %.c,$(B)/%,$(sort $(wildcard tests/fuzz/*_fuzz.c)))
SYSTEM   := $(sort $(wildcard tests/system/*_test.py))
CHAOS    := $(sort $(wildcard tests/chaos/*_test.py tests/chaos/*_test.sh))
MAN      := $(sort $(wildcard docs/man/*.[158]))

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-8s %s\n' $(1) '$(patsubst $(B)/%,%,$@)')
RUN := tests/run.sh

.DELETE_ON_ERROR:
.SECONDARY:
.DEFAULT_GOAL := all

# --- Building -----------------------------------------------------------------
all: $(B)/kilterd $(B)/kilter ## build both programs (the default)

$(B)/kilterd $(B)/kilter: $(B)/%: $(B)/user/%.o $(B)/libkilter.a
	$(call say,LINK)
	$(Q)$(CC) $(ALLCFLAGS) $(ALLLDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LDLIBS)

$(B)/kilterd: $(patsubst %.c,$(B)/%.o,$(wildcard user/kilterd_*.c))

$(B)/libkilter.a: $(LIB_OBJ)
	$(call say,AR)
	$(Q)rm -f $@ && ar rcsD $@ $^

# Only user/probe and the tests of bpf/ know the skeletons: the rest compiles beside them.
$(patsubst %.c,$(B)/%.o,$(wildcard user/probe/*.c tests/bpf/*.c tests/lib/programs.c tests/lib/guarded.c)): | $(SKEL)

$(B)/user/%.o: user/%.c
	$(call say,CC)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(ALLCFLAGS) -MMD -MP -c -o $@ $<

# llvm-strip drops DWARF, which holds build paths; BTF, which libbpf needs, stays.
$(B)/bpf/%.bpf.o: bpf/probes/%.bpf.c vmlinux/$(ARCH)/vmlinux.h
	$(call say,BPF)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -MMD -MP -c -o $@ $<
	$(Q)if command -v $(STRIP) >/dev/null; then $(STRIP) -g $@; fi

$(B)/skel/%.skel.h: $(B)/bpf/%.bpf.o
	$(call say,SKEL)
	$(Q)mkdir -p $(@D)
	$(Q)$(BPFTOOL) gen skeleton $< name $* > $@

# Messages of Protocol Buffers: the generated code is nobody's to mend, so it is not warned of.
$(B)/proto/%.pb-c.h: user/model/metadata/%.proto
	$(call say,PROTO)
	$(Q)mkdir -p $(@D)
	$(Q)$(PROTOC_C) --c_out=$(@D) -I$(<D) $(<F)

$(B)/proto/%.pb-c.o: $(B)/proto/%.pb-c.h
	$(call say,CC)
	$(Q)$(CC) $(CPPFLAGS) $(ALLCFLAGS) -w -MMD -MP -c -o $@ $(@:.o=.c)

$(patsubst %.c,$(B)/%.o,$(wildcard user/model/metadata/cri*.c tests/fuzz/cri*.c)): | $(PROTO)

$(B)/tests/%.o: tests/%.c
	$(call say,CC)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -Itests/lib -Ibpf $(ALLCFLAGS) -MMD -MP -c -o $@ $<

$(B)/tests/stimulus/%: $(B)/tests/stimulus/%.o
	$(call say,LINK)
	$(Q)$(CC) $(ALLCFLAGS) $(ALLLDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/tests/fuzz/%: $(B)/tests/fuzz/%.o $(B)/libkilter.a
	$(call say,LINK)
	$(Q)$(CC) $(ALLCFLAGS) $(ALLLDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)

$(B)/tests/%: $(B)/tests/%.o $(B)/libkilter.a
	$(call say,LINK)
	$(Q)$(CC) $(ALLCFLAGS) $(ALLLDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LDLIBS) -lcmocka

# HPACK by an encoder that is not ours.
$(patsubst %,$(B)/tests/%,fuzz/http2_fuzz unit/protocols/http2_test): LDLIBS += -lnghttp2

# Objects that print the revision are rebuilt when it changes, and only those.
$(patsubst %.c,$(B)/%.o,$(shell grep -rl --include=*.c KILTER_REVISION user 2>/dev/null)): $(B)/revision
$(B)/revision: FORCE
	@mkdir -p $(@D); echo '$(REVISION)' | cmp -s - $@ || echo '$(REVISION)' > $@
FORCE:

$(BPF_TEST): $(TEST_LIB) # linked through $^ of the rule above

static: ## both programs without any library, for other distributions and empty images, in build/static
	@deploy/deps.sh build
	@$(MAKE) --no-print-directory $(B)/static/deps/done
	@$(MAKE) --no-print-directory STATIC=1 B=$(B)/static all

$(B)/static/deps/done: deploy/static/libraries.sh
	$(Q)$< $(@D) && touch $@

bpf: $(SKEL) ## the BPF objects and their skeletons alone; ARCH=arm64 B=DIR for the other architecture

build-unit: $(UNIT)
build-bpf: $(BPF_TEST) $(STIMULUS)
build-fuzz: $(FUZZERS)

# --- Running --------------------------------------------------------------------
run: deps ## install what is missing, build, and run the daemon in the foreground
	@$(MAKE) --no-print-directory all
	@exec $(B)/kilterd $(ARGS)

deps: ## install the Debian packages that building needs and are missing
	@deploy/deps.sh build

# --- Testing ----------------------------------------------------------------------
# Unit tests run under ASan and UBSan. Layers that load BPF or start servers need root.
SAN_B := $(B)/san
test: ## every test that needs only this machine, installing what is missing first
	@deploy/deps.sh build test
	@$(MAKE) --no-print-directory SAN=1 B=$(SAN_B) build-unit
	@$(MAKE) --no-print-directory all build-bpf
	@B=$(B) $(RUN) $(UNIT_SRC:%.c=$(SAN_B)/%) $(BPF_TEST) $(SYSTEM) $(CHAOS)

test-unit: ## the unit tests, under ASan and UBSan: no root, no BPF, seconds
	@$(MAKE) --no-print-directory SAN=1 B=$(SAN_B) build-unit
	@$(RUN) $(UNIT_SRC:%.c=$(SAN_B)/%)

test-bpf: build-bpf ## load each BPF object, drive it, read its maps (root)
	@B=$(B) $(RUN) $(BPF_TEST)

test-system: all ## the real daemon with real servers and clients (root)
	@B=$(B) $(RUN) $(SYSTEM)

test-chaos: all ## the real daemon while things break (root)
	@B=$(B) $(RUN) $(CHAOS)

test-vm: ## the BPF tests and the daemon on Debian's kernels in QEMU; VM_KERNELS=6.1 for some of them
	@deploy/deps.sh build test
	@$(MAKE) --no-print-directory all build-bpf
	@tests/vm/vm.py --build $(B) $(VM_KERNELS)

bench-vm: ## what each BPF program costs on Debian's kernels in QEMU, in instructions; VM_KERNELS as for test-vm
	@deploy/deps.sh build test
	@$(MAKE) --no-print-directory all build-bpf
	@tests/vm/vm.py --build $(B) --bench $(VM_KERNELS)

bench: ## cost and accuracy beside what one would otherwise run (root); writes $(B)/bench.json
	@deploy/deps.sh build test bench
	@$(MAKE) --no-print-directory all $(STIMULUS)
	@B=$(B) tests/bench/bench.py --json $(B)/bench.json $(BENCH_ARGS)

bench-breaker: ## circuit breaking beside none and beside HAProxy (root); writes $(B)/breaker.json
	@deploy/deps.sh build test bench
	@$(MAKE) --no-print-directory all $(STIMULUS)
	@B=$(B) tests/bench/breaker.py --json $(B)/breaker.json $(BENCH_ARGS)

scale: ## how it grows with series, connections and churn (root); writes $(B)/scale.json and $(B)/scale.svg
	@deploy/deps.sh build test bench
	@$(MAKE) --no-print-directory all $(STIMULUS)
	@B=$(B) tests/bench/scale.py --json $(B)/scale.json --plot $(B)/scale.svg

fuzz: ## every parser of outside bytes, FUZZ_SECONDS=60 each
	@deploy/deps.sh build fuzz
	@$(MAKE) --no-print-directory B=$(B)/fuzz CC=$(CLANG) HARDEN=-fPIE \
		SAN='-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all' build-fuzz
	@for f in $(FUZZERS:$(B)/%=$(B)/fuzz/%); do \
		n=$$(basename $$f); mkdir -p $(B)/fuzz/corpus/$$n; echo "== $$n"; \
		$$f -max_total_time=$(FUZZ_SECONDS) -print_final_stats=0 -verbosity=0 -artifact_prefix=$(B)/fuzz/$$n- \
			$(B)/fuzz/corpus/$$n $$(ls -d tests/fuzz/corpus/$${n%_fuzz} 2>/dev/null) || exit 1; done

# --- Checking the text ----------------------------------------------------------------
# Each check leaves a stamp in $(B)/lint, so only what changed is checked again.
lint: lint-all ## formatting, static analysis, house rules and their own tests

format: ## rewrite our C files in the house format
	@git ls-files 'user/*.[ch]' 'bpf/*.[ch]' 'include/*.h' 'tests/*.[ch]' | xargs clang-format -i

# --- Installing ---------------------------------------------------------------------------
install: all ## DESTDIR, PREFIX and SYSCONFDIR are honoured; an existing kilter.yaml stays
	install -D -m 0755 $(B)/kilterd $(DESTDIR)$(PREFIX)/sbin/kilterd
	install -D -m 0755 $(B)/kilter $(DESTDIR)$(PREFIX)/bin/kilter
	test -e $(DESTDIR)$(SYSCONFDIR)/kilter/kilter.yaml || \
		install -D -m 0644 deploy/kilter.yaml $(DESTDIR)$(SYSCONFDIR)/kilter/kilter.yaml
	install -d $(DESTDIR)$(UNITDIR)
	sed 's|@PREFIX@|$(PREFIX)|g' deploy/systemd/kilter.service.in > $(DESTDIR)$(UNITDIR)/kilter.service
	install -D -m 0644 deploy/systemd/sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/kilter.conf
	install -D -m 0644 deploy/systemd/tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/kilter.conf
	for m in $(MAN); do install -D -m 0644 $$m $(DESTDIR)$(PREFIX)/share/man/man$${m##*.}/$$(basename $$m); done
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(B)/kilter completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/kilter
	$(B)/kilter completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_kilter
	$(B)/kilter completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/kilter.fish

clean: ## remove everything that was built
	rm -rf $(B)

help: ## list these verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: all bpf static run deps test test-unit test-bpf test-system test-chaos bench bench-breaker scale fuzz lint format install \
        test-vm bench-vm clean help build-unit build-bpf build-fuzz FORCE

include tests/lint/lint.mk
-include $(shell find $(B) -name '*.d' 2>/dev/null)
