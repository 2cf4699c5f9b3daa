/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * The byte order of "edu" devices. PCI devices are little-endian on every host, and so the SDK and VFIO read them; so is our
 * software device. QEMU's edu is not: it has the order of the emulated processor, which on POWER is the big one, whatever
 * system runs there. What the device says of itself tells which it is.
 */
#define EDU_IDENTIFICATION_REGISTER 0U  /* 4 bytes */
#define EDU_IDENTIFICATION 0x010000edU

static inline bool edu_is_swapped(uint64_t identification) {
        return identification == __builtin_bswap32(EDU_IDENTIFICATION);
}

/* From the device to the program and back. */
static inline uint64_t edu_in_order(bool swapped, unsigned width, uint64_t value) {
        return swapped ? __builtin_bswap64(value) >> (64 - 8 * width) : value;
}
