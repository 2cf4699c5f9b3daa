/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker proto util testlib */
/* Scratch memory, printable text, pages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../lib/fakes/fake_core.c"
#include "dispatch/arena.h"
#include "dispatch/page.h"
#include "dispatch/text.h"

static void test_arena(void **state) {
        struct arena a;
        char *p[64];

        (void)state;
        assert_int_equal(arena_init(&a, 1024, 200 * 1024), 0);
        for (int round = 0; round < 3; round++) {
                for (size_t i = 0; i < ARRAY_SIZE(p); i++) {
                        p[i] = arena_alloc(&a, 3000 + i);
                        assert_non_null(p[i]);
                        assert_int_equal((uintptr_t)p[i] % 16, 0);
                        assert_int_equal(arena_size_of(p[i]), 3000 + i);
                        memset(p[i], (int)i, 3000 + i);
                }
                for (size_t i = 0; i < ARRAY_SIZE(p); i++)
                        for (size_t at = 0; at < 3000 + i; at++)
                                assert_int_equal(p[i][at], i);
                assert_null(arena_alloc(&a, 30000));    /* beyond the limit */
                assert_non_null(arena_alloc(&a, 100));
                arena_reset(&a);
        }
        p[0] = arena_alloc(&a, 0);
        p[1] = arena_alloc(&a, 0);
        assert_true(p[0] && p[1] && p[0] != p[1]);
        assert_null(arena_alloc(&a, SIZE_MAX));
        assert_null(arena_alloc(&a, SIZE_MAX - 20));
        assert_null(arena_zalloc(&a, SIZE_MAX / 2, 3));
        p[0] = arena_zalloc(&a, 10, 10);
        for (size_t i = 0; i < 100; i++)
                assert_int_equal(p[0][i], 0);
        arena_clear(&a);
        arena_clear(&a);
}

/* What fits the first block costs no allocation: the first block's addresses come back after a reset. */
static void test_arena_reuses_its_first_block(void **state) {
        struct arena a;
        void *first;

        (void)state;
        assert_int_equal(arena_init(&a, 4096, 0), 0);
        first = arena_alloc(&a, 4000);
        assert_non_null(first);
        assert_null(arena_alloc(&a, 100));      /* limit 0: nothing beyond */
        arena_reset(&a);
        assert_ptr_equal(arena_alloc(&a, 10), first);
        arena_clear(&a);
}

static void test_printable(void **state) {
        static const char *const good[] = { "", "vm one", "pl\xc3\xa4tte", "\xe2\x82\xac", "\xf0\x9f\x90\x8d", "~",
                                            "\xc2\xa0", "\xef\xbf\xbd", "\xf4\x8f\xbf\xbf" };
        static const char *const bad[] = {
                "\n", "a\x1b[2J", "\x7f", "\xc2\x85",                   /* controls, C1 among them */
                "\xe2\x80\xa8", "\xe2\x80\xae", "\xe2\x81\xa6",         /* line separator, direction overrides */
                "\xff", "\x80", "\xc3", "\xc3(", "\xe2\x82", "\xf0\x9f\x90",    /* no UTF-8, or cut */
                "\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf",         /* overlong */
                "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80",     /* surrogate, beyond Unicode */
        };
        char to[16];

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
                if (!text_is_printable(good[i]))
                        fail_msg("good %zu", i);
                text_make_printable(good[i], to, sizeof to);
                assert_string_equal(to, good[i]);
        }
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                if (text_is_printable(bad[i]))
                        fail_msg("bad %zu", i);
                text_make_printable(bad[i], to, sizeof to);
                assert_true(text_is_printable(to));
                assert_true(to[0] != '\0');
        }
        text_make_printable("12345\xe2\x82\xac", to, 8);        /* no half character at the end */
        assert_string_equal(to, "12345");
        text_make_printable("12345\xe2\x82\xac", to, 9);
        assert_string_equal(to, "12345\xe2\x82\xac");
}

static void test_page_tokens(void **state) {
        char name[LEDGER_NAME_MAX], long_token[2 * LEDGER_NAME_MAX + 1];
        struct refusal r;
        struct arena a;
        uint64_t n;
        bool present;

        (void)state;
        assert_int_equal(arena_init(&a, 4096, 0), 0);
        assert_int_equal(page_size(0, 1000), 100);
        assert_int_equal(page_size(0, 50), 50);
        assert_int_equal(page_size(999, 1000), 999);
        assert_int_equal(page_size(UINT32_MAX, 1000), 1000);
        assert_int_equal(page_number(page_number_token(UINT64_MAX, &a), &n, &present, &r), 0);
        assert_true(present && n == UINT64_MAX);
        assert_int_equal(page_number(page_number_token(0, &a), &n, &present, &r), 0);
        assert_true(present && n == 0);
        assert_int_equal(page_number("", &n, &present, &r), 0);
        assert_false(present);
        assert_int_equal(page_number("12", &n, &present, &r), -1);
        assert_int_equal(r.reason, REFUSAL_BAD_MESSAGE);
        assert_int_equal(page_number("000000000000000g", &n, &present, &r), -1);
        assert_int_equal(page_number("00000000000000001", &n, &present, &r), -1);
        assert_int_equal(page_number("000000000000000000", &n, &present, &r), -1);
        assert_int_equal(page_name(page_name_token("0000:00:05.0", &a), name, &r), 0);
        assert_string_equal(name, "0000:00:05.0");
        assert_int_equal(page_name("", name, &r), 0);
        assert_string_equal(name, "");
        assert_int_equal(page_name("0", name, &r), -1);
        assert_int_equal(page_name("410042", name, &r), -1);    /* a NUL inside */
        memset(long_token, '4', sizeof long_token - 1);
        long_token[sizeof long_token - 1] = '\0';
        assert_int_equal(page_name(long_token, name, &r), -1);
        long_token[2 * (LEDGER_NAME_MAX - 1)] = '\0';
        assert_int_equal(page_name(long_token, name, &r), 0);
        assert_int_equal(strlen(name), LEDGER_NAME_MAX - 1);
        arena_clear(&a);
}

struct item {
        int number;
        char key[LEDGER_NAME_MAX];
};

/* Pages over a source in bad order, which loses and gains items between pages: each is seen once, in order. */
static void test_page_list(void **state) {
        char after[LEDGER_NAME_MAX] = "";
        struct refusal r;
        struct arena a;
        int seen = 0, pages = 0;

        (void)state;
        assert_int_equal(arena_init(&a, 65536, 0), 0);
        for (;;) {
                struct page_list p;
                char *token;

                page_list_init(&p, after, 7, sizeof(struct item), offsetof(struct item, key), &a);
                for (int i = 0; i < 20; i++) {
                        struct item item = { .number = i * 13 % 20 };

                        (void)snprintf(item.key, sizeof item.key, "k%02d", item.number);
                        page_list_offer(&p, &item);
                }
                assert_false(p.full);
                for (size_t i = 0; i < p.n; i++)
                        assert_int_equal(((struct item *)(void *)p.items[i])->number, seen++);
                token = page_list_token(&p);
                assert_non_null(token);
                pages++;
                if (token[0] == '\0')
                        break;
                assert_int_equal(page_name(token, after, &r), 0);
                arena_reset(&a);
        }
        assert_int_equal(seen, 20);
        assert_int_equal(pages, 3);
        arena_clear(&a);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_arena),     cmocka_unit_test(test_arena_reuses_its_first_block),
                cmocka_unit_test(test_printable), cmocka_unit_test(test_page_tokens),
                cmocka_unit_test(test_page_list),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
