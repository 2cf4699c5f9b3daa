/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/backend_ops.h"

const struct backend_ops *backend_select(enum backend_kind kind) {
        switch (kind) {
        case BACKEND_SOFT:
                return &soft_ops;
        case BACKEND_VFIO_TYPE1:
                return &vfio_type1_ops;
        case BACKEND_VFIO_SPAPR:
                return &vfio_spapr_ops;
        default:
                return NULL;
        }
}
