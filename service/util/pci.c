/* SPDX-License-Identifier: Apache-2.0 */
#include "util/pci.h"

#include <stddef.h>

bool pci_address_is_valid(const char *name) {
        static const char shape[] = "xxxx:xx:xx.7";

        for (size_t i = 0; i < sizeof shape; i++) {
                char c = name[i];
                bool digit = c >= '0' && c <= '9';

                if (shape[i] == 'x' ? !digit && !(c >= 'a' && c <= 'f') :
                    shape[i] == '7' ? c < '0' || c > '7' : c != shape[i])
                        return false;
        }
        /* five bits of device number */
        return name[8] == '0' || name[8] == '1';
}
