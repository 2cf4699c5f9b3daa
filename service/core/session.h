/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <uthash.h>

#include "auth/peer.h"
#include "core/lazy.h"
#include "core/mapping.h"
#include "core/quota.h"
#include "core/requests.h"
#include "core/secret.h"
#include "core/shared_page.h"
#include "core/table_pages.h"
#include "core/window.h"
#include "holder/protocol.h"
#include "ledger.h"

/*
 * A session: one client process, its holder, and all that it owns. service/README.md tells its stages.
 */
enum session_stage {
        SESSION_STARTING = 1,   /* a holder is starting; the connection is still ours */
        SESSION_LIVE = 2,
        SESSION_DETACHED = 3,   /* loaded from the ledger; its holder has not come back yet */
        SESSION_RECONCILING = 4,/* it has, and is telling what it applied */
        SESSION_ENDING = 5,     /* being revoked (core/revocation.c) */
};

struct tenant;
struct holder_link;
struct lease;

struct memory {
        UT_hash_handle hh;
        uint64_t id, size, page_size, dev, ino;
        uint64_t mappings;              /* mapping nodes that refer to it */
        uint64_t charged_bytes;         /* REGISTERED_BYTES */
        struct locked_file *file;       /* of a sealed object: what its pages are counted by. NULL: each mapping counts */
        bool sealed, writable;
        enum ledger_object_state state;
};

struct attachment {
        UT_hash_handle hh;
        uint64_t id;
        struct domain *domain;
        struct lease *lease;
        uint32_t group;
        char device[LEDGER_NAME_MAX];
        enum ledger_object_state state;
};

struct domain {
        UT_hash_handle hh;
        uint64_t id;
        struct session *session;
        char label[LEDGER_NAME_MAX];
        enum ledger_object_state state;
        uint32_t n_attachments;         /* attachment rows, live or on their way */
        uint32_t busy;                  /* operations in flight on it */
        bool has_info;                  /* info came from the holder: a device is attached */
        struct container_info info;
        struct window_set windows;
        bool resetting;                 /* its windows are about to be what they were in the beginning */
        uint64_t containers;            /* for so many its tables are charged; 1 or more */
        uint64_t window_tables;         /* of charged: the tables of the windows themselves */
        struct mapping_set mappings;
        struct shared_page_set pages;
        struct table_pages tables;
        struct quota_amounts charged;   /* for all in it, but for locked pages (core/change.h) */
        uint64_t kernel_mappings;       /* of the IOMMU's budget, with those that are on their way in or out */
        struct lazy lazy;
};

struct key_memory;                      /* op.c */

struct session {
        struct broker *broker;
        struct tenant *tenant;
        atomic_uint refs;
        atomic_uint in_flight;          /* operations between admission and answer: revocation waits for them */
        uint64_t id;
        UT_hash_handle hh_id, hh_token; /* broker->lock */

        pthread_mutex_t lock;           /* protects what follows */
        enum session_stage stage;
        bool claimed;                   /* the client presented its token */
        bool revoking;                  /* a revocation has begun; only one does */
        struct peer peer;
        char client_name[LEDGER_NAME_MAX];
        uint64_t born_ms;
        int connection;                 /* while STARTING: the client's connection; -1 afterwards */
        char token[2 * SESSION_TOKEN_BYTES + 1];        /* until it was sent */
        struct secret_hash token_hash, secret_hash;
        uint8_t secret[LINK_SECRET_BYTES];
        uint32_t holder_uid, holder_pid;
        uint64_t holder_start_time;
        int holder_pidfd;
        struct holder_link *link;       /* NULL: none. Counted: holder_link_unref() */
        struct domain *domains;         /* uthash by id */
        bool has_lazy;                  /* some of them flush lazily, or did */
        struct memory *memories;
        struct attachment *attachments;
        struct key_memory *keys;        /* uthash by key */
        struct key_memory *keys_first;  /* oldest first (utlist) */
        unsigned n_keys;
        struct recovery *recovery;      /* while RECONCILING */
        unsigned mutations;             /* how many were admitted */
        struct recovery *check;         /* a dump that core/check_holders.c waits for */
        bool check_done, check_failed;
        pthread_cond_t check_changed;
};

struct session *session_new(struct broker *b, struct tenant *t, uint64_t id);
struct session *session_ref(struct session *s);

/* With the session's lock held; an id of another session is not found, as one that never was. */
struct domain *session_find_domain(struct session *s, uint64_t id, struct refusal *r);
struct memory *session_find_memory(struct session *s, uint64_t id, struct refusal *r);
struct attachment *session_find_attachment(struct session *s, uint64_t id, struct refusal *r);

/* With the session's lock held: its file, by which its pages are counted, if that can be told. */
void memory_identify(struct session *s, struct memory *m);

/* With the session's lock held: may it take new work. */
int session_is_live(struct session *s, struct refusal *r);

/* Registry (take broker->lock). */
void session_register(struct session *s);
void session_unregister(struct session *s);
struct session *session_find(struct broker *b, uint64_t id);            /* a reference, or NULL */

/* What the session's own row in the ledger says now (session's lock held). */
void session_row(const struct session *s, struct ledger_session *ret);

/* What it and everything in it is charged, but for locked pages (session's lock held). */
void session_charges(struct session *s, struct quota_amounts *ret);

/* The link's messages that are not results (called by the link, no lock held). */
void session_link_message(struct session *s, const struct link_header *h, size_t size, int *fds);
/* The link is gone: the holder died, broke the protocol, or was too slow. reason is what operations in flight answer. */
void session_link_lost(struct session *s, enum refusal_reason reason, const char *why);

const char *session_stage_name(enum session_stage stage);
uint64_t monotonic_ms(void);
