/* SPDX-License-Identifier: Apache-2.0 */
#include "ledger.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl.h"
#include "json.h"
#include "table.h"
#include "util/cleanup.h"

#define OPTION_OFFLINE 256

static int print_result(const struct ctl *c, const Iommud__V1__CheckLedgerResponse *a, bool offline) {
        static const char *const titles[] = { "INVARIANT", "VIOLATION" };
        struct libscols_table *t;

        if (c->json) {
                json_print(&a->base);
                return a->n_violations > 0 ? CTL_VIOLATIONS : CTL_OK;
        }
        t = table_new(titles, ARRAY_SIZE(titles));
        for (size_t i = 0; i < a->n_violations; i++)
                table_row(t, (const char *const[]){ a->violations[i]->invariant, a->violations[i]->text });
        table_print(t, NULL);
        printf("%s%zu violation%s in %" PRIu64 " rows", a->n_violations > 0 ? "\n" : "", a->n_violations,
               a->n_violations == 1 ? "" : "s", a->checked_rows);
        if (!offline)
                printf(" and %" PRIu64 " holders", a->checked_holders);
        putchar('\n');
        return a->n_violations > 0 ? CTL_VIOLATIONS : CTL_OK;
}

static void add_violation(const struct ledger_violation *v, void *userdata) {
        Iommud__V1__CheckLedgerResponse *a = userdata;
        Iommud__V1__Violation *copy = malloc(sizeof *copy), **more;

        more = reallocarray(a->violations, a->n_violations + 1, sizeof(*more));
        if (more)
                a->violations = more;
        if (!copy || !more) {
                ctl_error("out of memory");
                exit(CTL_FAILED);
        }
        iommud__v1__violation__init(copy);
        copy->invariant = strdup(v->invariant);
        copy->text = strdup(v->text);
        a->violations[a->n_violations++] = copy;
}

/* Without a service: the files themselves, shown as the service would. */
static int check_offline(const struct ctl *c, const char *directory) {
        Iommud__V1__CheckLedgerResponse *a = calloc(1, sizeof *a);
        struct refusal r;
        int code;

        if (!a) {
                ctl_error("out of memory");
                return CTL_FAILED;
        }
        iommud__v1__check_ledger_response__init(a);
        if (ledger_check_offline(directory, add_violation, a, &a->checked_rows, &r) < 0) {
                ctl_error("%s (%s)", r.text, refusal_reason_name(r.reason));
                code = CTL_FAILED;
        } else
                code = print_result(c, a, true);
        iommud__v1__check_ledger_response__free_unpacked(a, NULL);
        return code;
}

static bool set_directory(void *userdata, int option, const char *value) {
        (void)option;
        *(const char **)userdata = value;
        return true;
}

static int run_check(struct ctl *c, int argc, char **argv) {
        static const struct option options[] = { { "offline", required_argument, NULL, OPTION_OFFLINE }, { 0 } };
        const Iommud__V1__CheckLedgerRequest request = IOMMUD__V1__CHECK_LEDGER_REQUEST__INIT;
        _cleanup_message_ ProtobufCMessage *answer = NULL;
        const char *directory = NULL;
        int n, code = ctl_arguments(c, argc, argv, options, set_directory, &directory, &n, &argv);

        if (code < 0 && n > 0)
                return ctl_usage(c, "'%s' is too much", argv[0]);
        if (code >= 0)
                return code;
        if (directory)
                return check_offline(c, directory);
        code = ctl_call(c, "CheckLedger", &request.base, &iommud__v1__check_ledger_response__descriptor, &answer);
        return answer ? print_result(c, (const Iommud__V1__CheckLedgerResponse *)answer, false) : code;
}

const struct verb ledger_verbs[] = {
        { "ledger", "check", "[--offline=DIRECTORY]",
          "look for what must never be in the ledger, and compare it with the holders",
          "  --offline=DIRECTORY    check the files of a service that is not running\n", run_check },
        { 0 },
};
