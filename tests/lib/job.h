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
/* Likewise a part of it, at JOB_IOVA + offset, with flags (enum iommud_map_flag) and in chunks (0: whole); the result of the
 * call. *ret may be NULL. */
int job_map_part(struct job *j, uint64_t offset, uint64_t length, uint32_t flags, uint64_t chunk,
                 struct iommud_map_result *ret);
/* Unmaps a part, at JOB_IOVA + offset; the result of the call. */
int job_unmap_part(struct job *j, uint64_t offset, uint64_t length, enum iommud_split_policy split);
void job_end(struct job *j);

/* A block of the memory at `offset` goes through the device to `to` and must arrive whole. Read and write mappings
 * needed. */
void job_assert_dma(struct job *j, uint64_t iova, uint64_t from, uint64_t to);
/* The device writes to the IOVA, and none of the memory changes. */
void job_assert_no_dma(struct job *j, uint64_t iova);

uint64_t job_used(struct iommud_client *client, enum iommud_resource resource);
size_t job_mappings(struct iommud_domain *domain);
struct iommud_domain_info job_domain_info(struct iommud_domain *domain);
/* A window of that length; page_shift 0: of the smallest pages. */
struct iommud_window job_window(struct iommud_domain *domain, uint64_t length, uint32_t page_shift);
size_t job_windows(struct iommud_domain *domain, struct iommud_window_limits *ret_limits);      /* how many; limits may be NULL */

/* Demands result and reason, and a text that says something; *ret (may be NULL): the details. */
void job_refused(int result, int error, enum iommud_reason reason, const char *call, struct iommud_error *ret);
#define refused(call, error, reason, ret) job_refused(call, error, reason, #call, ret)

/* What a client owns, to compare before and after a refusal. */
struct job_snapshot {
        uint64_t used[16];
        size_t mappings;
};

void job_snapshot(struct job *j, struct job_snapshot *ret);
void job_assert_unchanged(struct job *j, const struct job_snapshot *before);
/* The same after things were made and taken away: tables that they touched stay charged with the domain. */
void job_assert_given_back(struct job *j, const struct job_snapshot *before);
