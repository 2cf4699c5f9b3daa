/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "ledger_private.h"
#include "migrate.h"
#include "wal_check.h"

#define ROWS_SQL                                                                                                       \
        "SELECT (SELECT count(*) FROM session) + (SELECT count(*) FROM domain) + (SELECT count(*) FROM memory) "       \
        "+ (SELECT count(*) FROM attachment) + (SELECT count(*) FROM mapping) + (SELECT count(*) FROM window) "        \
        "+ (SELECT count(*) FROM op) "                                                                                 \
        "+ (SELECT count(*) FROM config.tenant) + (SELECT count(*) FROM config.tenant_quota) "                         \
        "+ (SELECT count(*) FROM config.tenant_rule) + (SELECT count(*) FROM config.tenant_device) "                   \
        "+ (SELECT count(*) FROM config.device_binding) + (SELECT count(*) FROM config.audit)"

void check_report(const struct check *c, const char *invariant, const char *format, ...) {
        struct ledger_violation v = { .invariant = invariant };
        va_list args;

        va_start(args, format);
        (void)vsnprintf(v.text, sizeof v.text, format, args);
        va_end(args);
        c->each(&v, c->arg);
}

static void address_function(sqlite3_context *context, int argc, sqlite3_value **argv) {
        char text[32];

        (void)argc;
        (void)snprintf(text, sizeof text, "0x%" PRIx64, address_decode(sqlite3_value_int64(argv[0])));
        sqlite3_result_text(context, text, -1, SQLITE_TRANSIENT);
}

static int run_query(struct check *c, const struct check_query *q, struct refusal *r) {
        _cleanup_once_ struct stmt s = { 0 };
        struct ledger_violation v = { .invariant = q->invariant };
        int k;

        if (db_prepare_one(&c->db, q->sql, &s, r) < 0)
                return -1;
        for (unsigned n = 0; (k = stmt_next(&s, r)) > 0 && n < VIOLATIONS_MAX; n++) {
                stmt_get_text(&s, 0, v.text, sizeof v.text);
                c->each(&v, c->arg);
        }
        return k < 0 ? -1 : 0;
}

static int attach_config(struct check *c, const char *directory, struct refusal *r) {
        _cleanup_once_ struct stmt s = { 0 };
        char path[PATH_MAX];

        if (db_path(path, directory, "config.db", "", r) < 0 ||
            db_prepare_one(&c->db, "ATTACH ?1 AS config", &s, r) < 0)
                return -1;
        stmt_text(&s, 1, path);
        return stmt_run(&s, NULL, r);
}

/* Not opened read-only: sqlite does not load CHECK constraints then, and its integrity_check would not check them. What
 * is on the disk stays as it is all the same. */
static int check_open(struct check *c, const char *directory, struct refusal *r) {
        char path[PATH_MAX];

        if (db_path(path, directory, "state.db", "", r) < 0 || db_open(&c->db, path, SQLITE_OPEN_READWRITE, r) < 0)
                return -1;
        (void)sqlite3_db_config(c->db.handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        if (attach_config(c, directory, r) < 0 || db_exec(&c->db, "PRAGMA query_only = ON", r) < 0)
                return -1;
        if (sqlite3_create_function_v2(c->db.handle, "address", 1, SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL,
                                       address_function, NULL, NULL, NULL) != SQLITE_OK ||
            rows_register(c->db.handle, &c->rows) != SQLITE_OK)
                return db_refuse(&c->db, r);
        return 0;
}

/* One transaction, so that the state is seen at one moment; the first statement reads it before the configuration,
 * which is therefore the newer of the two: ids and tenants in use are in it. */
static int check_directory(const char *directory, void (*each)(const struct ledger_violation *v, void *arg), void *arg,
                           uint64_t *ret_rows, struct refusal *r) {
        struct check c = { .each = each, .arg = arg };
        const struct check_query *queries;
        int64_t rows = 0;
        size_t n;
        int k;

        queries = check_queries(&n);
        k = check_open(&c, directory, r);
        if (k == 0)
                k = db_exec(&c.db, "BEGIN", r);
        if (k == 0)
                k = db_get_int64(&c.db, ROWS_SQL, &rows, r);
        for (size_t i = 0; k == 0 && i < n; i++)
                k = run_query(&c, &queries[i], r);
        if (k == 0)
                k = check_intents(&c, r);
        if (k == 0)
                k = check_pages(&c, r);
        db_close(&c.db);
        if (k == 0)
                *ret_rows = (uint64_t)rows;
        return k;
}

int ledger_check(struct ledger *l, void (*each)(const struct ledger_violation *v, void *arg), void *arg,
                 uint64_t *ret_rows, struct refusal *r) {
        return check_directory(l->directory, each, arg, ret_rows, r);
}

static int require_current(const char *directory, const struct migration_set *set, struct refusal *r) {
        int64_t version;

        if (migrate_inspect(directory, set, &version, r) < 0)
                return -1;
        if (version < 0)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "There is no ledger in %s: %s is missing.", directory,
                              set->file);
        if ((uint64_t)version < set->n_steps)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE,
                              "%s in %s has schema version %" PRId64
                              ", this program checks version %zu: starting the service "
                              "once migrates it.",
                              set->file, directory, version, set->n_steps);
        return 0;
}

int ledger_check_offline(const char *directory, void (*each)(const struct ledger_violation *v, void *arg), void *arg,
                         uint64_t *ret_rows, struct refusal *r) {
        bool same_boot = false;
        _cleanup_close_ int lock = ledger_lock(directory, &same_boot, r);

        if (lock < 0 || (same_boot && (wal_check(directory, "config.db", r) < 0 || wal_check(directory, "state.db", r) < 0)) ||
            require_current(directory, &migrations_config, r) < 0 ||
            require_current(directory, &migrations_state, r) < 0)
                return -1;
        return check_directory(directory, each, arg, ret_rows, r);
}
