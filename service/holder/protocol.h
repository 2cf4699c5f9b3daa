/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

#include "util/iova.h"
#include "util/refusal.h"
#include "backend/backend.h"
#include "session_channel.h"

/*
 * What broker and holder say to each other, on a SOCK_SEQPACKET link. service/README.md tells it as a story.
 *
 * Every message is a struct link_header, the struct of its type, and for MAP, UNMAP, WINDOW_REMOVE, WINDOWS_RESET and
 * DUMP_MAPPINGS an array of header.count entries. Host byte order, no pointers. The receiver checks every size; a message
 * that does not fit ends the link (broker: the holder is revoked; holder: it reconnects).
 *
 * Holders outlive upgrades of the broker: types and structs are append-only, header.version is checked for equality of
 * the major half, and a struct may grow at its end (a receiver takes what it knows and reads absent bytes as zero).
 *
 * Order: operations of one domain are executed in the order in which they were sent; operations of different domains,
 * and memory operations, are independent. Each operation is answered by exactly one LINK_RESULT with its seq. Sequence
 * numbers are chosen by the broker, rise within a holder's life and across restarts of the broker (they come from the
 * ledger's op ids), and are never used twice: the holder answers a repeated seq with the remembered result and does
 * nothing (I6). Results are remembered until LINK_SETTLED or until LINK_RESULTS_MAX newer ones exist.
 */
#define LINK_VERSION 0x00020001U        /* major << 16 | minor */
#define LINK_MESSAGE_MAX 65536U
#define LINK_BATCH_MAX 1024U            /* entries of a MAP, UNMAP or DUMP_MAPPINGS */
#define LINK_RESULTS_MAX 4096U
#define LINK_SECRET_BYTES 32U
#define LINK_PATH_MAX 108U              /* as sun_path */

enum link_type {
        /* broker -> holder */
        LINK_SETUP = 1,         /* struct link_setup; first message on a fresh link */
        LINK_CLIENT = 2,        /* fds: session connection, pidfd of the client (the pidfd may be absent: one fd) */
        LINK_GO = 3,            /* the broker has closed its copy of the connection: serve it */
        LINK_TOKEN = 4,         /* struct link_token: pass it to the client */
        LINK_REGISTER = 5,      /* struct link_register */
        LINK_UNREGISTER = 6,    /* struct link_memory */
        LINK_DOMAIN_CREATE = 7, /* header.domain */
        LINK_DOMAIN_DESTROY = 8,/* header.domain; unmaps and detaches what is left */
        LINK_ATTACH = 9,        /* struct link_attach; fds by kind: soft none; type1 container, group when the domain
                                 * has no container for that group yet, none otherwise */
        LINK_ATTACH_ACK = 10,   /* struct link_attachment: the broker keeps what revokes; the client may have the fd.
                                 * no result */
        LINK_DETACH = 11,       /* struct link_attachment */
        LINK_MAP = 12,          /* struct link_map_entry[count] */
        LINK_UNMAP = 13,        /* struct link_unmap_entry[count]: exact earlier mappings */
        LINK_DUMP = 14,         /* answered by LINK_DUMP_* and at last LINK_RESULT */
        LINK_SETTLED = 15,      /* header.seq: results up to it may be forgotten; no result */
        LINK_END = 16,          /* struct link_end: tell the client why, unmap everything, exit */
        LINK_REPLACE = 17,      /* header.count: struct link_replace, then its unmap entries (exact earlier mappings), then its
                                 * map entries. Wholly or not at all; pieces that are the same before and after are not
                                 * touched, so that cutting a chunked mapping is not noticed at the rest */
        LINK_WINDOW_CREATE = 18,/* struct link_window; start as asked for, or WINDOW_ANYWHERE. The result has it as it is */
        LINK_WINDOW_REMOVE = 19,/* struct link_window, of which start alone counts, then struct link_unmap_entry[count]: all
                                 * that is mapped in it, which goes first. Wholly or not at all */
        LINK_WINDOWS_RESET = 20,/* struct link_window: the default one, size 0: none; then struct link_unmap_entry[count]:
                                 * all that is mapped. Wholly or not at all, or the domain is quarantined */

        /* holder -> broker */
        LINK_HELLO = 64,        /* struct link_hello; first message of a holder that (re)connects by itself, and the
                                 * answer to LINK_SETUP once privileges are dropped and the sandbox is closed */
        LINK_RESULT = 65,       /* struct link_result; ATTACH done: one fd (device keeper) when there is one */
        LINK_CLIENT_GONE = 66,  /* session connection closed or client dead; everything has been unmapped already */
        LINK_DUMP_MEMORY = 67,  /* struct link_dump_memory */
        LINK_DUMP_DOMAIN = 68,  /* header.domain, struct link_dump_domain */
        LINK_DUMP_ATTACHMENT = 69,      /* header.domain, struct link_dump_attachment; fds: container, device, of those
                                         * that are to be kept; soft: none */
        LINK_DUMP_MAPPINGS = 70,        /* header.domain, struct link_map_entry[count], ascending IOVA */
        LINK_DUMP_WINDOW = 71,          /* header.domain, struct link_window */
        LINK_REVOKER = 72,      /* header.domain, struct link_revoker; fd: of container_revoker_fd(). Sent where the backend has
                                 * one: as soon as a container is made, before anything is mapped in it, and in a dump after
                                 * the attachments. No result; a newer one takes the place of an older one */
};

struct link_header {
        uint32_t version;
        uint16_t type;          /* enum link_type */
        uint16_t reserved;
        uint64_t seq;           /* 0 where there is no operation */
        uint64_t domain;        /* 0 where there is none */
        uint32_t count;
        uint32_t flags;
};

struct link_setup {
        uint64_t session;
        uint8_t secret[LINK_SECRET_BYTES];      /* proves the holder when it reconnects; its hash is in the ledger */
        uint32_t uid, gid;      /* change to these; UINT32_MAX: stay (no privilege to change) */
        uint64_t memlock;       /* RLIMIT_MEMLOCK, bytes; UINT64_MAX: leave as it is */
        uint32_t max_objects;   /* memory objects and unclaimed tickets, each */
        uint32_t orphan_seconds;/* without a broker for so long: unmap everything and exit; 0: never. Half a
                                 * minute at most when the client is gone as well */
        char cgroup[256];       /* of the client, below the cgroup root, starting with '/'; empty: stay */
        char reconnect[LINK_PATH_MAX];  /* where the broker listens for holders that lost their link */
        struct soft_personality soft;
};

struct link_hello {
        uint64_t session;       /* 0 in the answer to nothing */
        uint8_t secret[LINK_SECRET_BYTES];
        uint64_t last_seq;      /* newest operation it knows */
        uint32_t pid;
        uint32_t client_gone;   /* 1: the client died meanwhile */
        uint32_t cgroup_joined; /* 1: runs in the client's cgroup */
        uint32_t sandboxed;     /* 1: seccomp filter installed */
};

struct link_token {
        char token[2 * SESSION_TOKEN_BYTES + 1];
};

#define LINK_REGISTER_SEAL 1U           /* add F_SEAL_SHRINK|GROW|FUTURE_WRITE after mapping; refuse MEMORY_UNSEALED if
                                         * that cannot be done */
#define LINK_REGISTER_ALLOW_UNSEALED 2U /* with SEAL: go on when the object cannot be sealed (policy of the tenant) */
#define LINK_REGISTER_POPULATE 4U       /* fill holes instead of refusing MEMORY_HOLES */
#define LINK_REGISTER_READ_ONLY 8U      /* device-read only: a read-only fd will do */

struct link_register {
        uint64_t memory;        /* id to be */
        uint64_t ticket;
        uint64_t size;          /* bytes that the client says it has; MEMORY_TRUNCATED if the object is smaller */
        uint32_t flags;
        uint32_t reserved;
};

struct link_memory {
        uint64_t memory;
};

struct link_attach {
        uint64_t attachment;
        uint32_t backend;       /* enum backend_kind */
        uint32_t group;         /* IOMMU group number, or the soft device's own */
        char device[BACKEND_DEVICE_NAME_MAX];
};

struct link_attachment {
        uint64_t attachment;
};

struct link_map_entry {
        uint64_t iova;
        uint64_t length;
        uint64_t memory;
        uint64_t offset;
        uint32_t access;        /* BACKEND_ACCESS_* */
        uint32_t chunk_shift;   /* mapped in pieces of 2^n bytes from its beginning, the last may be shorter; 0: in one */
};

struct link_unmap_entry {
        uint64_t iova;
        uint64_t length;
};

struct link_replace {           /* count of the header is n_unmap + n_map */
        uint32_t n_unmap, n_map;
};

static inline const struct link_unmap_entry *link_replace_unmaps(const struct link_replace *r) {
        return (const struct link_unmap_entry *)(r + 1);
}

static inline const struct link_map_entry *link_replace_maps(const struct link_replace *r) {
        return (const struct link_map_entry *)(link_replace_unmaps(r) + r->n_unmap);
}

struct link_window {
        uint64_t start, size;
        uint32_t page_shift, levels;
};

struct link_end {
        uint32_t reason;        /* enum refusal_reason, for the client */
        uint32_t reserved;
        char text[SESSION_TEXT_MAX];
};

struct link_memory_info {       /* result of REGISTER */
        uint64_t size;          /* bytes of the object now */
        uint64_t page_size;     /* 4096, or the huge page size of hugetlb */
        uint64_t dev, ino;
        uint32_t sealed;        /* 1: size and content mapping are stable (DESIGN, section 6) */
        uint32_t writable;      /* 1: may be mapped for device-write */
};

#define LINK_RESULT_UNDO_FAILED 1U      /* a part stayed applied: the broker quarantines the domain (I9) */

struct link_result {
        struct refusal refusal; /* reason REFUSAL_NONE: done, wholly; otherwise nothing of it is applied, unless
                                 * LINK_RESULT_UNDO_FAILED is in flags */
        uint32_t flags;
        uint32_t reserved;
        struct container_info info;     /* ATTACH and DETACH: of the domain now, intersection of its containers
                                         * (DETACH of the last: all zero) */
        struct link_memory_info memory; /* REGISTER */
        struct link_window window;      /* WINDOW_CREATE */
};

struct link_dump_memory {
        uint64_t memory;
        struct link_memory_info info;
};

struct link_dump_domain {
        uint64_t mappings;      /* how many entries follow in LINK_DUMP_MAPPINGS */
        uint32_t attachments;
        uint32_t quarantined;
        struct container_info info;     /* zero without an attachment */
        uint32_t has_windows;           /* 1: it had a container with windows of its own; those that it has follow */
        uint32_t n_windows;
};

struct link_revoker {
        uint32_t group;
        uint32_t reserved;
};

struct link_dump_attachment {
        struct link_attach attach;
        uint32_t acked;                 /* 1: a broker has said so once, and the client may have the fd. The next says it again */
        uint32_t container_sent;        /* 1: the first fd is the container's (sent once per container) */
};
