/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

#include "util/refusal.h"

/*
 * /etc/iommud/bind.conf: which devices may change their driver at all. It belongs to the administrator, not to the
 * broker: this is what a broken broker is held by.
 *
 *      allow = 0000:00:05.0            one device, by its address
 *      allow = 1234:11e8               every device of that vendor and kind
 *      allow = *                       every device
 */
#define ALLOW_FILE "/etc/iommud/bind.conf"

/* 0 when some line allows the device. NOT_PERMITTED when none does, when the file is absent, has a line that is not
 * understood (the text names file and line), or could be written by somebody other than root or us. */
int allow_check(const char *file, const char *address, const char *vendor_device, struct refusal *r);
