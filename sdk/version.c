/* SPDX-License-Identifier: Apache-2.0 */
#include "iommud/iommud.h"

const char *iommud_version(void) {
        return IOMMUD_VERSION;
}
