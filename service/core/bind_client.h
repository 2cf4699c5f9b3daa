/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

#include "bind/bind_protocol.h"
#include "util/refusal.h"

/*
 * Asks iommud-bind, the small root helper, to change the driver of a device. Blocks up to the deadline: not for the
 * threads that serve clients. Thread-safe; one connection per call.
 */
#define BIND_DEADLINE_MS 15000U         /* the helper gives up after 10 s */

/* socket: of the helper, NULL when there is none. driver: BIND_RESTORE only, "" or NULL lets the kernel choose.
 * original_driver: BIND_TO_VFIO, filled with what the device was bound to ("" if nothing); NULL if not wanted.
 * Refusals: UNSUPPORTED (no helper: the text says which unit), NOT_PERMITTED (its allow list), UNKNOWN_DEVICE, DEVICE_BUSY,
 * GROUP_NOT_VIABLE, BACKEND_REFUSED with errnum. */
int bind_client_call(const char *socket, enum bind_action action, const char *device, const char *driver,
                     uint32_t deadline_ms, char original_driver[64], struct refusal *r);
