/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <sys/types.h>

#include "host.h"
#include "orders.h"

/*
 * One run: the service, the client processes, the memory that they register, and the model beside them.
 */
#define BUFFER_PROBES 32        /* transfers whose results are held in the device's buffer at once */

struct run {
        struct world world;
        struct model model;
        struct model before_last;       /* as it was before the last operation that changed anything */
        struct host *host;
        struct {
                pid_t pid;              /* 0: none */
                int socket;
                uint64_t domain_id[DOMAINS], memory_id[MEMORIES], window_id[DOMAINS];
        } clients[CLIENTS];
        struct {
                int fd;
                uint8_t *bytes;         /* what clients and devices see */
                uint8_t *shadow;        /* what it must be */
        } files[FILES];
        struct {
                bool known;
                uint64_t buffer[BUFFER_PROBES];         /* what is in the device */
        } devices[WORLD_DEVICES];
        uint64_t random;                /* for what is looked at */
        uint64_t waits_since[CLIENTS][DOMAINS];         /* ms; 0: nothing waits */
        uint64_t played, passed_over, refused, translations;
        char why[800];                  /* what they disagree about */
};

/* All false: they disagree, and why says about what. */
bool disagree(struct run *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- clients (crew.c) ---- */

void crew_begin(struct run *r);
void crew_end(struct run *r);
/* Sends, to a process that is started when there is none, and waits for the report, which is valid until the next one. NULL: the
 * process is gone. fd -1: none. */
const struct report *crew_order(struct run *r, uint32_t client, struct order *o, int fd);
void crew_kill(struct run *r, uint32_t client);
/* Another file in its place, which nobody has seen. */
void crew_renew(struct run *r, uint32_t file);

/* ---- comparing ---- */

bool compare_answer(struct run *r, const struct op *op, const struct verdict *v, const struct report *report);
bool compare_balances(struct run *r);
bool compare_domain(struct run *r, uint32_t client, uint32_t domain);
bool compare_capabilities(struct run *r, uint32_t client, uint32_t device);

/* What devices of the domain reach: the pages where `before` (NULL: nothing) and the model differ, those beside them, others. */
bool probe(struct run *r, uint32_t client, uint32_t domain, const struct model *before);
/* The device has another past than we think. */
void probe_forget(struct run *r, uint32_t device);

/* ---- playing ---- */

void run_begin(struct run *r, const struct world *w);
bool run_play(struct run *r, const struct op *op);
/* All sessions are closed; nothing may be left. */
bool run_end(struct run *r);
