/* SPDX-License-Identifier: Apache-2.0 */
/* link: brokenledger testlib sdk proto util */
/*
 * What was committed is not in the WAL any more. sqlite would take what is left and say nothing: rows of what is mapped would be
 * missing, and the service would unmap it. It does not start instead.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fault/broken_ledger.h"

static void wal_path(const struct service *s, char path[128]) {
        (void)snprintf(path, 128, "%s/state.db-wal", s->state);
}

static uint8_t *read_wal(const struct service *s, size_t *ret_size) {
        uint8_t *data = malloc(16U << 20);
        char path[128];
        ssize_t n;
        int fd;

        wal_path(s, path);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        n = read(fd, data, 16U << 20);
        assert_true(n > 8192);
        close(fd);
        *ret_size = (size_t)n;
        return data;
}

static void write_wal(const struct service *s, const uint8_t *data, size_t size) {
        char path[128];
        int fd;

        wal_path(s, path);
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, data, size), size);
        close(fd);
}

/* tear(): makes of the WAL what the test is about; returns its size then. */
static void torn(size_t (*tear)(uint8_t *data, size_t size)) {
        struct broken b;
        uint8_t *whole, *data;
        size_t size, kept;

        broken_begin(&b);
        service_kill(b.s);
        whole = read_wal(b.s, &size);
        data = read_wal(b.s, &size);
        kept = tear(data, size);
        write_wal(b.s, data, kept);
        broken_assert_no_start(&b, "state.db-wal is torn");
        write_wal(b.s, whole, size);            /* repaired from a copy, all goes on */
        broken_assert_restored(&b);
        broken_end(&b);
        free(whole);
        free(data);
}

static size_t cut(uint8_t *data, size_t size) {
        (void)data;
        return size / 2;
}

static size_t cut_all(uint8_t *data, size_t size) {
        (void)data, (void)size;
        return 0;
}

static size_t flip_one_bit(uint8_t *data, size_t size) {
        data[size / 3] ^= 0x10;
        return size;
}

static void test_its_second_half_is_missing(void **state) {
        (void)state;
        torn(cut);
}

static void test_all_of_it_is_missing(void **state) {
        (void)state;
        torn(cut_all);
}

static void test_one_bit_of_it_is_wrong(void **state) {
        (void)state;
        torn(flip_one_bit);
}

/* A commit that was being written when the service was killed is no damage: it is not there, and nobody was told that it was. */
static void test_half_a_commit_at_its_end(void **state) {
        struct broken b;
        uint8_t *data;
        size_t size;

        (void)state;
        broken_begin(&b);
        service_kill(b.s);
        data = read_wal(b.s, &size);
        data = realloc(data, size + 3000);
        for (size_t i = 0; i < 3000; i++)
                data[size + i] = (uint8_t)(i * 31);
        write_wal(b.s, data, size + 3000);
        free(data);
        broken_assert_restored(&b);
        broken_end(&b);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_its_second_half_is_missing, harness_teardown),
                cmocka_unit_test_teardown(test_all_of_it_is_missing, harness_teardown),
                cmocka_unit_test_teardown(test_one_bit_of_it_is_wrong, harness_teardown),
                cmocka_unit_test_teardown(test_half_a_commit_at_its_end, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
