/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>

#include "core/change.h"
#include "core/requests.h"

/*
 * A partial unmap: which mappings a set of ranges touches, and how those that are not covered wholly are cut (DESIGN,
 * section 7). A chunked mapping is cut at the borders of its chunks, and its devices notice nothing at the rest; any
 * mapping at IOMMU page borders, if the caller consents to a moment without translation. Otherwise it is refused, with the
 * nearest possible borders. Session's lock held.
 */
struct cut {
        size_t gone;                    /* index in change->gone */
        struct iova_range range;        /* what goes of it, not all */
        size_t element;                 /* of the request */
};

struct cuts {
        enum split_policy policy;
        struct cut *cuts;               /* freed by the caller */
        size_t n, room;
};

/* Adds the mappings that fill range to what goes, and the parts of those that are not filled to cuts. element: of the
 * request. NOT_MAPPED, PARTIAL_UNMAP, IN_PROGRESS, UNSUPPORTED. */
int split_range(struct change *c, struct iova_range range, size_t element, struct cuts *cuts, struct refusal *r);

/* All ranges are there: what stays of the mappings that are cut becomes rests of the change. *ret_element: of a refusal. */
int split_make_rests(struct change *c, struct cuts *cuts, size_t *ret_element, struct refusal *r);
