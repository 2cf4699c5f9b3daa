/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "backend/backend_ops.h"

/*
 * The windows of a container, as the wrappers of backend.h need them. Private to backend/.
 */

/* Does the container have windows of its own? */
static inline bool windows_own(const struct container *c) {
        return c->info.windows.max_windows > 0;
}

static inline struct iova_range window_range(const struct backend_window *w) {
        return (struct iova_range){ w->start, w->start + (w->size - 1) };
}

/* A new container has its initial window. */
void windows_init(struct container *c);

/* The window that has this address, or NULL. */
const struct backend_window *windows_at(const struct container *c, uint64_t iova);

/* The window that has the whole range. NULL after refusing NO_WINDOW, with the nearest places where it would fit. */
const struct backend_window *windows_find(const struct container *c, struct iova_range range, struct refusal *r);
