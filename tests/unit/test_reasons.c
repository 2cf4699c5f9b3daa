/* SPDX-License-Identifier: Apache-2.0 */
/* link: sdk proto util */
/*
 * Reasons and resources are written down three times: in the service, on the wire and in the public header. Names and
 * numbers agree, and none of the three knows one that the others do not.
 */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "iommud.pb-c.h"
#include "iommud/iommud.h"
#include "util/cleanup.h"
#include "util/refusal.h"

struct entry {
        char name[64];
        int number;
};

struct list {
        struct entry entries[128];
        size_t n;
};

static void add(struct list *l, const char *name, size_t n, int number) {
        struct entry *e = &l->entries[l->n++];

        assert_true(l->n <= ARRAY_SIZE(l->entries));
        assert_true(n < sizeof e->name);
        memcpy(e->name, name, n);
        e->name[n] = '\0';
        e->number = number;
}

/* The text of the public header, as it was when this file was compiled. */
__asm__(".section .rodata\n"
        ".global sdk_header_text\n"
        "sdk_header_text: .incbin \"sdk/include/iommud/iommud.h\"\n"
        ".byte 0\n"
        ".previous\n");
extern const char sdk_header_text[];

/* Enumerators of the header that begin with a prefix, without it. 0 is left out: it means "none" everywhere. */
static struct list of_header(const char *prefix) {
        struct list l = { .n = 0 };

        for (const char *p = sdk_header_text; (p = strstr(p, prefix)); p++) {
                const char *name = p + strlen(prefix);
                size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");
                int number;

                if (n > 0 && sscanf(name + n, " = %d", &number) == 1 && number != 0)
                        add(&l, name, n, number);
        }
        return l;
}

static struct list of_proto(const ProtobufCEnumDescriptor *d, const char *prefix) {
        struct list l = { .n = 0 };

        for (unsigned i = 0; i < d->n_values; i++) {
                const char *name = d->values[i].name;

                assert_int_equal(strncmp(name, prefix, strlen(prefix)), 0);
                name += strlen(prefix);
                if (d->values[i].value != 0)
                        add(&l, name, strlen(name), d->values[i].value);
        }
        return l;
}

static int by_number(const void *a, const void *b) {
        return ((const struct entry *)a)->number - ((const struct entry *)b)->number;
}

static void assert_same(struct list a, struct list b) {
        assert_int_equal(a.n, b.n);
        qsort(a.entries, a.n, sizeof a.entries[0], by_number);
        qsort(b.entries, b.n, sizeof b.entries[0], by_number);
        for (size_t i = 0; i < a.n; i++) {
                assert_string_equal(a.entries[i].name, b.entries[i].name);
                assert_int_equal(a.entries[i].number, b.entries[i].number);
        }
}

static struct list reasons_of_service(void) {
        struct list l = { .n = 0 };

#define X(name, number, status) add(&l, #name, strlen(#name), number);
        REFUSAL_REASONS(X)
#undef X
        return l;
}

static void test_reasons(void **state) {
        struct list service = reasons_of_service();

        (void)state;
        assert_true(service.n > 40);
        assert_same(service, of_proto(&iommud__v1__reason__descriptor, "REASON_"));
        assert_same(service, of_header("IOMMUD_REASON_"));
}

static void test_reason_names(void **state) {
        struct list service = reasons_of_service();

        (void)state;
        for (size_t i = 0; i < service.n; i++) {
                int number = service.entries[i].number;

                assert_string_equal(refusal_reason_name((enum refusal_reason)number), service.entries[i].name);
                assert_string_equal(iommud_reason_name((enum iommud_reason)number), service.entries[i].name);
        }
        assert_string_equal(iommud_reason_name(IOMMUD_REASON_UNSPECIFIED), "UNSPECIFIED");
        assert_string_equal(iommud_reason_name((enum iommud_reason)4711), "UNSPECIFIED");
}

/* The service names its resources for people: "locked-bytes". */
static struct list resources_of_service(void) {
        struct list l = { .n = 0 };

        for (int i = 1; i < _RESOURCE_N; i++) {
                char name[64];

                snprintf(name, sizeof name, "%s", resource_name((enum resource)i));
                for (char *c = name; *c; c++)
                        *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
                add(&l, name, strlen(name), i);
        }
        return l;
}

static void test_resources(void **state) {
        struct list service = resources_of_service();

        (void)state;
        assert_same(service, of_proto(&iommud__v1__resource__descriptor, "RESOURCE_"));
        assert_same(service, of_header("IOMMUD_RESOURCE_"));
}

/* Access as the header writes it is what goes over the wire. */
static void test_access(void **state) {
        (void)state;
        assert_int_equal(IOMMUD_READ, IOMMUD__V1__ACCESS__ACCESS_READ);
        assert_int_equal(IOMMUD_WRITE, IOMMUD__V1__ACCESS__ACCESS_WRITE);
        assert_int_equal(IOMMUD_READ_WRITE, IOMMUD__V1__ACCESS__ACCESS_READ_WRITE);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_reasons),
                cmocka_unit_test(test_reason_names),
                cmocka_unit_test(test_resources),
                cmocka_unit_test(test_access),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
