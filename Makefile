# SPDX-License-Identifier: Apache-2.0
# The only build entry. `make help` lists what a person would call.
#
#   BUILD=dir          where everything goes (default build; sanitizer and coverage builds get their own)
#   SANITIZE=...       address,undefined or thread
#   COVERAGE=1         gcov instrumentation
#   CC=clang           another compiler
#   ARCH=ppc64el       for another architecture, into a folder of its own (packaging/cross/)

.DEFAULT_GOAL := all
SHELL := /bin/bash
.DELETE_ON_ERROR:
.SECONDARY:
MAKEFLAGS += --no-builtin-rules
# V=1 shows the commands
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-8s %s\n' $(1) $@)

ifeq ($(origin CC),default)
CC := gcc
endif
AR := ar
LD := ld
OBJCOPY := objcopy
comma := ,
SANITIZE ?=
COVERAGE ?=
ARCH ?=
BUILD ?= build$(if $(ARCH),-$(ARCH))$(if $(SANITIZE),-$(firstword $(subst $(comma), ,$(SANITIZE))))$(if $(COVERAGE),-coverage)
# One name for one folder: what an object depends on (*.d) is found by its name, and scripts give the absolute path.
override BUILD := $(patsubst $(CURDIR)/%,%,$(BUILD))
PREFIX ?= /usr
DESTDIR ?=
VERSION := 0.1.0
SOVERSION := 0

# --- flags ---------------------------------------------------------------------------------------------------------
WARNINGS := -Wall -Wextra -Wshadow -Wvla -Wconversion -Werror
HARDEN := $(if $(SANITIZE),,-D_FORTIFY_SOURCE=2 -fstack-protector-strong)
OPT ?= -O2 -g
PKGS := grpc libprotobuf-c libsystemd sqlite3
pkg = $(shell pkg-config --$(1) $(2) 2>/dev/null)

ifneq ($(ARCH),)
include packaging/cross/arch.mk
endif

CPPFLAGS += -D_GNU_SOURCE -DIOMMUD_VERSION='"$(VERSION)"' -DLIBEXECDIR='"$(LIBEXECDIR)"' -Iservice -Iproto -Idb -I$(BUILD)/gen -Isdk/include
CFLAGS += -std=gnu17 $(OPT) $(WARNINGS) $(HARDEN) -fno-strict-aliasing -fPIC -MMD -MP
LDFLAGS += -Wl,-z,relro,-z,now -Wl,--as-needed
ifneq ($(SANITIZE),)
CFLAGS += -fsanitize=$(SANITIZE) -fno-omit-frame-pointer
LDFLAGS += -fsanitize=$(SANITIZE)
endif
ifneq ($(COVERAGE),)
CFLAGS += --coverage
LDFLAGS += --coverage
endif

# --- what is built -------------------------------------------------------------------------------------------------
# One archive per layer; a program links the layers that it may include, so that a forbidden upward call does not link.
LAYERS := util backend holder bind db proto broker
SRC_util := $(wildcard service/util/*.c)
SRC_backend := $(wildcard service/backend/*.c)
SRC_holder := $(filter-out service/holder/main.c,$(wildcard service/holder/*.c))
SRC_db := $(wildcard db/*.c)
SRC_broker := $(filter-out service/main.c,$(wildcard service/*.c service/core/*.c service/auth/*.c service/dispatch/*.c service/transport/*.c))
SRC_bind := $(filter-out service/bind/main.c,$(wildcard service/bind/*.c))
SRC_sdk := $(wildcard sdk/*.c)
SRC_iommuctl := $(wildcard sdk/iommuctl/*.c)
EXAMPLES := $(patsubst sdk/examples/%.c,$(BUILD)/examples/%,$(wildcard sdk/examples/*.c))
GEN := $(BUILD)/gen/iommud.pb-c.h $(BUILD)/gen/health.pb-c.h $(BUILD)/gen/migrations.h

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
OBJ_proto := $(BUILD)/obj/gen/iommud.pb-c.o $(BUILD)/obj/gen/health.pb-c.o
lib = $(patsubst %,$(BUILD)/lib%.a,$(1))

LIBS_holder := -lseccomp
LIBS_util := $(call pkg,libs,libsystemd)
LIBS_db := -lsqlite3
LIBS_broker := -lgrpc -lgpr -linih -lmd
LIBS_proto := -lprotobuf-c
LIBS_backend :=
LIBS_bind :=

PROGRAMS := $(BUILD)/iommud $(BUILD)/iommud-holder $(BUILD)/iommud-bind $(BUILD)/iommuctl
SO := $(BUILD)/libiommud.so.$(VERSION)

.PHONY: all
all: $(PROGRAMS) $(SO) $(BUILD)/libiommud.a $(EXAMPLES)

# --- generated -----------------------------------------------------------------------------------------------------
$(BUILD)/gen/%.pb-c.c $(BUILD)/gen/%.pb-c.h: proto/%.proto
	@mkdir -p $(BUILD)/gen
	$(call say,PROTOC)
	$(Q)protoc-c --c_out=$(BUILD)/gen --proto_path=proto $<

# The schema steps, embedded: one C string per file of db/migrations, in order.
$(BUILD)/gen/migrations.h: db/embed.sh $(wildcard db/migrations/*.sql)
	@mkdir -p $(BUILD)/gen
	$(call say,EMBED)
	$(Q)db/embed.sh db/migrations > $@

$(BUILD)/obj/gen/%.o: $(BUILD)/gen/%.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -Wno-conversion -c -o $@ $<

$(BUILD)/obj/%.o: %.c | $(GEN)
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(CFLAGS_$(subst /,_,$(basename $<))) -c -o $@ $<

# --- link ----------------------------------------------------------------------------------------------------------
define layer_archive
$(BUILD)/lib$(1).a: $$(if $$(OBJ_$(1)),$$(OBJ_$(1)),$$(call obj,$$(SRC_$(1))))
	@rm -f $$@
	$(Q)$(AR) rcs $$@ $$^
endef
$(foreach l,$(LAYERS),$(eval $(call layer_archive,$(l))))

libs_of = $(foreach l,$(1),$(LIBS_$(l)))
link = $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group

$(BUILD)/iommud: $(call obj,service/main.c) $(call lib,broker db proto backend util)
	$(call say,LINK)
	$(Q)$(link) $(call libs_of,broker db proto util) -lpthread

$(BUILD)/iommud-holder: $(call obj,service/holder/main.c) $(call lib,holder backend util)
	$(call say,LINK)
	$(Q)$(link) $(call libs_of,holder util) -lpthread

$(BUILD)/iommud-bind: $(call obj,service/bind/main.c) $(call lib,bind util)
	$(call say,LINK)
	$(Q)$(link) $(call libs_of,util)

# The service with failpoints (service/util/failpoint.h) for tests/fault: the files that have some, compiled once more, and
# what counts, kills and breaks; the rest is what is installed.
FAILPOINT_SRC := $(shell grep -l '^#include "util/failpoint.h"' service/*.c service/*/*.c db/*.c)
failpoint_obj = $(patsubst %.c,$(BUILD)/obj/failpoints/%.o,$(filter $(FAILPOINT_SRC),$(1)) tests/fault/failpoint.c $(2))
$(BUILD)/obj/failpoints/%.o: %.c | $(GEN)
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CPPFLAGS) -Itests -DIOMMUD_FAILPOINTS $(CFLAGS) -c -o $@ $<
$(BUILD)/failpoints/iommud: $(call obj,service/main.c) $(call failpoint_obj,$(SRC_broker) $(SRC_db),tests/fault/fault_vfs.c) \
    $(call lib,broker db proto backend util)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(link) $(call libs_of,broker db proto util) -lpthread
$(BUILD)/failpoints/iommud-holder: $(call failpoint_obj,$(SRC_holder) service/holder/main.c) $(call lib,holder backend util)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(link) $(call libs_of,holder util) -lpthread
FAILPOINT_PROGRAMS := $(BUILD)/failpoints/iommud $(BUILD)/failpoints/iommud-holder

# The SDK: hidden symbols, only what the version map names is exported.
$(BUILD)/obj/sdk/%.o: CFLAGS += -fvisibility=hidden
OBJ_sdk := $(call obj,$(SRC_sdk))
$(SO): $(OBJ_sdk) $(OBJ_proto) sdk/libiommud.map
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $(if $(SANITIZE),,-Wl,-z,defs) -shared -Wl,-soname,libiommud.so.$(SOVERSION) \
	    -Wl,--version-script=sdk/libiommud.map -o $@ $(filter %.o,$^) -lgrpc -lgpr -lprotobuf-c -lpthread
	@ln -sf libiommud.so.$(VERSION) $(BUILD)/libiommud.so.$(SOVERSION)
	@ln -sf libiommud.so.$(SOVERSION) $(BUILD)/libiommud.so
# Static too: one object, so that what is hidden can be made local and no private name meets one of the program's.
$(BUILD)/libiommud.a: $(OBJ_sdk) $(OBJ_proto)
	@rm -f $@
	$(Q)$(LD) -r -o $(BUILD)/obj/libiommud.o $^
	$(Q)$(OBJCOPY) --localize-hidden --localize-symbol='iommud__v1__*' --wildcard $(BUILD)/obj/libiommud.o
	$(Q)$(AR) rcs $@ $(BUILD)/obj/libiommud.o

sdk_link = $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) -L$(BUILD) -liommud '-Wl,-rpath,$$ORIGIN:$$ORIGIN/..:$$ORIGIN/../..'
$(BUILD)/iommuctl: $(call obj,$(SRC_iommuctl)) $(SO) $(call lib,db proto util)
	$(call say,LINK)
	$(Q)$(sdk_link) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group -lgrpc -lgpr -lprotobuf-c -lsmartcols -ljson-c $(call libs_of,db util) -lpthread

$(BUILD)/examples/%: $(BUILD)/obj/sdk/examples/%.o $(SO)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(sdk_link)

-include tests/tests.mk packaging/install.mk

.PHONY: clean help deps
deps:
	packaging/install-deps.sh build check $(if $(ARCH),cross)
clean:
	rm -rf build build-*
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

-include $(shell find $(BUILD) -type f -name '*.d' 2>/dev/null)
