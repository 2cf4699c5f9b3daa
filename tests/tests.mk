# SPDX-License-Identifier: Apache-2.0
# Every tests/{unit,contract,e2e,errors,fault}/test_NAME.c is one cmocka program. Its comment line `link: LAYER...` names the
# layers that it links (sdk among them); nothing else is linked, so a test that needs a private part says so.

TEST_SRC := $(wildcard tests/unit/test_*.c tests/contract/test_*.c tests/e2e/test_*.c tests/errors/test_*.c \
    tests/fault/test_*.c)
# Gates: what is said of the sources, of the library, and of the design (formal models). Scripts that get BUILD and speak like
# cmocka (tests/lint/report.sh).
TEST_SCRIPTS := $(wildcard tests/abi/test_*.sh tests/lint/test_*.sh tests/model/test_*.sh)
TEST_BIN := $(patsubst tests/%.c,$(BUILD)/tests/%,$(TEST_SRC))
# An archive: a test links what it uses of tests/lib, not everything that any test needs. tests/lib/fakes/*.c are included by
# the tests that replace a layer with them.
SRC_testlib := $(filter-out tests/lib/client_agent%.c tests/lib/case_filter.c,$(wildcard tests/lib/*.c))
LIBS_testlib := -lgrpc -lgpr -lprotobuf-c -lsqlite3 -ljson-c
$(eval $(call layer_archive,testlib))
# What the tests of a failing ledger share.
SRC_brokenledger := tests/fault/broken_ledger.c tests/fault/probe.c
LIBS_brokenledger :=
$(eval $(call layer_archive,brokenledger))
# The SDK's objects as they are, for tests of its private parts: in libiommud.a those are hidden.
OBJ_sdkparts := $(OBJ_sdk)
LIBS_sdkparts := -lgrpc -lgpr -lprotobuf-c
$(eval $(call layer_archive,sdkparts))
$(call obj,$(wildcard tests/e2e/*.c tests/errors/*.c tests/fault/*.c)): CPPFLAGS += -Itests
links_of = $(shell sed -n 's/.*link: *\([a-z ]*[a-z]\).*/\1/p' $(1) | head -1)

define test_program
$(BUILD)/tests/$(1): $(call obj,tests/$(1).c tests/lib/case_filter.c) $(call lib,$(filter-out sdk,$(2))) $(if $(filter sdk,$(2)),$(SO))
	@mkdir -p $$(@D)
	$$(call say,LINK)
	$$(Q)$$(link) $(call libs_of,$(2)) $(if $(filter sdk,$(2)),-L$(BUILD) -liommud '-Wl$$(comma)-rpath$$(comma)$$$$ORIGIN/../..') -lcmocka -lpthread
endef
$(foreach t,$(patsubst tests/%.c,%,$(TEST_SRC)),$(eval $(call test_program,$(t),$(call links_of,tests/$(t).c))))

# A client that a test can kill, and what starts the service for it.
AGENT := $(BUILD)/tests/client_agent
$(AGENT): $(call obj,$(wildcard tests/lib/client_agent*.c) tests/lib/edu.c) $(SO)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) -L$(BUILD) -liommud '-Wl,-rpath,$$ORIGIN/..' -lpthread
$(filter $(BUILD)/tests/e2e/% $(BUILD)/tests/errors/% $(BUILD)/tests/fault/%,$(TEST_BIN)): | $(AGENT) $(BUILD)/iommud $(BUILD)/iommud-holder \
    $(BUILD)/iommuctl
# A client that keeps its own record of what it was answered, and the service that dies at a word.
CRASH_CLIENT := $(BUILD)/tests/crash_client
$(CRASH_CLIENT): $(call obj,tests/fault/crash_client.c tests/fault/record.c tests/fault/probe.c) $(call lib,testlib proto util)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(link) $(call libs_of,testlib proto util) -lcmocka -lpthread
$(filter $(BUILD)/tests/fault/%,$(TEST_BIN)): | $(CRASH_CLIENT) $(FAILPOINT_PROGRAMS)

# The reference model and its driver, several files; and the client processes that it drives (tests/reference/README.md).
REFERENCE := $(BUILD)/tests/reference/test_reference
REFERENCE_CLIENT := $(BUILD)/tests/reference/client
REFERENCE_SRC := $(wildcard tests/reference/*.c)
$(call obj,$(REFERENCE_SRC)): CPPFLAGS += -Itests
$(REFERENCE): $(call obj,$(filter-out tests/reference/client.c,$(REFERENCE_SRC))) $(call lib,testlib proto util) $(SO) | \
    $(REFERENCE_CLIENT) $(AGENT) $(BUILD)/iommud $(BUILD)/iommud-holder
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(link) $(call libs_of,testlib proto util) -L$(BUILD) -liommud '-Wl,-rpath,$$ORIGIN/../..' -lcmocka -lpthread
$(REFERENCE_CLIENT): $(call obj,tests/reference/client.c tests/lib/edu.c) $(SO)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) -L$(BUILD) -liommud '-Wl,-rpath,$$ORIGIN/../..' -lpthread
TEST_BIN += $(REFERENCE)

.PHONY: tests
tests: $(TEST_BIN) $(AGENT) $(CRASH_CLIENT) $(FAILPOINT_PROGRAMS)

## make check        every test that needs no virtual machine
.PHONY: check check-only
check: deps-check
	+@$(MAKE) --no-print-directory check-only
check-only: all tests
	@JOBS=$(JOBS) tests/run.sh $(BUILD) $(TEST_BIN) $(TEST_SCRIPTS)
JOBS ?= 2

# Tests of the real VFIO, by hand; static, so that they run in any machine of the lab.
VM_PROBES := $(patsubst tests/vm/%.c,$(BUILD)/vm/%,$(wildcard tests/vm/probe_*.c))
$(VM_PROBES): $(BUILD)/vm/%: $(BUILD)/obj/tests/vm/%.o $(BUILD)/obj/tests/vm/vfio_edu.o
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -static -o $@ $^
$(VM_PROBES): CFLAGS := $(filter-out -fsanitize=% --coverage,$(CFLAGS))
$(VM_PROBES): LDFLAGS := $(filter-out -fsanitize=% --coverage,$(LDFLAGS))

# Whatever a lane runs in its machine beside the programs themselves. A name, not paths: lanes say where the build is in their
# own way. The crash driver's lane is on the PC.
.PHONY: vm-programs
vm-programs: $(AGENT) $(EXAMPLES) $(VM_PROBES) $(filter $(BUILD)/tests/contract/%,$(TEST_BIN)) $(REFERENCE) \
    $(if $(ARCH),,$(BUILD)/tests/fault/test_crash_points)

## make check-vm     the same on the kernel's real VFIO, in virtual machines (LANE=name for one lane)
.PHONY: check-vm
check-vm: deps-vm
	@BUILD=$(BUILD) LANE="$(LANE)" tests/vm/all.sh

.PHONY: deps-check deps-vm deps-run
deps-check:
	@packaging/install-deps.sh build check
deps-vm:
	@packaging/install-deps.sh build check vm cross
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
$(BUILD)/tests/bench/bench: $(call obj,$(wildcard tests/bench/*.c)) $(call lib,sdkparts proto)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -lgrpc -lgpr -lprotobuf-c -lsmartcols -lpthread
$(call obj,$(wildcard tests/bench/*.c)): CPPFLAGS += -Isdk
bench: deps-run
	+@$(MAKE) --no-print-directory all $(BUILD)/tests/bench/bench
	@$(BUILD)/tests/bench/bench $(BUILD)

## make mutate       breaks the code on purpose and sees whether a test notices (MUTATIONS="name ..." for some)
.PHONY: mutate objects
mutate: deps-check
	@tests/mutation/run.sh $(MUTATIONS)

# Every object and no program: for tests/lint/test_compilers.sh, with another compiler.
objects: $(call obj,$(foreach l,util backend holder bind db broker sdk iommuctl testlib,$(SRC_$(l))) tests/lib/case_filter.c $(TEST_SRC) $(REFERENCE_SRC) \
    $(wildcard service/main.c service/holder/main.c service/bind/main.c sdk/examples/*.c tests/bench/*.c tests/fault/*.c)) $(OBJ_proto)
