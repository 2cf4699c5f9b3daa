/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/backend.h"

/*
 * What the parts of the software backend share, and what its tests look at.
 */
struct soft_container;

/* With SOFT_WINDOWS_SPAPR: where windows are created beside the initial one, as POWER does it. */
#define SOFT_WINDOW_HIGH UINT64_C(0x800000000000000)

/* Why a device did not get at memory. */
enum soft_fault_reason {
        SOFT_FAULT_NOT_MAPPED = 1,      /* nothing is translated there, or the address is wider than the format */
        SOFT_FAULT_NO_READ = 2,
        SOFT_FAULT_NO_WRITE = 3,
        SOFT_FAULT_MEMORY = 4,          /* translated, but the memory behind it is gone (the file was truncated) */
};

struct soft_fault {
        uint64_t iova;
        uint32_t access;                /* BACKEND_ACCESS_READ or _WRITE: what was tried */
        enum soft_fault_reason reason;
};

#define SOFT_FAULTS_KEPT 64U

/* Moves bytes for a device: from the memory at iova to the buffer (BACKEND_ACCESS_READ) or the other way (_WRITE).
 * Returns how many were moved: n, or fewer and a fault is recorded for the first that was not. Thread-safe.
 *
 * Translation and copy of each slice, at most one host page, happen under the container's lock, which container_unmap()
 * takes too: once that has returned, no slice of the range is under way and none will be. */
size_t soft_dma(struct soft_container *s, uint64_t iova, void *buffer, size_t n, uint32_t access);

/* Where an address leads just now, for tests. False if nowhere. c must be a soft container. Thread-safe. */
bool soft_lookup(struct container *c, uint64_t iova, uintptr_t *ret_host, uint32_t *ret_access);

/* Copies the newest faults, oldest first, at most SOFT_FAULTS_KEPT; *ret_total counts all there ever were. c must be a
 * soft container. Returns how many were copied. Thread-safe. */
size_t soft_faults(struct container *c, struct soft_fault ret[SOFT_FAULTS_KEPT], uint64_t *ret_total);
