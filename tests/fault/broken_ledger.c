/* SPDX-License-Identifier: Apache-2.0 */
#include "fault/broken_ledger.h"

#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sysexits.h>
#include <unistd.h>

#include "util/cleanup.h"

/* ---- a client at work ---- */

void broken_begin(struct broken *b) {
        b->s = service_new(&(struct service_options){
                .failpoints = true, .limits = "session_starts_per_second = 1000\nrecover_seconds = 3\n" });
        b->f = faults_open(b->s);
        service_launch(b->s);
        raw_open(&b->c, b->s->client);
        b->fd = raw_memfd((size_t)2 * BROKEN_PAGE);
        b->bytes = mmap(NULL, (size_t)2 * BROKEN_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, 0);
        assert_true(b->bytes != MAP_FAILED);
        raw_must(raw_create_domain(&b->c, NULL, &b->domain));
        raw_must(raw_register(&b->c, NULL, b->fd, (uint64_t)2 * BROKEN_PAGE, &b->memory));
        raw_must(raw_map(&b->c, NULL, b->domain, BROKEN_IOVA, b->memory, (uint64_t)2 * BROKEN_PAGE));
        raw_must(raw_attach(&b->c, NULL, b->domain, "edu0", &b->attachment));
        assert_int_equal(raw_device_fd(&b->c, b->attachment, &b->device), 0);
        assert_true(probe_enable(b->device));
        broken_assert_dma(b);
}

static void let_go(struct broken *b) {
        raw_close(&b->c);
        munmap(b->bytes, (size_t)2 * BROKEN_PAGE);
        b->fd = fd_close(b->fd);
        b->device = fd_close(b->device);
}

void broken_end(struct broken *b) {
        let_go(b);
        service_end(b->s);
        faults_close(b->f);
}

void broken_assert_dma(struct broken *b) {
        static uint8_t pattern;

        memset(b->bytes, ++pattern, 64);
        memset(b->bytes + BROKEN_PAGE, 0, 64);
        assert_true(probe_pull(b->device, BROKEN_IOVA, 64));
        assert_true(probe_push(b->device, BROKEN_IOVA + BROKEN_PAGE, 64));
        assert_memory_equal(b->bytes, b->bytes + BROKEN_PAGE, 64);
}

/* ---- refused, and working ---- */

static void refused(unsigned reason, const char *what, const char *words) {
        if (reason != IOMMUD_REASON_LEDGER_UNAVAILABLE || !strstr(raw_text(), words))
                fail_msg("%s: reason %u: '%s' (expected '%s')", what, reason, raw_text(), words);
}

static void assert_owns(struct broken *b, uint64_t domains, uint64_t mappings) {
        size_t n;

        raw_must(raw_list_mappings(&b->c, b->domain, &n));
        assert_int_equal(n, mappings);
        assert_int_equal(service_used(b->s, "me", IOMMUD_RESOURCE_DOMAINS), domains);
        assert_int_equal(service_used(b->s, "me", IOMMUD_RESOURCE_MAPPINGS), mappings);
        assert_int_equal(service_used(b->s, "me", IOMMUD_RESOURCE_DEVICES), 1);
        assert_int_equal(service_used(b->s, "me", IOMMUD_RESOURCE_MEMORY_OBJECTS), 1);
}

static void assert_no_session(struct broken *b, const char *words) {
        int session = raw_connect(b->s->client, true), fd;
        struct session_msg m;

        if (!raw_receive(session, &m, &fd))
                fail_msg("a new session connection was closed without a word");
        if (m.reason != IOMMUD_REASON_LEDGER_UNAVAILABLE || !strstr(m.text, words))
                fail_msg("a new session: reason %u: %s", m.reason, m.text);
        close(session);
        service_wait_sessions(b->s, 1);
}

void broken_assert_refused(struct broken *b, const char *words) {
        uint64_t id, ticket = raw_send_memory(&b->c, b->fd);

        refused(raw_map(&b->c, b->key, b->domain, BROKEN_IOVA + 0x10000, b->memory, BROKEN_PAGE), "Map", words);
        refused(raw_unmap(&b->c, NULL, b->domain, BROKEN_IOVA, (uint64_t)2 * BROKEN_PAGE), "Unmap", words);
        refused(raw_create_domain(&b->c, NULL, &id), "CreateDomain", words);
        refused(raw_destroy_domain(&b->c, NULL, b->domain), "DestroyDomain", words);
        refused(raw_register_ticket(&b->c, NULL, ticket, (uint64_t)2 * BROKEN_PAGE, &id), "RegisterMemory", words);
        refused(raw_unmap_all(&b->c, NULL, b->domain), "UnmapAll", words);
        refused(raw_detach(&b->c, NULL, b->attachment), "DetachDevice", words);
        refused(raw_attach(&b->c, NULL, b->domain, "edu1", &id), "AttachDevice", words);
        assert_no_session(b, words);
        assert_owns(b, 1, 1);
        broken_assert_dma(b);
}

void broken_assert_works(struct broken *b) {
        uint64_t id;

        raw_must(raw_map(&b->c, b->key, b->domain, BROKEN_IOVA + 0x10000, b->memory, BROKEN_PAGE));
        assert_owns(b, 1, 2);
        b->key[0]++;
        raw_must(raw_create_domain(&b->c, NULL, &id));
        raw_must(raw_destroy_domain(&b->c, NULL, id));
        raw_must(raw_unmap(&b->c, NULL, b->domain, BROKEN_IOVA + 0x10000, BROKEN_PAGE));
        assert_owns(b, 1, 1);
        broken_assert_dma(b);
        service_assert_ledger(b->s);
}

/* ---- a fault that goes again ---- */

static unsigned status_is(struct broken *b, const char *state) {
        Iommud__V1__GetStatusResponse *status = service_status(b->s);
        bool same = strcmp(status->state, state) == 0;

        iommud__v1__get_status_response__free_unpacked(status, NULL);
        return same;
}

/* A session ends as always; only its rows stay until they can be deleted. */
static void client_leaves(struct broken *b, enum ledger_fault fault, unsigned files, unsigned after) {
        struct raw_client other;
        uint64_t domain, attachment;

        raw_open(&other, b->s->client);
        raw_must(raw_create_domain(&other, NULL, &domain));
        raw_must(raw_attach(&other, NULL, domain, "edu1", &attachment));
        faults_ledger(b->f, fault, files, after);
        raw_close(&other);
        service_wait_sessions(b->s, 1);
        assert_int_equal(service_used(b->s, "me", IOMMUD_RESOURCE_DEVICES), 1);
        faults_clear(b->f);
        wait_for(raw_attach(&b->c, NULL, b->domain, "edu1", &attachment) == 0);
        raw_must(raw_detach(&b->c, NULL, attachment));
        service_assert_ledger(b->s);
}

/* The next service finds the fault: sessions wait for its end, which they survive. */
static void service_restarts(struct broken *b, enum ledger_fault fault, unsigned files) {
        uint64_t until;
        int code;

        faults_ledger(b->f, fault, files, 0);
        service_kill(b->s);
        broken_assert_dma(b);
        if (service_try_launch(b->s, &code)) {
                /* longer than it waits for holders (recover_seconds = 3) */
                for (until = harness_ms() + 4000; harness_ms() < until; harness_pause())
                        ;
                assert_int_equal(service_sessions(b->s), 1);
                broken_assert_dma(b);
                faults_clear(b->f);
        } else {                                /* it does not start, and says that another try may help */
                assert_int_equal(code, EXIT_FAILURE);
                broken_assert_dma(b);
                faults_clear(b->f);
                service_launch(b->s);
        }
        service_wait_recovered(b->s);
        raw_reconnect(&b->c);
        broken_assert_works(b);
}

void broken_passes(enum ledger_fault fault, unsigned files, unsigned after, const char *words) {
        struct broken b;

        broken_begin(&b);
        faults_ledger(b.f, fault, files, after);
        broken_assert_refused(&b, words);
        broken_assert_refused(&b, words);
        assert_true(atomic_load(&b.f->faults) > 0);
        faults_clear(b.f);
        broken_assert_works(&b);
        assert_true(status_is(&b, "serving"));
        client_leaves(&b, fault, files, after);
        service_restarts(&b, fault, files);
        print_message("%u faults\n", atomic_load(&b.f->faults));
        broken_end(&b);
}

/* ---- files ---- */

static const char *const ledger_files[4] = { "config.db", "config.db-wal", "state.db", "state.db-wal" };

static uint8_t *read_whole(const struct service *s, const char *name, size_t *ret_size) {
        uint8_t *data = malloc(16U << 20);
        char path[128];
        FILE *f;

        (void)snprintf(path, sizeof path, "%s/%s", s->state, name);
        f = fopen(path, "re");
        assert_non_null(data);
        *ret_size = f ? fread(data, 1, 16U << 20, f) : 0;
        if (f)
                (void)fclose(f);
        return data;
}

void ledger_copy_take(const struct service *s, struct ledger_copy *ret) {
        for (size_t i = 0; i < ARRAY_SIZE(ledger_files); i++)
                ret->data[i] = read_whole(s, ledger_files[i], &ret->size[i]);
}

void ledger_copy_assert_same(const struct service *s, struct ledger_copy *c) {
        for (size_t i = 0; i < ARRAY_SIZE(ledger_files); i++) {
                size_t size;
                _cleanup_free_ uint8_t *now = read_whole(s, ledger_files[i], &size);

                if (size != c->size[i] || memcmp(now, c->data[i], size) != 0)
                        fail_msg("%s was written", ledger_files[i]);
                free(c->data[i]);
        }
}

/* ---- faults that last ---- */

static sqlite3 *open_file(const struct service *s, const char *file) {
        char path[128];
        sqlite3 *db;

        (void)snprintf(path, sizeof path, "%s/%s", s->state, file);
        assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
        (void)sqlite3_busy_timeout(db, 5000);
        /* a connection that has read nothing yet does not know of the WAL */
        (void)sqlite3_exec(db, "PRAGMA user_version", NULL, NULL, NULL);
        if (sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL) != SQLITE_OK)
                fail_msg("%s: %s", path, sqlite3_errmsg(db));
        return db;
}

void ledger_sql(const struct service *s, const char *file, const char *sql) {
        sqlite3 *db = open_file(s, file);

        if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
                fail_msg("%s: %s", sql, sqlite3_errmsg(db));
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

int64_t ledger_number(const struct service *s, const char *file, const char *sql) {
        sqlite3 *db = open_file(s, file);
        sqlite3_stmt *q;
        int64_t n;

        if (sqlite3_prepare_v2(db, sql, -1, &q, NULL) != SQLITE_OK)
                fail_msg("%s: %s", sql, sqlite3_errmsg(db));
        assert_int_equal(sqlite3_step(q), SQLITE_ROW);
        n = sqlite3_column_int64(q, 0);
        sqlite3_finalize(q);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
        return n;
}

void broken_assert_no_start(struct broken *b, const char *words) {
        struct ledger_copy before;
        int code = 0;

        ledger_copy_take(b->s, &before);
        broken_assert_dma(b);
        if (service_try_launch(b->s, &code))
                fail_msg("it starts, instead of saying '%s'", words);
        assert_int_equal(code, EX_DATAERR);
        if (!service_logged(b->s, words))
                fail_msg("its log does not say '%s'", words);
        ledger_copy_assert_same(b->s, &before);
        broken_assert_dma(b);
}

void broken_assert_restored(struct broken *b) {
        service_launch(b->s);
        service_wait_recovered(b->s);
        assert_int_equal(service_sessions(b->s), 1);
        raw_reconnect(&b->c);
        broken_assert_works(b);
}
