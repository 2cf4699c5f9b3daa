# SPDX-License-Identifier: Apache-2.0
## make install      into DESTDIR, below PREFIX (default /usr)

LIBDIR ?= $(PREFIX)/lib/$(shell $(CC) -print-multiarch 2>/dev/null)
LIBEXECDIR ?= $(PREFIX)/libexec/iommud
SYSCONFDIR ?= /etc
UNITDIR ?= $(PREFIX)/lib/systemd/system
INSTALL_PROGRAM = install -D -m 0755
INSTALL_DATA = install -D -m 0644

.PHONY: install
install: all
	$(INSTALL_PROGRAM) $(BUILD)/iommuctl $(DESTDIR)$(PREFIX)/bin/iommuctl
	for p in iommud iommud-holder iommud-bind; do $(INSTALL_PROGRAM) $(BUILD)/$$p $(DESTDIR)$(LIBEXECDIR)/$$p || exit; done
	$(INSTALL_PROGRAM) $(SO) $(DESTDIR)$(LIBDIR)/$(notdir $(SO))
	ln -sf $(notdir $(SO)) $(DESTDIR)$(LIBDIR)/libiommud.so.$(SOVERSION)
	ln -sf libiommud.so.$(SOVERSION) $(DESTDIR)$(LIBDIR)/libiommud.so
	$(INSTALL_DATA) $(BUILD)/libiommud.a $(DESTDIR)$(LIBDIR)/libiommud.a
	$(INSTALL_DATA) sdk/include/iommud/iommud.h $(DESTDIR)$(PREFIX)/include/iommud/iommud.h
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig
	sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@LIBDIR@|$(LIBDIR)|g' -e 's|@VERSION@|$(VERSION)|g' sdk/libiommud.pc.in \
	    > $(DESTDIR)$(LIBDIR)/pkgconfig/libiommud.pc
	for u in packaging/systemd/*; do install -d $(DESTDIR)$(UNITDIR) && \
	    sed 's|@LIBEXECDIR@|$(LIBEXECDIR)|g' $$u > $(DESTDIR)$(UNITDIR)/$$(basename $$u) || exit; done
	$(INSTALL_DATA) packaging/sysusers.d/iommud.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/iommud.conf
	$(INSTALL_DATA) packaging/tmpfiles.d/iommud.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/iommud.conf
	$(INSTALL_DATA) packaging/modules-load.d/iommud.conf $(DESTDIR)$(PREFIX)/lib/modules-load.d/iommud.conf
	$(INSTALL_DATA) packaging/udev/70-iommud.rules $(DESTDIR)$(PREFIX)/lib/udev/rules.d/70-iommud.rules
	for f in iommud.conf bind.conf; do test -e $(DESTDIR)$(SYSCONFDIR)/iommud/$$f || \
	    $(INSTALL_DATA) packaging/$$f $(DESTDIR)$(SYSCONFDIR)/iommud/$$f || exit; done
	for m in $(wildcard sdk/man/*.[0-9] service/man/*.[0-9]); do \
	    $(INSTALL_DATA) $$m $(DESTDIR)$(PREFIX)/share/man/man$${m##*.}/$$(basename $$m) || exit; done
	packaging/man-links.sh $(DESTDIR)$(PREFIX)/share/man
