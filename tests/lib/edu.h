/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <iommud/iommud.h>

/*
 * Drives an "edu" device through the SDK. Without assertions: agents use it as well. Functions give 0 or what the SDK
 * gave. A transfer that the IOMMU blocks ends like any other; only memory tells.
 */
#define EDU_BLOCK 2048U

/* Lets it master the bus. */
int edu_enable(struct iommud_attachment *a);
/* Starts a transfer between the device's buffer and memory; to_memory: the device writes. */
int edu_start(struct iommud_attachment *a, uint64_t iova, size_t n, bool to_memory);
/* Waits until no transfer is under way; -ETIMEDOUT after 10 s. */
int edu_wait(struct iommud_attachment *a);
/* Both. */
int edu_transfer(struct iommud_attachment *a, uint64_t iova, size_t n, bool to_memory);
/* The same with another place in the device's buffer (4096 bytes) than its beginning. */
int edu_transfer_at(struct iommud_attachment *a, uint64_t iova, size_t buffer, size_t n, bool to_memory);
