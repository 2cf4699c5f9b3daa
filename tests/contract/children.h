/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

/* ThreadSanitizer takes the start of a revoker for a fork of a process with threads, and gives up. */
#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif
#ifdef __SANITIZE_THREAD__
#define WHY_NO_REVOKERS "ThreadSanitizer cannot follow a process that shares memory"
#else
#define WHY_NO_REVOKERS NULL
#endif

static const char *why_not;             /* what the runner shows */

static inline void cannot_run_here(void **state) {
        (void)state;
        print_message("skipped: %s\n", why_not);
        skip();
}

/* The result of a program of which nothing can run here; the runner counts and shows it. */
static inline int skip_all(const char *why) {
        const struct CMUnitTest tests[] = { cmocka_unit_test(cannot_run_here) };

        why_not = why;
        return cmocka_run_group_tests(tests, NULL, NULL);
}

/* A child of a process, other than the one named; 0 if there is none. Include after cmocka.h. */
static inline pid_t child_of(pid_t parent, pid_t other_than) {
        DIR *d = opendir("/proc");
        pid_t found = 0;

        assert_non_null(d);
        for (struct dirent *e; (e = readdir(d));) {
                char path[64], line[256];
                long ppid = 0;
                FILE *f;

                if (e->d_name[0] < '1' || e->d_name[0] > '9')
                        continue;
                (void)snprintf(path, sizeof path, "/proc/%.20s/status", e->d_name);
                f = fopen(path, "re");
                while (f && fgets(line, sizeof line, f))
                        if (sscanf(line, "PPid: %ld", &ppid) == 1)
                                break;
                if (f)
                        (void)fclose(f);
                if (ppid == parent && atoi(e->d_name) != other_than)
                        found = (pid_t)atoi(e->d_name);
        }
        closedir(d);
        return found;
}
