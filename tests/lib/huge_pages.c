/* SPDX-License-Identifier: Apache-2.0 */
#include "huge_pages.h"

#include <stdio.h>
#include <sys/file.h>

#define POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"

/* Locked while it is read and written: others change it too. */
static FILE *open_pool(long *ret_pages) {
        FILE *f = fopen(POOL, "r+e");

        if (f && (flock(fileno(f), LOCK_EX) < 0 || fscanf(f, "%ld", ret_pages) != 1)) {
                (void)fclose(f);
                return NULL;
        }
        return f;
}

static void set(FILE *f, long pages) {
        rewind(f);
        (void)fprintf(f, "%ld\n", pages > 0 ? pages : 0);
        (void)fflush(f);
        rewind(f);
}

bool huge_pages_take(unsigned n) {
        long before = 0, now = 0;
        FILE *f = open_pool(&before);
        bool all;

        if (!f)
                return false;
        set(f, before + n);
        all = fscanf(f, "%ld", &now) == 1 && now >= before + n;
        if (!all)                       /* not as many: none, then */
                set(f, before);
        (void)fclose(f);
        return all;
}

void huge_pages_return(unsigned n) {
        long before;
        FILE *f = open_pool(&before);

        if (!f)
                return;
        set(f, before - n);
        (void)fclose(f);
}
