/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "model.h"

struct generator {
        struct model model;
        uint64_t random;
};

uint32_t below(struct generator *g, uint32_t n);
bool one_in(struct generator *g, uint32_t n);

/* ---- choices: false or NULL when there is nothing to choose ---- */

bool pick_domain(struct generator *g, struct op *op);
/* Mostly one in which it can be seen what happens. */
bool pick_busy_domain(struct generator *g, struct op *op, bool (*is_busy)(const struct generator *, const struct op *));
bool has_device(const struct generator *g, const struct op *op);
bool has_mappings(const struct generator *g, const struct op *op);
bool pick_memory(struct generator *g, uint32_t client, uint32_t *ret);
/* A mapping of the domain that its client still has. */
const struct model_mapping *pick_mapping(struct generator *g, const struct op *op);

/* ---- operations (generate_map.c) ---- */

bool make_map(struct generator *g, struct op *op);
bool make_unmap(struct generator *g, struct op *op);
