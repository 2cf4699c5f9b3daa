/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

/* Is name a full PCI address DDDD:BB:DD.F in lower-case hex, as sysfs writes it. Everything that becomes a path is checked
 * with this. */
bool pci_address_is_valid(const char *name);
