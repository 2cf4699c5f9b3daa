/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "op.h"

/* Operations to be played, with the seed that the world is made of. */
#define LIST_MAX 1000

struct list {
        uint64_t seed;
        size_t n;
        struct op ops[LIST_MAX];
};

void list_print(const struct list *l, FILE *to);
bool list_read(const char *file, struct list *ret);

/* How a list was played: at which operation it ended, and what was said. */
struct outcome {
        size_t index;
        uint64_t played, refused, translations;
        char why[2000];
};

/* From what the player wrote; loud: what was not understood is printed, too. */
void outcome_read(const char *file, int exit_code, bool loud, struct outcome *ret);

/* Leaves out of a list that fails what it fails without, as long as there is time. */
void shrink(struct list *l, struct outcome *o, bool (*fails)(const struct list *l, struct outcome *ret), unsigned seconds);
