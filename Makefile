# SPDX-License-Identifier: Apache-2.0
# First form: every verb lands here; `make help` lists them.
CC       ?= gcc
CLANG    ?= clang
BPFTOOL  ?= bpftool
B        := build
ARCH     := $(shell uname -m | sed 's/aarch64/arm64/')
BPF_ARCH := $(if $(filter x86_64,$(ARCH)),x86,$(ARCH))
VERSION  := 0.1.0
REVISION := $(shell git rev-parse --short HEAD 2>/dev/null)

PKGS     := libbpf libmicrohttpd jansson yaml-0.1 libseccomp zlib
CFLAGS   ?= -O2 -g
WARN     := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition \
            -Wpointer-arith -Wwrite-strings -Wformat=2 -Wundef -Wvla -Wimplicit-fallthrough=5 -fno-common
CPPFLAGS += -D_GNU_SOURCE -Iinclude -Iuser -I$(B)/skel -DKILTER_VERSION='"$(VERSION)"' -DKILTER_REVISION='"$(REVISION)"'
ALLCFLAGS = -std=gnu17 $(CFLAGS) $(WARN) $(SAN) $(shell pkg-config --cflags $(PKGS))
LDLIBS    = $(shell pkg-config --libs $(PKGS)) -lelf -lm $(SAN)
BPF_CFLAGS := -g -O2 -mcpu=v3 -target bpf -D__TARGET_ARCH_$(BPF_ARCH) -Iinclude -Ibpf -Ivmlinux/$(ARCH) -Wall -Wextra -Werror \
              -Wno-unused-parameter -Wno-missing-declarations -Wno-address-of-packed-member

LIB_SRC  := $(wildcard user/*/*.c user/*/*/*.c)
LIB_OBJ  := $(LIB_SRC:%.c=$(B)/%.o)
BPF_SRC  := $(wildcard bpf/probes/*.bpf.c)
SKEL     := $(BPF_SRC:bpf/probes/%.bpf.c=$(B)/skel/%.skel.h)
UNIT     := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(wildcard tests/unit/*/*_test.c))
BPF_TEST := $(patsubst tests/bpf/%.c,$(B)/tests/bpf/%,$(wildcard tests/bpf/*_test.c))

.DELETE_ON_ERROR:
.SECONDARY:
all: $(B)/kilterd $(B)/kilter
$(B)/kilterd $(B)/kilter: $(B)/%: $(B)/user/%.o $(B)/libkilter.a
	$(CC) $(ALLCFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(B)/libkilter.a: $(LIB_OBJ)
	rm -f $@ && ar rcsD $@ $^
$(B)/user/%.o: user/%.c | $(SKEL)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(ALLCFLAGS) -MMD -MP -c -o $@ $<
$(B)/bpf/%.bpf.o: bpf/probes/%.bpf.c vmlinux/$(ARCH)/vmlinux.h
	@mkdir -p $(@D)
	$(CLANG) $(BPF_CFLAGS) -MMD -MP -c -o $@ $<
$(B)/skel/%.skel.h: $(B)/bpf/%.bpf.o
	@mkdir -p $(@D)
	$(BPFTOOL) gen skeleton $< name $* > $@
$(B)/tests/%: tests/%.c $(B)/libkilter.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Itests/lib -Ibpf $(ALLCFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(B)/libkilter.a $(LDLIBS) -lcmocka
test-unit: $(UNIT)
	@set -e; for t in $(UNIT); do $$t; done
clean:
	rm -rf $(B)
-include $(shell find $(B) -name '*.d' 2>/dev/null)
