/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

#include "backend/soft.h"
#include "util/refusal.h"

/*
 * A software device with the registers of QEMU's `edu` (PCI 1234:11e8), served over proto/soft_device.h by a thread of
 * its own. What it does to memory goes through soft_dma(), after a delay and beside the answers, as the real one does.
 *
 *      region 0, BAR0, 1 MiB
 *      0x00    identification, 0x010000ed      (these three: 4 bytes only)
 *      0x04    liveness check: reads the inverse of what was written
 *      0x08    factorial: reads n! (modulo 2^32) of the n written
 *      0x20    status: bit 0 computing (never seen set here), bit 7 kept as written
 *      0x80    DMA source                      (these four: 4 or 8 bytes)
 *      0x88    DMA destination
 *      0x90    DMA count
 *      0x98    DMA command: bit 0 start, 1 while it runs; bit 1 direction, 1 from the device to memory; bit 2 would
 *              raise an interrupt and is ignored
 *      The device's side of a transfer is its buffer, 4096 bytes at the device address 0x40000. A transfer that leaves
 *      the buffer moves nothing. Registers cannot be written while a transfer runs. All else, and other sizes, read as
 *      ones and ignore writes.
 *
 *      region 7, configuration space, 256 bytes
 *      Only the command register can be written. Without its bus master bit (0x4) a transfer moves nothing.
 */
#define SOFT_EDU_CLIENTS 4U     /* connections at one time; one more closes the oldest */

struct soft_edu;

/* s must outlive the device. 0, or -1 with *r filled. */
int soft_edu_start(struct soft_container *s, uint32_t dma_delay_us, struct soft_edu **ret, struct refusal *r);

/* Ends a running transfer, closes every connection, joins the thread. NULL is fine; returns NULL. */
struct soft_edu *soft_edu_stop(struct soft_edu *e);

/* A new connection to the device; *ret_fd is the caller's. Thread-safe. */
int soft_edu_connect(struct soft_edu *e, int *ret_fd, struct refusal *r);
