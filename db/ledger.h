/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/iova.h"
#include "util/refusal.h"

/*
 * The ledger: what the core may ask of storage, in domain words. Two sqlite databases in one directory (db/README.md):
 *
 *   config.db  tenants, rules, quotas, device bindings, audit   synchronous=FULL: survives power loss
 *   state.db   sessions, domains, memory, attachments, mappings, operations   NORMAL: void after a reboot (boot id)
 *
 * Threads: config functions may be called from any thread (they lock inside). State functions marked [txn] may be
 * called only between ledger_begin() and ledger_commit()/ledger_rollback() by the one thread that began (the journal's
 * leader). State loaders are called at start, before the first transaction. ledger_check() may be called at any time.
 *
 * Errors: 0, or -1 with the refusal LEDGER_UNAVAILABLE (or another named at the function) and sqlite's own words in its
 * text. Nothing here retries.
 */
struct ledger;

struct ledger_options {
        const char *directory;          /* created 0700 if missing */
        bool forget_state;              /* tests: start with an empty state.db */
};

/* Opens both databases, migrates them, takes the lock that keeps a second service out. The refusal's text says: locked by
 * whom (pid), not a ledger (file, what it is instead), newer schema (found, known), not writable (which permission). A
 * failed migration leaves the old file as it was. *ret is the caller's: ledger_close(). */
int ledger_open(const struct ledger_options *options, struct ledger **ret, struct refusal *r);
struct ledger *ledger_close(struct ledger *l);  /* NULL is fine; returns NULL */

/* A fault that does not pass by itself was found (a file that sqlite cannot make sense of): from then on nothing is written, not
 * even when the ledger is closed, and every function that would is refused with what was found. Reading still works as far as
 * it does. A ledger that is found so at ledger_open(), or was written by a newer program, or cannot be migrated, is refused
 * there, untouched; r->errnum is EUCLEAN in all these cases, and never otherwise. */
bool ledger_is_damaged(struct ledger *l);

/* [txn's thread, after a refusal] The last transaction failed for a reason that will refuse any other as well: disk full, I/O,
 * locked, damaged. False: what was refused was wrong by itself. */
bool ledger_is_unwell(struct ledger *l);

/* True when state.db was written under another boot of this machine: its rows describe nothing any more. The broker
 * empties it with ledger_state_reset() (after an audit line). */
bool ledger_state_is_from_other_boot(const struct ledger *l);
int ledger_state_reset(struct ledger *l, struct refusal *r);

/* Next unused id/op number, monotonic across restarts, never reused. Thread-safe, no I/O on most calls (blocks of numbers
 * are reserved in the database). 0 only when the ledger cannot be written. */
uint64_t ledger_next_id(struct ledger *l);
/* Makes sure that the ids of one request are there: before it, so that no number 0 gets into its middle. */
int ledger_ids_ready(struct ledger *l, struct refusal *r);

/* ------------------------------------------------------------------------------------------------ configuration */

#define LEDGER_NAME_MAX 64U
#define LEDGER_RULES_MAX 32U
#define LEDGER_DEVICES_MAX 32U

struct ledger_rule {
        bool has_uid, has_gid;
        uint32_t uid, gid;
        char cgroup_prefix[256];        /* empty: none */
};

struct ledger_tenant {
        char name[LEDGER_NAME_MAX];
        uint64_t quota[_RESOURCE_N];    /* limit per enum resource; UINT64_MAX: unlimited */
        bool own_socket;
        bool allow_unsealed;
        uint32_t n_rules, n_devices;
        struct ledger_rule rules[LEDGER_RULES_MAX];
        char devices[LEDGER_DEVICES_MAX][LEDGER_NAME_MAX];
};

int ledger_tenant_put(struct ledger *l, const struct ledger_tenant *t, struct refusal *r);      /* insert or replace */
int ledger_tenant_delete(struct ledger *l, const char *name, struct refusal *r);        /* UNKNOWN_TENANT */
int ledger_tenants(struct ledger *l, int (*each)(const struct ledger_tenant *t, void *arg), void *arg, struct refusal *r);

/* The driver that a device had before iommud bound it to vfio-pci; empty string: it had none. */
int ledger_binding_put(struct ledger *l, const char *device, const char *original_driver, struct refusal *r);
int ledger_binding_get(struct ledger *l, const char *device, char driver[LEDGER_NAME_MAX], bool *ret_found,
                       struct refusal *r);
int ledger_binding_delete(struct ledger *l, const char *device, struct refusal *r);

/* One audit line. Buffered and written in groups; never blocks the caller on a sync. event: "session.refused",
 * "device.leased", ... At most LEDGER_AUDIT_MAX rows are kept. tenant may be NULL. */
#define LEDGER_AUDIT_MAX 100000U
void ledger_audit(struct ledger *l, const char *event, const char *tenant, uint32_t uid, uint32_t pid, const char *text);
int ledger_audit_flush(struct ledger *l, struct refusal *r);

/* -------------------------------------------------------------------------------------------------------- state */

int ledger_begin(struct ledger *l, struct refusal *r);
int ledger_commit(struct ledger *l, struct refusal *r); /* -1: it was rolled back and is over */
void ledger_rollback(struct ledger *l);                 /* harmless if this thread has none */

enum ledger_object_state {
        LEDGER_INTENDED = 1,    /* the row is there, the act may or may not have happened */
        LEDGER_LIVE = 2,
        LEDGER_ENDING = 3,      /* being unmapped, closed, revoked */
        LEDGER_QUARANTINED = 4, /* undoing failed or the container is not yet certainly empty */
};

struct ledger_session {
        uint64_t id;
        char tenant[LEDGER_NAME_MAX];
        char client_name[LEDGER_NAME_MAX];
        uint32_t uid, gid, pid, holder_pid, holder_uid;
        uint64_t start_time;            /* of pid, clock ticks since boot (proc(5) stat field 22) */
        uint64_t holder_start_time;
        uint8_t token_hash[32], secret_hash[32];        /* SHA-256 or BLAKE2: core/secret.c decides */
        enum ledger_object_state state;
};

struct ledger_domain {
        uint64_t id, session;
        char label[LEDGER_NAME_MAX];
        enum ledger_object_state state;
        bool lazy;                      /* unmapped ranges are flushed later */
};

struct ledger_memory {
        uint64_t id, session, size, page_size, dev, ino;
        bool sealed, writable;
        enum ledger_object_state state;
};

struct ledger_attachment {
        uint64_t id, domain;
        uint32_t group, backend;
        char device[LEDGER_NAME_MAX];
        enum ledger_object_state state;
};

struct ledger_mapping {         /* live once its op is settled; intended as long as an intended op has this id */
        uint64_t domain, iova, length, memory, offset, op;
        uint32_t access;
        uint32_t chunk_shift;           /* cut at multiples of 2^n bytes from its beginning; 0: whole only */
        uint32_t page_shift;            /* not 0: the IOMMU's pages of 2^n bytes that it touches are exposed */
};

/* A window of a domain (core/window.h). size 0: 2^64. */
struct ledger_window {
        uint64_t id, domain, start, size, quota, table_bytes;
        uint32_t page_shift, levels;
        bool is_default;
        enum ledger_object_state state;
};

/* An operation: the record of an intent, and the memory of its answer for a repeated request key. */
enum ledger_op_kind {
        LEDGER_OP_CREATE_DOMAIN = 1,
        LEDGER_OP_DESTROY_DOMAIN = 2,
        LEDGER_OP_ATTACH = 3,
        LEDGER_OP_DETACH = 4,
        LEDGER_OP_REGISTER = 5,
        LEDGER_OP_UNREGISTER = 6,
        LEDGER_OP_MAP = 7,
        LEDGER_OP_UNMAP = 8,
        LEDGER_OP_UNMAP_LAZY = 9,       /* acknowledged when it is intended; happens at the flush, at the latest in recovery */
        LEDGER_OP_CREATE_WINDOW = 10,
        LEDGER_OP_REMOVE_WINDOW = 11,
        LEDGER_OP_RESET_WINDOWS = 12,
        LEDGER_OP_UNMAP_MANY = 13,      /* several UNMAPs belong together: while it is open, all that was mapped in its ranges
                                         * (none: in the domain) by operations before it is on its way out */
};

/* What an operation changes at the holder, as far as is needed to tell whether it happened: of the nodes that go one, of
 * those that come one (length 0: there is none). Neither: the ledger alone changes, and an intent is all there is to do. Plain
 * MAPs and UNMAPs have no effect recorded: their own rows tell. */
struct ledger_node {
        uint64_t iova, length, memory, offset;
        uint32_t access, chunk_shift;
};

struct ledger_effect {
        struct ledger_node gone, made;
};

#define LEDGER_KEY_BYTES 16U
#define LEDGER_ANSWER_MAX 1024U

struct ledger_op {
        uint64_t id;                    /* also the seq on the holder's link */
        uint64_t session;
        uint64_t object;                /* domain, memory or attachment that it is about */
        enum ledger_op_kind kind;
        bool has_key;
        uint8_t key[LEDGER_KEY_BYTES];
        uint64_t request_hash;          /* a repeated key with another request is refused (KEY_REUSED) */
        bool settled;
        bool has_effect;
        struct ledger_effect effect;
        uint32_t answer_size;           /* packed answer: what to say to a repeated key, success or refusal */
        uint8_t answer[LEDGER_ANSWER_MAX];
};

struct ledger_range {
        uint64_t iova, length;
};

/* [txn] Intents. Each inserts the op (settled = 0; with its answer, if it has one already) and what goes with it, wholly or
 * not at all: a refused one leaves the transaction as it was, for the others in it. KEY_REUSED: the session has an op with
 * that key. Map rows are made with op->object and op->id, and refused with OVERLAP (element, conflict), ZERO_LENGTH,
 * RANGE_WRAPS or, for memory that is not of the domain's session, LEDGER_UNAVAILABLE: the core has checked all of it before. */
int ledger_op_intend(struct ledger *l, const struct ledger_op *op, struct refusal *r);
int ledger_map_intend(struct ledger *l, const struct ledger_op *op, const struct ledger_mapping *rows, size_t n,
                      struct refusal *r);
/* rows: exact earlier mappings of op->object, or rests that its earlier unsettled unmaps leave (then settle in this order).
 * Recorded with the op; the mapping rows go when it settles, and the rests (what stays of mappings that are cut; op and
 * domain are filled in) come in their place. A rest that is not inside one of rows, overlaps another (OVERLAP) or could not
 * become a row is refused. Also for REMOVE_WINDOW and RESET_WINDOWS; op->object is the domain then, too. */
int ledger_unmap_intend(struct ledger *l, const struct ledger_op *op, const struct ledger_range *rows, size_t n,
                        const struct ledger_mapping *rests, size_t n_rests, struct refusal *r);

/* UNMAP_MANY: its ranges, as they were asked for, and its answer, which its settling may replace. No mapping row is touched. */
int ledger_unmap_many_intend(struct ledger *l, const struct ledger_op *op, const struct ledger_range *ranges, size_t n,
                             struct refusal *r);

/* [txn] Settling. applied = false: the act did not happen, or was undone wholly.
 * map:   applied keeps the rows, else deletes them.  unmap, also lazy or of windows: applied puts the rests in the rows'
 * place, else keeps them.
 * The op is marked settled with its answer; ops without a key are deleted; per session the newest 1024 settled ops with a
 * key are kept (prune now and then, not every time). An op that is settled already or went with its session is fine. */
int ledger_op_settle(struct ledger *l, const struct ledger_op *op, bool applied, struct refusal *r);

/* [txn] Object rows: insert or replace by id; deleting a session deletes everything below it, a domain its attachments,
 * windows and mappings (foreign keys with cascade); a memory row with mappings cannot be deleted (IN_USE). Deleting what is
 * not there is fine. A domain or session takes about 1.5 us per mapping to delete: unmap large ones in batches before. */
int ledger_session_put(struct ledger *l, const struct ledger_session *s, struct refusal *r);
int ledger_session_delete(struct ledger *l, uint64_t id, struct refusal *r);
int ledger_domain_put(struct ledger *l, const struct ledger_domain *d, struct refusal *r);
int ledger_domain_delete(struct ledger *l, uint64_t id, struct refusal *r);
int ledger_memory_put(struct ledger *l, const struct ledger_memory *m, struct refusal *r);
int ledger_memory_delete(struct ledger *l, uint64_t id, struct refusal *r);
int ledger_attachment_put(struct ledger *l, const struct ledger_attachment *a, struct refusal *r);
int ledger_attachment_delete(struct ledger *l, uint64_t id, struct refusal *r);
int ledger_window_put(struct ledger *l, const struct ledger_window *w, struct refusal *r);
int ledger_window_delete(struct ledger *l, uint64_t id, struct refusal *r);
/* [txn] A range whose mapping made the kernel allocate page tables, which it keeps as long as the domain lives. */
int ledger_touched_put(struct ledger *l, uint64_t domain, struct iova_range range, struct refusal *r);
/* Recovery: rows of a domain replaced by what the holder says it applied, or removed one range at a time. */
int ledger_mapping_delete(struct ledger *l, uint64_t domain, uint64_t iova, struct refusal *r);

/* Loaders, ascending id (mappings: ascending iova). A callback that returns non-zero stops the walk with that value. */
int ledger_sessions(struct ledger *l, int (*each)(const struct ledger_session *s, void *arg), void *arg, struct refusal *r);
int ledger_domains(struct ledger *l, uint64_t session, int (*each)(const struct ledger_domain *d, void *arg), void *arg,
                   struct refusal *r);
int ledger_memories(struct ledger *l, uint64_t session, int (*each)(const struct ledger_memory *m, void *arg), void *arg,
                    struct refusal *r);
int ledger_attachments(struct ledger *l, uint64_t domain, int (*each)(const struct ledger_attachment *a, void *arg),
                       void *arg, struct refusal *r);
int ledger_windows(struct ledger *l, uint64_t domain, int (*each)(const struct ledger_window *w, void *arg), void *arg,
                   struct refusal *r);
int ledger_touched(struct ledger *l, uint64_t domain, int (*each)(struct iova_range range, void *arg), void *arg,
                   struct refusal *r);
int ledger_mappings(struct ledger *l, uint64_t domain, int (*each)(const struct ledger_mapping *m, void *arg), void *arg,
                    struct refusal *r);
/* What ledger_unmap_intend() recorded for an unsettled op: ranges that go, rests that stay of them; of a MAP nothing. */
struct ledger_op_parts {
        const struct ledger_range *ranges;
        size_t n_ranges;
        const struct ledger_mapping *rests;
        size_t n_rests;
};
int ledger_ops(struct ledger *l, uint64_t session,
               int (*each)(const struct ledger_op *op, const struct ledger_op_parts *parts, void *arg), void *arg,
               struct refusal *r);

/* -------------------------------------------------------------------------------------------------------- check */

struct ledger_violation {
        const char *invariant;          /* "I2" */
        char text[256];
};

/* Runs every query of db/check.c on a consistent snapshot (its own connection), beside running work. Calls each() per
 * violation; *ret_rows: rows looked at. */
int ledger_check(struct ledger *l, void (*each)(const struct ledger_violation *v, void *arg), void *arg,
                 uint64_t *ret_rows, struct refusal *r);
/* The same on a directory that no service has open (iommuctl ledger check --offline). */
int ledger_check_offline(const char *directory, void (*each)(const struct ledger_violation *v, void *arg), void *arg,
                         uint64_t *ret_rows, struct refusal *r);
