/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * Drives an edu device by the fd that its client was given: the software one over its socket, or QEMU's through the kernel's VFIO
 * on a PC. Without the SDK, as the tests that use it share nothing with the product. False: the device does not answer. A
 * transfer that the IOMMU stops ends like any other; what arrived is to be looked at.
 */
bool probe_enable(int fd);
/* The device reads n bytes at iova, 4096 at the most. */
bool probe_pull(int fd, uint64_t iova, uint64_t n);
/* The device writes what it has read last to iova. */
bool probe_push(int fd, uint64_t iova, uint64_t n);
/* Is it one whose transfers take a tenth of a second each? Then some places have to do for all. */
bool probe_is_slow(int fd);
