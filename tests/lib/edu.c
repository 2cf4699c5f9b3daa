/* SPDX-License-Identifier: Apache-2.0 */
#include "edu.h"
#include "edu_order.h"

#include <errno.h>
#include <time.h>

enum { BAR0 = 0, CONFIG = 7 };
enum { CONFIG_COMMAND = 4, MEMORY = 2, BUS_MASTER = 4 };
enum { SOURCE = 0x80, DESTINATION = 0x88, COUNT = 0x90, COMMAND = 0x98 };
enum { START = 1, TO_MEMORY = 2 };

#define BUFFER 0x40000U

int edu_enable(struct iommud_attachment *a) {
        uint64_t command;
        int r = iommud_device_region_read(a, CONFIG, CONFIG_COMMAND, 2, &command);

        return r < 0 ? r : iommud_device_region_write(a, CONFIG, CONFIG_COMMAND, 2, command | MEMORY | BUS_MASTER);
}

static int is_swapped(struct iommud_attachment *a, bool *ret) {
        uint64_t identification;
        int r = iommud_device_region_read(a, BAR0, EDU_IDENTIFICATION_REGISTER, 4, &identification);

        if (r == 0)
                *ret = edu_is_swapped(identification);
        return r;
}

static int start_at(struct iommud_attachment *a, uint64_t iova, size_t buffer, size_t n, bool to_memory) {
        const uint64_t writes[][2] = { { SOURCE, to_memory ? BUFFER + buffer : iova },
                                       { DESTINATION, to_memory ? iova : BUFFER + buffer },
                                       { COUNT, n }, { COMMAND, START | (to_memory ? TO_MEMORY : 0) } };
        bool swapped;
        int r = is_swapped(a, &swapped);

        for (size_t i = 0; r == 0 && i < sizeof writes / sizeof writes[0]; i++)
                r = iommud_device_region_write(a, BAR0, writes[i][0], 8, edu_in_order(swapped, 8, writes[i][1]));
        return r;
}

int edu_start(struct iommud_attachment *a, uint64_t iova, size_t n, bool to_memory) {
        return start_at(a, iova, 0, n, to_memory);
}

int edu_wait(struct iommud_attachment *a) {
        static const struct timespec moment = { .tv_nsec = 200000 };
        bool swapped;
        int r = is_swapped(a, &swapped);

        for (unsigned i = 0; r == 0 && i < 50000; i++) {
                uint64_t command;

                r = iommud_device_region_read(a, BAR0, COMMAND, 8, &command);
                if (r == 0 && !(edu_in_order(swapped, 8, command) & START))
                        return 0;
                nanosleep(&moment, NULL);
        }
        return r < 0 ? r : -ETIMEDOUT;
}

int edu_transfer_at(struct iommud_attachment *a, uint64_t iova, size_t buffer, size_t n, bool to_memory) {
        int r = start_at(a, iova, buffer, n, to_memory);

        return r < 0 ? r : edu_wait(a);
}

int edu_transfer(struct iommud_attachment *a, uint64_t iova, size_t n, bool to_memory) {
        return edu_transfer_at(a, iova, 0, n, to_memory);
}
