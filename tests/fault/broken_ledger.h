/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "fault/probe.h"
#include "iommud/iommud.h"
#include "lib/faults.h"
#include "lib/harness.h"
#include "lib/raw_client.h"

/*
 * What the tests of a failing ledger share: a client at work with a device, and what must hold whatever the ledger's files
 * answer. Existing DMA goes on, new work is refused with a reason that an operator can act on, nothing that was refused has an
 * effect, and when the fault goes everything works again.
 */
#define BROKEN_PAGE 4096U
#define BROKEN_IOVA 0x100000U

struct broken {
        struct service *s;
        struct failpoints *f;
        struct raw_client c;
        uint64_t domain, memory, attachment;
        int fd, device;
        uint8_t key[16];                /* of a Map that is refused while the ledger fails, and works afterwards */
        uint8_t *bytes;                 /* two pages, mapped at BROKEN_IOVA */
};

void broken_begin(struct broken *b);
/* The client leaves and the service is well. */
void broken_end(struct broken *b);

/* A block goes through the device from the first page to the second. */
void broken_assert_dma(struct broken *b);
/* Every kind of change is refused with LEDGER_UNAVAILABLE and a text that has `words`; nothing has happened, and queries and DMA
 * work. */
void broken_assert_refused(struct broken *b, const char *words);
/* Every kind of change works. */
void broken_assert_works(struct broken *b);

/* All of it with a fault of the ledger's files that goes again: while it is there, after it went, a client that leaves meanwhile,
 * and a service that is killed and starts again under it. */
void broken_passes(enum ledger_fault fault, unsigned files, unsigned after, const char *words);

/* SQL on one of the ledger's files, by this process; ledger_number(): its first column. The WAL is moved into the file first. */
void ledger_sql(const struct service *s, const char *file, const char *sql);
int64_t ledger_number(const struct service *s, const char *file, const char *sql);

/* With the service killed and its ledger made unusable: it does not start, says why (`words` in its log, exit status 65), writes
 * nothing, and DMA goes on. */
void broken_assert_no_start(struct broken *b, const char *words);
/* The ledger was made good again: all goes on. */
void broken_assert_restored(struct broken *b);

/* Whole files, to prove that nothing was written. */
struct ledger_copy {
        size_t size[4];
        uint8_t *data[4];
};

void ledger_copy_take(const struct service *s, struct ledger_copy *ret);
void ledger_copy_assert_same(const struct service *s, struct ledger_copy *c);
