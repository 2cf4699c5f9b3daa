# SPDX-License-Identifier: Apache-2.0
# make ARCH=ppc64el: everything for another machine, with Debian's cross compiler and a tree of Debian's own packages for
# it (SYSROOT, made when it is missing). What differs between architectures for the build is here and nowhere else.

TRIPLET_ppc64el := powerpc64le-linux-gnu
TRIPLET := $(or $(TRIPLET_$(ARCH)),$(error ARCH=$(ARCH) is not known; known: ppc64el))

SYSROOT ?= $(BUILD)/sysroot
# The compiler and the linker want it absolute; BUILD may be either.
sysroot := $(abspath $(SYSROOT))

# CC="ccache gcc" from the command line keeps its ccache and loses its gcc.
override CC := $(filter ccache,$(CC)) $(TRIPLET)-gcc
override AR := $(TRIPLET)-ar
override LD := $(TRIPLET)-ld
override OBJCOPY := $(TRIPLET)-objcopy
CPPFLAGS += --sysroot=$(sysroot)
LDFLAGS += --sysroot=$(sysroot)
export PKG_CONFIG_SYSROOT_DIR := $(sysroot)
export PKG_CONFIG_LIBDIR := $(sysroot)/usr/lib/$(TRIPLET)/pkgconfig:$(sysroot)/usr/share/pkgconfig

# Included, so that make makes it and begins anew: what pkg-config says is asked while the makefiles are read. It is remade
# when what makes it has changed.
ifneq ($(filter-out clean help deps deps-%,$(or $(MAKECMDGOALS),all)),)
include $(SYSROOT)/made.mk
endif
$(SYSROOT)/made.mk: packaging/cross/sysroot.sh packaging/cross/private-apt.sh packaging/install-deps.sh
	@printf '  %-8s %s\n' SYSROOT $(SYSROOT)
	@packaging/cross/sysroot.sh $(ARCH) $(sysroot)
	@echo "# $(sysroot) was made" > $@
