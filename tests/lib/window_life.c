/* SPDX-License-Identifier: Apache-2.0 */
#include "window_life.h"

#include <stdio.h>

#define WINDOW UINT64_C(0x20000000)

static bool worked(struct window_life *l, const char *what, int result) {
        if (result >= 0)
                return true;
        (void)snprintf(l->text, sizeof l->text, "%s: %s", what, iommud_last_error());
        l->error = result;
        atomic_store(&l->failed, true);
        return false;
}

/* The id of the one window that there must be. */
static bool find_default(struct window_life *l, uint64_t *ret) {
        struct iommud_window *windows;
        size_t n;

        if (!worked(l, "query", iommud_window_query(l->job->domain, &windows, &n, NULL)))
                return false;
        *ret = n == 1 && windows[0].is_default ? windows[0].id : 0;
        iommud_window_list_free(windows);
        return *ret != 0 || worked(l, "not just the default window", -1);
}

static bool one_round(struct window_life *l) {
        const struct iommud_window_options options = { .size = sizeof options, .length = WINDOW };
        const struct iommud_map_options anywhere = { .size = sizeof anywhere, .flags = IOMMUD_MAP_ANYWHERE };
        const struct iommud_map_entry entry = { .memory = l->job->memory, .length = PAGE, .access = IOMMUD_READ_WRITE };
        struct iommud_domain *d = l->job->domain;
        struct iommud_window made;
        uint64_t first;

        if (!find_default(l, &first) ||
            !worked(l, "map", iommud_map(d, JOB_IOVA, l->job->memory, 0, PAGE, IOMMUD_READ)) ||
            !worked(l, "remove the default one", iommud_window_remove(d, first, 1)) ||
            !worked(l, "create", iommud_window_create(d, &options, &made)))
                return false;
        for (int i = 0; i < 3; i++)
                if (!worked(l, "map anywhere", iommud_map_with(d, &entry, 1, &anywhere, NULL)))
                        return false;
        if (atomic_load(&l->rounds) % 2 && !worked(l, "remove", iommud_window_remove(d, made.id, 1)))
                return false;
        return worked(l, "reset", iommud_window_reset(d));
}

static void *live(void *arg) {
        struct window_life *l = arg;

        while (!atomic_load(&l->stop) && one_round(l))
                atomic_fetch_add(&l->rounds, 1);
        return NULL;
}

void window_life_start(struct window_life *l, struct job *job) {
        *l = (struct window_life){ .job = job };
        assert_int_equal(pthread_create(&l->thread, NULL, live, l), 0);
}

void window_life_stop(struct window_life *l) {
        atomic_store(&l->stop, true);
        pthread_join(l->thread, NULL);
}
