/* SPDX-License-Identifier: Apache-2.0 */
#include "util/iova.h"

bool iova_range_make(uint64_t start, uint64_t length, struct iova_range *ret) {
        uint64_t last;

        if (length == 0 || ADD_OVERFLOW(start, length - 1, &last))
                return false;
        *ret = (struct iova_range){ .first = start, .last = last };
        return true;
}

size_t iova_ranges_intersect(const struct iova_range *a, size_t n_a, const struct iova_range *b, size_t n_b,
                             struct iova_range *ret) {
        size_t i = 0, j = 0, n = 0;

        while (i < n_a && j < n_b && n < IOVA_RANGES_MAX) {
                uint64_t first = a[i].first > b[j].first ? a[i].first : b[j].first;
                uint64_t last = a[i].last < b[j].last ? a[i].last : b[j].last;

                if (first <= last)
                        ret[n++] = (struct iova_range){ first, last };
                if (a[i].last < b[j].last)
                        i++;
                else
                        j++;
        }
        return n;
}
