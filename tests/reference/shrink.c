/* SPDX-License-Identifier: Apache-2.0 */
#include "shrink.h"

#include <inttypes.h>
#include <string.h>

#include "lib/harness.h"

void list_print(const struct list *l, FILE *to) {
        fprintf(to, "seed %" PRIu64 "\n", l->seed);
        for (size_t i = 0; i < l->n; i++) {
                op_print(&l->ops[i], to);
                fputc('\n', to);
        }
}

bool list_read(const char *file, struct list *ret) {
        FILE *f = fopen(file, "re");
        char line[1024];
        bool good = f && fgets(line, sizeof line, f) && sscanf(line, "seed %" SCNu64, &ret->seed) == 1;

        ret->n = 0;
        while (good && fgets(line, sizeof line, f))
                good = ret->n < LIST_MAX && op_parse(line, &ret->ops[ret->n++]);
        if (f)
                (void)fclose(f);
        return good;
}

void outcome_read(const char *file, int exit_code, bool loud, struct outcome *ret) {
        FILE *f = fopen(file, "re");
        char line[1000], word[16];
        size_t used = 0;

        *ret = (struct outcome){ .index = LIST_MAX };
        while (f && fgets(line, sizeof line, f)) {
                struct outcome o;

                if (sscanf(line, "%15s %zu %" SCNu64 " %" SCNu64 " %" SCNu64, word, &o.index, &o.played, &o.refused,
                           &o.translations) == 5 &&
                    (strcmp(word, "agreed") == 0 || strcmp(word, "disagreed") == 0)) {
                        ret->index = o.index;
                        ret->played = o.played;
                        ret->refused = o.refused;
                        ret->translations = o.translations;
                        continue;
                }
                if (exit_code != 0 && used + strlen(line) < sizeof ret->why) {
                        memcpy(ret->why + used, line, strlen(line) + 1);
                        used += strlen(line);
                }
                if (loud && exit_code != 0)
                        fputs(line, stdout);
        }
        if (f)
                (void)fclose(f);
        fflush(stdout);
}

/* Keeps `less` if it fails as well. */
static bool try_less(struct list *l, const struct list *less, struct outcome *o,
                     bool (*fails)(const struct list *, struct outcome *)) {
        struct outcome outcome;

        if (less->n == l->n || !fails(less, &outcome))
                return false;
        *l = *less;
        *o = outcome;
        if (o->index < l->n)
                l->n = o->index;
        return true;
}

static bool try_without(struct list *l, size_t from, size_t n, struct outcome *o,
                        bool (*fails)(const struct list *, struct outcome *)) {
        static struct list less;

        less.seed = l->seed;
        less.n = l->n - n;
        memcpy(less.ops, l->ops, from * sizeof *l->ops);
        memcpy(less.ops + from, l->ops + from + n, (l->n - from - n) * sizeof *l->ops);
        return try_less(l, &less, o, fails);
}

static bool has_client(const struct op *op, uint32_t client) {
        return op->client == client && op->kind != OP_QUOTA && op->kind != OP_KILL_BROKER;
}

static bool has_kind(const struct op *op, uint32_t kind) {
        return op->kind == (enum op_kind)kind;
}

static void try_without_all(struct list *l, bool (*has)(const struct op *op, uint32_t what), uint32_t what, struct outcome *o,
                            bool (*fails)(const struct list *, struct outcome *)) {
        static struct list less;

        less.seed = l->seed;
        less.n = 0;
        for (size_t i = 0; i < l->n; i++)
                if (!has(&l->ops[i], what))
                        less.ops[less.n++] = l->ops[i];
        (void)try_less(l, &less, o, fails);
}

static bool try_without_element(struct list *l, size_t i, uint32_t element, struct outcome *o,
                                bool (*fails)(const struct list *, struct outcome *)) {
        struct op whole = l->ops[i];
        struct outcome outcome;

        l->ops[i].n--;
        memmove(&l->ops[i].e[element], &l->ops[i].e[element + 1], (whole.n - element - 1) * sizeof whole.e[0]);
        memset(&l->ops[i].e[whole.n - 1], 0, sizeof whole.e[0]);
        if (fails(l, &outcome)) {
                *o = outcome;
                return true;
        }
        l->ops[i] = whole;
        return false;
}

void shrink(struct list *l, struct outcome *o, bool (*fails)(const struct list *l, struct outcome *ret), unsigned seconds) {
        uint64_t until = harness_ms() + seconds * 1000U;

        if (o->index < l->n)
                l->n = o->index;
        for (uint32_t client = 0; client < 8 && harness_ms() < until; client++)
                try_without_all(l, has_client, client, o, fails);
        for (uint32_t kind = 0; kind < _OP_N && harness_ms() < until; kind++)
                try_without_all(l, has_kind, kind, o, fails);
        /* large pieces first, from the end, as what is last needs the least of what follows */
        for (size_t piece = l->n / 2 + 1; piece > 0 && harness_ms() < until; piece = piece == 1 ? 0 : (piece + 1) / 2)
                for (size_t end = l->n; end >= piece && end > 0 && harness_ms() < until;) {
                        size_t from = end - piece;

                        (void)try_without(l, from, piece, o, fails);
                        end = from < l->n ? from : l->n;
                }
        for (size_t i = 0; i < l->n; i++)
                for (uint32_t k = l->ops[i].n; k-- > 0 && l->ops[i].n > 1 && harness_ms() < until;)
                        (void)try_without_element(l, i, k, o, fails);
}
