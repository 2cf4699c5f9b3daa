# SPDX-License-Identifier: Apache-2.0
# Every tests/{unit,contract,e2e,errors}/test_NAME.c is one cmocka program. Its comment line `link: LAYER...` names the
# layers that it links (sdk among them); nothing else is linked, so a test that needs a private part says so.

TEST_SRC := $(wildcard tests/unit/test_*.c tests/contract/test_*.c tests/e2e/test_*.c tests/errors/test_*.c)
TEST_BIN := $(patsubst tests/%.c,$(BUILD)/tests/%,$(TEST_SRC))
# An archive: a test links what it uses of tests/lib, not everything that any test needs. tests/lib/fakes/*.c are included by
# the tests that replace a layer with them.
SRC_testlib := $(wildcard tests/lib/*.c)
$(eval $(call layer_archive,testlib))
links_of = $(shell sed -n 's/.*link: *\([a-z ]*[a-z]\).*/\1/p' $(1) | head -1)

define test_program
$(BUILD)/tests/$(1): $(BUILD)/obj/tests/$(1).o $(call lib,$(filter-out sdk,$(2))) $(if $(filter sdk,$(2)),$(SO))
	@mkdir -p $$(@D)
	$$(call say,LINK)
	$$(Q)$$(link) $(call libs_of,$(2)) $(if $(filter sdk,$(2)),-L$(BUILD) -liommud '-Wl$$(comma)-rpath$$(comma)$$$$ORIGIN/../..') -lcmocka -lpthread $(if $(filter testlib,$(2)),-ljson-c)
endef
$(foreach t,$(patsubst tests/%.c,%,$(TEST_SRC)),$(eval $(call test_program,$(t),$(call links_of,tests/$(t).c))))

.PHONY: tests
tests: $(TEST_BIN)

## make check        every test that needs no virtual machine
.PHONY: check check-only
check: deps-check
	+@$(MAKE) --no-print-directory check-only
check-only: all tests
	@JOBS=$(JOBS) tests/run.sh $(BUILD) $(TEST_BIN)
JOBS ?= 2

## make check-vm     the same on the kernel's real VFIO, in a virtual machine (LANE=name for one lane)
.PHONY: check-vm
check-vm: deps-vm
	+@$(MAKE) --no-print-directory all
	@BUILD=$(BUILD) LANE=$(LANE) tests/vm/all.sh

.PHONY: deps-check deps-vm deps-run
deps-check:
	@packaging/install-deps.sh build check
deps-vm:
	@packaging/install-deps.sh build check vm
	@tests/vm/deps.sh
deps-run:
	@packaging/install-deps.sh build

## make run          a private service on the software IOMMU, and an example client
.PHONY: run
run: deps-run
	+@$(MAKE) --no-print-directory all
	@packaging/run-demo.sh $(BUILD)

## make bench        what a Map costs beside an empty RPC, from one run
.PHONY: bench
$(BUILD)/tests/bench/bench: $(call obj,$(wildcard tests/bench/*.c)) $(BUILD)/libiommud.a
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -lgrpc -lgpr -lprotobuf-c -lsmartcols -lpthread
$(call obj,$(wildcard tests/bench/*.c)): CPPFLAGS += -Isdk
bench: deps-run
	+@$(MAKE) --no-print-directory all $(BUILD)/tests/bench/bench
	@$(BUILD)/tests/bench/bench $(BUILD)
