/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <string.h>

#include <iommud/iommud.h>

#include "harness.h"

/*
 * What most tests want: a client in this process with a domain, some memory, perhaps a device; and how to demand that
 * a call works, or is refused as it should be.
 */
#define PAGE 4096U
#define JOB_IOVA 0x100000U

struct job {
        struct iommud_client *client;
        struct iommud_domain *domain;
        struct iommud_attachment *device;
        struct iommud_memory *memory;
        uint8_t *bytes;                 /* of the memory */
};

#define must(call)                                                                                                     \
        do {                                                                                                           \
                if ((call) < 0)                                                                                        \
                        fail_msg("%s: %s", #call, iommud_last_error());                                                \
        } while (0)

struct iommud_client *job_connect(const char *directory);
/* device NULL: none. Nothing is mapped yet. */
void job_begin(struct job *j, const char *directory, const char *device, uint64_t bytes);
/* Maps all of the memory at JOB_IOVA. */
void job_map(struct job *j);
void job_end(struct job *j);

/* A block of the memory at `offset` goes through the device to `to` and must arrive whole. Read and write mappings
 * needed. */
void job_assert_dma(struct job *j, uint64_t iova, uint64_t from, uint64_t to);
/* The device writes to the IOVA, and none of the memory changes. */
void job_assert_no_dma(struct job *j, uint64_t iova);

uint64_t job_used(struct iommud_client *client, enum iommud_resource resource);
size_t job_mappings(struct iommud_domain *domain);

/* Demands result and reason, and a text that says something; *ret (may be NULL): the details. */
void job_refused(int result, int error, enum iommud_reason reason, const char *call, struct iommud_error *ret);
#define refused(call, error, reason, ret) job_refused(call, error, reason, #call, ret)

/* What a client owns, to compare before and after a refusal. */
struct job_snapshot {
        uint64_t used[8];
        size_t mappings;
};

void job_snapshot(struct job *j, struct job_snapshot *ret);
void job_assert_unchanged(struct job *j, const struct job_snapshot *before);
