/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "model.h"

/* One complaint more, to be filled. */
struct complaint *complain(struct verdict *v, enum iommud_reason reason);

uint32_t n_cells(const struct model *m);
uint64_t cell_iova(const struct model *m, uint32_t cell);

bool is_multiple(uint64_t value, uint64_t of);
uint64_t round_down(uint64_t value, uint64_t to);
uint64_t round_up(uint64_t value, uint64_t to);

/* The cell at that address, which must be in one of the pieces that the cells stand for. */
uint32_t cell_at(const struct model *m, uint64_t iova);
/* Is all of [iova, iova + length) in one of them? */
bool in_piece(const struct model *m, uint64_t iova, uint64_t length);

/* What devices see because of a mapping: [first, end). */
uint64_t seen_first(const struct model_mapping *x);
uint64_t seen_end(const struct model_mapping *x);
bool is_partial(const struct model_mapping *x);

/* ---- windows that are the IOMMU's own (model_window.c) ---- */

/* What a mapping must fulfil beside what it must anywhere; [first, last] is what devices would see of it. */
void judge_window(const struct model *m, const struct model_domain *d, uint64_t first, uint64_t last, struct verdict *v);
void judge_in_window(const struct model *m, const struct model_domain *d, const struct op_element *e, struct verdict *v);
/* Of the windows of a domain, in one container. */
uint64_t window_tables(const struct model *m, const struct model_domain *d);
void play_window(struct model *m, const struct op *op, struct verdict *v);
void play_unwindow(struct model *m, const struct op *op, struct verdict *v);

/* Puts a mapping into its cells, which are free. False: no room for another one in the arrays. */
bool mapping_put(struct model *m, struct model_domain *d, const struct model_mapping *x);
void mapping_drop(struct model *m, struct model_domain *d, struct model_mapping *x);
/* The tables that a mapping touches. */
void touch_tables(const struct model *m, struct model_domain *d, const struct model_mapping *x);

/* Of the two states of a client's domain: what has grown beyond a quota of the tenant, a cap of the host, the IOMMU's limit. */
void complain_of_limits(const struct model *before, const struct model *after, uint32_t client, uint32_t domain,
                        struct verdict *v);

void play_map(struct model *m, const struct op *op, struct verdict *v);
void play_unmap(struct model *m, const struct op *op, struct verdict *v);
void play_unmap_all(struct model *m, const struct op *op, struct verdict *v);
void play_sync(struct model *m, const struct op *op, struct verdict *v);
/* What waits in the domain is gone; returns its bytes. */
uint64_t flush(struct model *m, struct model_domain *d);
