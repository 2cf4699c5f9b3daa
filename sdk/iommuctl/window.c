/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "ctl.h"
#include "json.h"
#include "table.h"
#include "util/cleanup.h"

/* A default window can be all of 64 bits, which are written as 0. */
static const char *size_of(const Iommud__V1__Window *w) {
        return w->size != 0 ? cell_size(w->size) : "2^64";
}

static void print_windows(const Iommud__V1__QueryWindowsResponse *q) {
        static const char *const titles[] = { ">WINDOW", ">FIRST",    ">LAST",  ">SIZE",  ">PAGE",   ">LEVELS",
                                              ">MAPPINGS", ">BYTES", ">QUOTA", ">TABLE", "DEFAULT", "STATE" };
        struct libscols_table *t = table_new(titles, ARRAY_SIZE(titles));

        for (size_t i = 0; i < q->n_windows; i++) {
                const Iommud__V1__Window *w = q->windows[i];

                table_row(t, (const char *const[]){
                                     cell_number(w->id), cell_address(w->start), cell_address(w->start + (w->size - 1)),
                                     size_of(w), w->page_shift < 64 ? cell_size(1ULL << w->page_shift) : "?",
                                     cell_number(w->levels), cell_number(w->mappings), cell_size(w->mapped_bytes),
                                     w->quota != 0 ? cell_size(w->quota) : "", cell_size(w->table_bytes),
                                     w->is_default ? "yes" : "no", w->state });
        }
        table_print(t, "no windows");
}

static void print_limits(const Iommud__V1__QueryWindowsResponse *q) {
        struct libscols_table *t = table_new(NULL, 2);

        table_pair(t, "can be created", "%" PRIu32, q->can_create);
        table_pair(t, "largest size", "%s", cell_size(q->largest));
        table_pair(t, "page sizes", "%s", cell_page_sizes(q->page_sizes));
        table_pair(t, "levels at most", "%" PRIu32, q->levels_max);
        for (size_t i = 0; i < q->n_free; i++)
                table_pair(t, i == 0 ? "free" : "", "0x%" PRIx64 "-0x%" PRIx64, q->free[i]->first, q->free[i]->last);
        table_print(t, NULL);
}

static int run_list(struct ctl *c, int argc, char **argv) {
        Iommud__V1__QueryWindowsRequest request = IOMMUD__V1__QUERY_WINDOWS_REQUEST__INIT;
        _cleanup_message_ ProtobufCMessage *answer = NULL;
        int code = ctl_plain_arguments(c, argc, argv, 1, &argv);

        if (code >= 0)
                return code;
        if (!ctl_domain_id(argv[0], &request.domain))
                return CTL_USAGE;
        code = ctl_call(c, "ListWindows", &request.base, &iommud__v1__query_windows_response__descriptor, &answer);
        if (!answer)
                return code;
        if (c->json) {
                json_print(answer);
                return CTL_OK;
        }
        print_windows((const Iommud__V1__QueryWindowsResponse *)answer);
        putchar('\n');
        print_limits((const Iommud__V1__QueryWindowsResponse *)answer);
        return CTL_OK;
}

const struct verb window_verbs[] = {
        { "window", "list", "DOMAIN", "apertures of a domain, and what more can be created", "", run_list },
        { 0 },
};
