/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>

#include "transport/transport.h"

/* What the service manager gives and wants to hear; everything here does nothing where there is none. */

/* The listening sockets that were passed, by the FileDescriptorName of their units: grpc, session, operator. Each goes to the
 * transport. *ret_n: how many. -errno with *ret_name: the one that does not fit. */
int systemd_take_sockets(struct transport *t, size_t *ret_n, const char **ret_name);

void systemd_ready(const char *status);
void systemd_reloading(void);
void systemd_stopping(void);
/* Half of WatchdogSec in milliseconds, -1 without a watchdog; and the sign of life. */
int systemd_watchdog_ms(void);
void systemd_alive(void);
