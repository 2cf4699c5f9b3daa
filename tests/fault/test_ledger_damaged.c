/* SPDX-License-Identifier: Apache-2.0 */
/* link: brokenledger testlib sdk proto util */
/*
 * A page of the ledger is not what was written. Once sqlite says so nothing is written any more, not even at the end; everything
 * that would be is refused; what is mapped stays mapped, also when a service starts and finds it.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "fault/broken_ledger.h"

#define PAGE_OF_STATE 2048

/* Exchanges the first page of a table with what is given. */
static void exchange_page(const struct service *s, int64_t page, uint8_t bytes[PAGE_OF_STATE]) {
        uint8_t old[PAGE_OF_STATE];
        char path[128];
        int fd;

        (void)snprintf(path, sizeof path, "%s/state.db", s->state);
        fd = open(path, O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(pread(fd, old, sizeof old, (page - 1) * PAGE_OF_STATE), sizeof old);
        assert_int_equal(pwrite(fd, bytes, PAGE_OF_STATE, (page - 1) * PAGE_OF_STATE), PAGE_OF_STATE);
        memcpy(bytes, old, sizeof old);
        close(fd);
}

static int64_t root_of(const struct service *s, const char *table) {
        char sql[96];

        (void)snprintf(sql, sizeof sql, "SELECT rootpage FROM sqlite_schema WHERE name = '%s'", table);
        return ledger_number(s, "state.db", sql);
}

static void test_found_at_the_start(void **state) {
        uint8_t page[PAGE_OF_STATE];
        struct broken b;
        int64_t root;

        (void)state;
        broken_begin(&b);
        service_kill(b.s);
        memset(page, 0xa5, sizeof page);
        root = root_of(b.s, "mapping");
        exchange_page(b.s, root, page);
        broken_assert_no_start(&b, "The ledger (state.db) is damaged");
        exchange_page(b.s, root, page);
        broken_assert_restored(&b);
        broken_end(&b);
}

static void test_not_a_database_at_all(void **state) {
        uint8_t page[PAGE_OF_STATE];
        struct broken b;

        (void)state;
        broken_begin(&b);
        service_kill(b.s);
        (void)root_of(b.s, "mapping");          /* moves the WAL into the file */
        memset(page, 0xa5, sizeof page);
        exchange_page(b.s, 1, page);
        broken_assert_no_start(&b, "is not a ledger");
        exchange_page(b.s, 1, page);
        broken_assert_restored(&b);
        broken_end(&b);
}

static bool says_damaged(const struct broken *b) {
        Iommud__V1__GetStatusResponse *status = service_status(b->s);
        bool damaged = strcmp(status->state, "ledger damaged") == 0;

        iommud__v1__get_status_response__free_unpacked(status, NULL);
        return damaged;
}

/* Stops it; its exit status says why. */
static void stop(struct broken *b) {
        assert_int_equal(kill(b->s->pid, SIGTERM), 0);
        assert_int_equal(harness_wait(b->s->pid, 30000), EX_DATAERR);
        b->s->pid = -1;
}

static void test_found_while_it_runs(void **state) {
        struct ledger_copy before;
        uint8_t page[PAGE_OF_STATE];
        struct raw_client other;
        struct broken b;
        int64_t root;

        (void)state;
        broken_begin(&b);
        raw_open(&other, b.s->client);
        memset(page, 0xa5, sizeof page);
        root = root_of(b.s, "mapping");
        exchange_page(b.s, root, page);
        ledger_sql(b.s, "state.db", "UPDATE boot SET boot_id = boot_id");      /* what it remembers of the file is old now */
        assert_int_equal(raw_map(&b.c, NULL, b.domain, BROKEN_IOVA + 0x10000, b.memory, BROKEN_PAGE),
                         IOMMUD_REASON_LEDGER_UNAVAILABLE);
        assert_true(says_damaged(&b));
        ledger_copy_take(b.s, &before);
        raw_close(&other);              /* its session ends all the same */
        service_wait_sessions(b.s, 1);
        broken_assert_refused(&b, "is damaged");
        assert_true(service_logged(b.s, "The ledger (state.db) is damaged"));
        stop(&b);
        ledger_copy_assert_same(b.s, &before);
        broken_assert_dma(&b);
        exchange_page(b.s, root, page);
        broken_assert_restored(&b);
        broken_end(&b);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_found_at_the_start, harness_teardown),
                cmocka_unit_test_teardown(test_not_a_database_at_all, harness_teardown),
                cmocka_unit_test_teardown(test_found_while_it_runs, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
