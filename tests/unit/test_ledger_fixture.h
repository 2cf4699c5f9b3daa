/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the ledger's tests share: a directory, an open ledger, one session with a domain and memory, and raw SQL. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ftw.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ledger.h"
#include "util/cleanup.h"

static char dir[PATH_MAX];
static struct refusal r;

#define OK(call)                                                                                                       \
        do {                                                                                                           \
                if ((call) != 0)                                                                                       \
                        fail_msg("%s: %s", #call, r.text);                                                             \
        } while (0)
#define REFUSED(call, why, words)                                                                                      \
        do {                                                                                                           \
                r.text[0] = 0;                                                                                         \
                assert_int_equal((call), -1);                                                                          \
                if (r.reason != (why) || !strstr(r.text, words))                                                       \
                        fail_msg("%s: got %s: %s", #call, refusal_reason_name(r.reason), r.text);                      \
        } while (0)

static inline int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at) {
        (void)st, (void)type, (void)at;
        return remove(path);
}

static inline int make_directory(void **state) {
        const char *tmp = getenv("TMPDIR");

        (void)state;
        (void)snprintf(dir, sizeof dir, "%.3000s/iommud-ledger-XXXXXX", tmp ? tmp : "/tmp");
        return mkdtemp(dir) ? 0 : -1;
}

static inline int remove_directory(void **state) {
        (void)state;
        return nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static inline const char *in_dir(const char *file) {
        static char path[PATH_MAX + 64];

        (void)snprintf(path, sizeof path, "%s/%s", dir, file);
        return path;
}

static inline struct ledger *open_ledger(void) {
        struct ledger_options o = { .directory = dir };
        struct ledger *l = NULL;

        OK(ledger_open(&o, &l, &r));
        return l;
}

/* Not while a ledger is open in this process, unless only reading: closing would drop nothing of sqlite's, but a write
 * would have to wait for it. */
static inline void raw(const char *file, const char *sql) {
        sqlite3 *db = NULL;
        char *error = NULL;

        assert_int_equal(sqlite3_open(in_dir(file), &db), SQLITE_OK);
        if (sqlite3_exec(db, sql, NULL, NULL, &error) != SQLITE_OK)
                fail_msg("%s: %s", sql, error);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static inline int64_t raw_number(const char *file, const char *sql) {
        sqlite3 *db = NULL;
        sqlite3_stmt *s = NULL;
        int64_t n;

        assert_int_equal(sqlite3_open(in_dir(file), &db), SQLITE_OK);
        if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK)
                fail_msg("%s: %s", sql, sqlite3_errmsg(db));
        assert_int_equal(sqlite3_step(s), SQLITE_ROW);
        n = sqlite3_column_int64(s, 0);
        sqlite3_finalize(s);
        sqlite3_close(db);
        return n;
}

/* A whole file; *ret_size bytes, the caller's to free. */
static inline char *slurp(const char *file, size_t *ret_size) {
        FILE *f = fopen(in_dir(file), "re");
        char *data = malloc(1 << 20);

        assert_non_null(f);
        assert_non_null(data);
        *ret_size = fread(data, 1, 1 << 20, f);
        (void)fclose(f);
        return data;
}

/* Ids of the rows that put_objects() makes. */
struct objects {
        uint64_t session, domain, memory;
};

static inline struct ledger_session a_session(uint64_t id) {
        struct ledger_session s = {
                .id = id, .uid = 1000, .gid = 1000, .pid = 42, .start_time = 7, .state = LEDGER_LIVE
        };

        (void)snprintf(s.tenant, sizeof s.tenant, "acme");
        s.token_hash[0] = (uint8_t)id;
        s.token_hash[1] = (uint8_t)(id >> 8);
        return s;
}

static inline struct ledger_memory a_memory(uint64_t id, uint64_t session) {
        return (struct ledger_memory){ .id = id, .session = session, .size = UINT64_C(1) << 40, .page_size = 4096,
                                       .writable = true, .sealed = true, .state = LEDGER_LIVE };
}

static inline void put_tenant(struct ledger *l) {
        struct ledger_tenant t = { .name = "acme" };

        for (int i = 0; i < _RESOURCE_N; i++)
                t.quota[i] = UINT64_MAX;
        OK(ledger_tenant_put(l, &t, &r));
}

static inline struct objects put_objects(struct ledger *l) {
        struct objects o = { ledger_next_id(l), ledger_next_id(l), ledger_next_id(l) };
        struct ledger_session s = a_session(o.session);
        struct ledger_domain d = { .id = o.domain, .session = o.session, .label = "d", .state = LEDGER_LIVE };
        struct ledger_memory m = a_memory(o.memory, o.session);

        put_tenant(l);
        OK(ledger_begin(l, &r));
        OK(ledger_session_put(l, &s, &r));
        OK(ledger_domain_put(l, &d, &r));
        OK(ledger_memory_put(l, &m, &r));
        OK(ledger_commit(l, &r));
        return o;
}

static inline struct ledger_op an_op(struct ledger *l, const struct objects *o, enum ledger_op_kind kind) {
        return (struct ledger_op){ .id = ledger_next_id(l), .session = o->session, .object = o->domain, .kind = kind };
}

static inline struct ledger_mapping a_mapping(const struct objects *o, uint64_t iova, uint64_t length) {
        return (struct ledger_mapping){
                .domain = o->domain, .iova = iova, .length = length, .memory = o->memory, .access = 3
        };
}

static inline struct ledger_window a_window(uint64_t id, const struct objects *o, uint64_t start, uint64_t size) {
        return (struct ledger_window){ .id = id, .domain = o->domain, .start = start, .size = size, .page_shift = 12,
                                       .levels = 1, .state = LEDGER_LIVE };
}

struct mappings {
        size_t n;
        struct ledger_mapping at[1024];
};

static inline int collect_mapping(const struct ledger_mapping *m, void *arg) {
        struct mappings *all = arg;

        assert_true(all->n < ARRAY_SIZE(all->at));
        all->at[all->n++] = *m;
        return 0;
}

static inline size_t load_mappings(struct ledger *l, uint64_t domain, struct mappings *ret) {
        ret->n = 0;
        OK(ledger_mappings(l, domain, collect_mapping, ret, &r));
        return ret->n;
}

/* Intend and settle in one transaction. */
static inline void map_one(struct ledger *l, const struct objects *o, uint64_t iova, uint64_t length) {
        struct ledger_op op = an_op(l, o, LEDGER_OP_MAP);
        struct ledger_mapping m = a_mapping(o, iova, length);

        OK(ledger_begin(l, &r));
        OK(ledger_map_intend(l, &op, &m, 1, &r));
        OK(ledger_op_settle(l, &op, true, &r));
        OK(ledger_commit(l, &r));
}

static inline void print_violation(const struct ledger_violation *v, void *arg) {
        ++*(size_t *)arg;
        print_message("%s: %s\n", v->invariant, v->text);
}

static inline size_t count_violations(struct ledger *l) {
        uint64_t rows;
        size_t n = 0;

        OK(ledger_check(l, print_violation, &n, &rows, &r));
        return n;
}
