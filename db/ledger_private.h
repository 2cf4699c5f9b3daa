/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ledger.h"
#include "rows.h"
#include "stmt.h"

/*
 * What the files of the ledger share. Three connections write (a fourth is check's own and only reads):
 *
 *   config       under config_lock; any thread
 *   state        under state_gate, which is held from ledger_begin() to the end of the transaction
 *   maintenance  its thread's own, to state.db: moves the WAL into the file without stopping the writer
 *
 * Lock order: config_lock before audit.lock; state_gate and ids.lock are never held with another one, except that
 * ids.lock is held while config_lock is taken.
 */
#define CONFIG_STATEMENTS(X)                                                                                           \
        X(CONFIG_BEGIN, "BEGIN IMMEDIATE")                                                                             \
        X(CONFIG_COMMIT, "COMMIT")                                                                                     \
        X(CONFIG_ROLLBACK, "ROLLBACK")                                                                                 \
        X(TENANT_PUT, "INSERT INTO tenant VALUES (?1, ?2, ?3)")                                                        \
        X(TENANT_QUOTA_PUT, "INSERT INTO tenant_quota VALUES (?1, ?2, ?3)")                                            \
        X(TENANT_RULE_PUT, "INSERT INTO tenant_rule VALUES (?1, ?2, ?3, ?4, ?5)")                                      \
        X(TENANT_DEVICE_PUT, "INSERT INTO tenant_device VALUES (?1, ?2, ?3)")                                          \
        X(TENANT_DELETE, "DELETE FROM tenant WHERE name = ?1")                                                         \
        X(TENANT_NEXT, "SELECT name, own_socket, allow_unsealed FROM tenant WHERE name > ?1 ORDER BY name LIMIT 1")    \
        X(TENANT_QUOTAS, "SELECT resource, amount FROM tenant_quota WHERE tenant = ?1")                                \
        X(TENANT_RULES, "SELECT uid, gid, cgroup_prefix FROM tenant_rule WHERE tenant = ?1 ORDER BY position")         \
        X(TENANT_DEVICES, "SELECT device FROM tenant_device WHERE tenant = ?1 ORDER BY position")                      \
        X(BINDING_PUT, "INSERT INTO device_binding VALUES (?1, ?2) "                                                   \
                       "ON CONFLICT (device) DO UPDATE SET original_driver = excluded.original_driver")                \
        X(BINDING_GET, "SELECT original_driver FROM device_binding WHERE device = ?1")                                 \
        X(BINDING_DELETE, "DELETE FROM device_binding WHERE device = ?1")                                              \
        X(ID_RESERVE, "UPDATE id_counter SET next = next + ?1")                                                        \
        X(ID_NEXT, "SELECT next FROM id_counter")                                                                      \
        X(AUDIT_ADD, "INSERT INTO audit (time_ns, event, tenant, uid, pid, text) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")     \
        X(AUDIT_PRUNE, "DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?1")

/* An upsert, never INSERT OR REPLACE: that deletes the old row first, and everything below it by cascade. */
#define STATE_STATEMENTS(X)                                                                                            \
        X(STATE_BEGIN, "BEGIN IMMEDIATE")                                                                              \
        X(STATE_COMMIT, "COMMIT")                                                                                      \
        X(STATE_ROLLBACK, "ROLLBACK")                                                                                  \
        X(SESSION_PUT, "INSERT INTO session VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) "          \
                       "ON CONFLICT (id) DO UPDATE SET tenant = excluded.tenant, client_name = excluded.client_name, " \
                       "uid = excluded.uid, gid = excluded.gid, pid = excluded.pid, start_time = excluded.start_time, "\
                       "holder_pid = excluded.holder_pid, holder_uid = excluded.holder_uid, "                          \
                       "holder_start_time = excluded.holder_start_time, token_hash = excluded.token_hash, "            \
                       "secret_hash = excluded.secret_hash, state = excluded.state")                                   \
        X(DOMAIN_PUT, "INSERT INTO domain (id, session, label, state, lazy) VALUES (?1, ?2, ?3, ?4, ?5) "              \
                      "ON CONFLICT (id) DO UPDATE SET session = excluded.session, label = excluded.label, "            \
                      "state = excluded.state, lazy = excluded.lazy")                                                  \
        X(MEMORY_PUT, "INSERT INTO memory (id, session, size, page_size, dev, ino, sealed, writable, state) "          \
                      "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (id) DO UPDATE "                        \
                      "SET session = excluded.session, size = excluded.size, page_size = excluded.page_size, "         \
                      "dev = excluded.dev, ino = excluded.ino, sealed = excluded.sealed, "                             \
                      "writable = excluded.writable, state = excluded.state")                                          \
        X(ATTACHMENT_PUT, "INSERT INTO attachment VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (id) DO UPDATE "         \
                          "SET domain = excluded.domain, device = excluded.device, group_id = excluded.group_id, "     \
                          "backend = excluded.backend, state = excluded.state")                                        \
        X(WINDOW_PUT, "INSERT INTO window VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (id) DO UPDATE "\
                      "SET domain = excluded.domain, start = excluded.start, size = excluded.size, "                   \
                      "page_shift = excluded.page_shift, levels = excluded.levels, quota = excluded.quota, "           \
                      "table_bytes = excluded.table_bytes, is_default = excluded.is_default, "                         \
                      "state = excluded.state")                                                                        \
        X(TOUCHED_PUT, "INSERT OR IGNORE INTO touched VALUES (?1, ?2, ?3)")                                            \
        X(SESSION_DELETE, "DELETE FROM session WHERE id = ?1")                                                         \
        X(DOMAIN_DELETE, "DELETE FROM domain WHERE id = ?1")                                                           \
        X(MEMORY_DELETE, "DELETE FROM memory WHERE id = ?1")                                                           \
        X(ATTACHMENT_DELETE, "DELETE FROM attachment WHERE id = ?1")                                                   \
        X(WINDOW_DELETE, "DELETE FROM window WHERE id = ?1")                                                           \
        X(OP_INSERT, "INSERT INTO op (id, session, object, kind, key, request_hash, settled, answer, ranges, effect, " \
                     "rests) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?7, ?8, ?9, ?10)")                                     \
        X(OP_PARTS, "SELECT ranges, rests FROM op WHERE id = ?1 AND settled = 0")                                      \
        X(OP_SETTLE, "UPDATE op SET settled = 1, answer = ?2, ranges = NULL, effect = NULL, rests = NULL "             \
                     "WHERE id = ?1 AND settled = 0")                                                                  \
        X(OP_DELETE, "DELETE FROM op WHERE id = ?1")                                                                   \
        X(OP_PRUNE, "DELETE FROM op WHERE session = ?1 AND settled = 1 AND id <= (SELECT id FROM op "                  \
                    "WHERE session = ?1 AND settled = 1 ORDER BY id DESC LIMIT 1 OFFSET ?2)")                          \
        X(MAPPING_BEFORE, "SELECT iova, last FROM mapping WHERE domain = ?1 AND iova <= ?2 ORDER BY iova DESC LIMIT 1")\
        X(MAPPING_INSERT, "INSERT INTO mapping (domain, iova, last, memory, offset, access, op, chunk_shift, "         \
                          "page_shift) SELECT ?1, iova, last, memory, offset, access, ?2, chunk_shift, page_shift "    \
                          "FROM ledger_rows")                                                                          \
        X(MAPPING_DELETE, "DELETE FROM mapping WHERE domain = ?1 AND iova = ?2 RETURNING memory")                      \
        X(MAPPING_DELETE_RANGE, "DELETE FROM mapping WHERE domain = ?1 AND iova = ?2 AND last = ?3 "                   \
                                "AND (?4 = 0 OR op = ?4)")                                                             \
        X(MEMORY_COUNT, "UPDATE memory SET mapped = mapped + ?2 WHERE id = ?1 "                                        \
                        "AND session = (SELECT session FROM domain WHERE id = ?3)")                                    \
        X(MEMORY_FITS_DOMAIN, "SELECT 1 FROM memory WHERE id = ?1 "                                                    \
                              "AND session = (SELECT session FROM domain WHERE id = ?2)")                              \
        X(MEMORY_OF_ROWS, "SELECT m.memory FROM ledger_rows AS r CROSS JOIN mapping AS m WHERE m.domain = ?1 "         \
                          "AND m.iova = r.iova AND m.last = r.last AND (?2 = 0 OR m.op = ?2)")                         \
        X(MEMORY_UNCOUNT, "UPDATE memory SET mapped = mapped - ?2 WHERE id = ?1")                                      \
        X(MEMORY_UNCOUNT_DOMAIN, "UPDATE memory SET mapped = mapped - c.n FROM (SELECT memory AS id, count(*) AS n "   \
                                 "FROM mapping WHERE domain = ?1 GROUP BY memory) AS c WHERE memory.id = c.id")        \
        X(SESSIONS, "SELECT id, tenant, client_name, uid, gid, pid, start_time, holder_pid, holder_uid, "              \
                    "holder_start_time, token_hash, secret_hash, state FROM session ORDER BY id")                      \
        X(DOMAINS, "SELECT id, label, state, lazy FROM domain WHERE session = ?1 ORDER BY id")                         \
        X(MEMORIES, "SELECT id, size, page_size, dev, ino, sealed, writable, state FROM memory "                       \
                    "WHERE session = ?1 ORDER BY id")                                                                  \
        X(ATTACHMENTS, "SELECT id, device, group_id, backend, state FROM attachment WHERE domain = ?1 ORDER BY id")    \
        X(WINDOWS, "SELECT id, start, size, page_shift, levels, quota, table_bytes, is_default, state FROM window "    \
                   "WHERE domain = ?1 ORDER BY id")                                                                    \
        X(TOUCHED, "SELECT first, last FROM touched WHERE domain = ?1 ORDER BY first, last")                           \
        X(MAPPINGS, "SELECT iova, last, memory, offset, access, op, chunk_shift, page_shift FROM mapping "             \
                    "WHERE domain = ?1 ORDER BY iova")                                                                 \
        X(OPS, "SELECT id, object, kind, key, request_hash, settled, answer, effect, "                                 \
               "CASE WHEN kind <> 7 THEN ranges END, rests FROM op WHERE session = ?1 ORDER BY id")

#define X(name, sql) STMT_##name,
enum { CONFIG_STATEMENTS(X) _STMT_CONFIG_N };
enum { STATE_STATEMENTS(X) _STMT_STATE_N };
#undef X

#define AUDIT_BUFFERED 4096U            /* lines waiting for the disk; more are counted and dropped */
#define AUDIT_WAKE (AUDIT_BUFFERED / 4)
#define AUDIT_EVENT_MAX 64U

struct audit_line {
        int64_t time_ns;
        bool has_tenant;
        uint32_t uid, pid;
        char event[AUDIT_EVENT_MAX];
        char tenant[LEDGER_NAME_MAX];
        char text[REFUSAL_TEXT_MAX];
};

/* A ring; head and tail only grow. The lines between them are the flusher's to read without the lock. */
struct audit {
        pthread_mutex_t lock;
        uint64_t head, tail, dropped;
        struct audit_line *lines;
};

struct ids {
        pthread_mutex_t lock;
        uint64_t next, end;
};

struct maintenance {
        pthread_t thread;
        bool started;
        pthread_mutex_t lock;           /* stop, poked */
        pthread_cond_t wake;
        bool stop, poked;
        _Atomic(int) wal_pages;         /* after the last commit to state.db */
        _Atomic(int) poke_at;           /* with this many the thread is woken */
        _Atomic(int) wal_step, wal_hard;        /* limits of ledger_maintain.c; tests lower them */
        struct db db;
};

struct ledger {
        char directory[PATH_MAX];
        int lock_fd;
        char boot_id[40];
        atomic_bool other_boot;
        struct damage damage;                   /* of either database: then neither is written */

        pthread_mutex_t config_lock;
        struct db config;

        pthread_mutex_t state_gate;
        _Atomic(const void *) state_owner;      /* thread mark of who has the gate, NULL: nobody */
        struct db state;
        struct rows rows;                       /* what ledger_rows shows at the moment */
        struct ledger_range *scratch;
        size_t n_scratch;
        uint64_t prune_random;

        struct ids ids;
        struct audit audit;
        struct maintenance maintenance;
};

/* 64-bit addresses in the order of addresses: sqlite's integers are signed. */
static inline int64_t address_encode(uint64_t address) {
        return (int64_t)(address ^ (UINT64_C(1) << 63));
}

static inline uint64_t address_decode(int64_t stored) {
        return (uint64_t)stored ^ (UINT64_C(1) << 63);
}

/* ledger_config.c: transactions of the config connection, with config_lock held. */
int config_begin(struct ledger *l, struct refusal *r);
int config_commit(struct ledger *l, struct refusal *r);         /* rolls back when it fails */
void config_rollback(struct ledger *l);

/* ledger_state.c */
int state_in_transaction(struct ledger *l, struct refusal *r);  /* 0: it is this thread's and still open */

/* ledger_op.c: the row of an operation, and what goes with it (NULL: nothing). */
int op_insert(struct ledger *l, const struct ledger_op *op, const struct ledger_op_parts *parts, struct refusal *r);
int op_delete(struct ledger *l, uint64_t id, struct refusal *r);

/* ledger_map.c. Room for n ranges until the next call: */
struct ledger_range *scratch_ranges(struct ledger *l, size_t n, struct refusal *r);
int compare_ranges(const void *a, const void *b);       /* by address, for qsort() */
/* Sorts the ranges and refuses with OVERLAP if two of them do. */
int check_unsorted(struct ledger_range *ranges, size_t n, struct refusal *r);
/* Counts rows into their memory objects, or out again (sign -1), one update for each run of the same object. An object
 * that is not there, or of another session than the domain's, is refused. */
int count_memory(struct ledger *l, const struct ledger_mapping *rows, size_t n, int sign, size_t *ret_done,
                 struct refusal *r);
int insert_mappings(struct ledger *l, const struct ledger_op *op, const struct ledger_mapping *rows, size_t n,
                    struct refusal *r);

/* ledger_unmap.c: the mappings that an unsettled op has recorded go, its rests come in their place. Of a MAP (one that
 * did not happen) only those that it made itself. */
int mappings_replace_recorded(struct ledger *l, const struct ledger_op *op, struct refusal *r);

/* ledger_audit.c */
int audit_init(struct audit *a, struct refusal *r);
void audit_destroy(struct audit *a);

/* ledger_maintain.c */
int maintenance_start(struct ledger *l, const char *state_path, struct refusal *r);
void maintenance_stop(struct ledger *l);
void maintenance_poke(struct ledger *l);

/* ledger_sqlite.c: for check --offline. fd of the lock in the directory, held until it is closed, or -1 with the
 * refusal that names the holder's pid. *ret_same_boot: the machine has not been rebooted since the lock was last taken. */
int ledger_lock(const char *directory, bool *ret_same_boot, struct refusal *r);
