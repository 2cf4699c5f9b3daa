/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "holder/protocol.h"

/*
 * Becoming the tenant's: cgroup, limits, identity. What the service manager says on the command line bounds what the
 * broker may ask for, so that a broker that was taken over cannot make itself a privileged process.
 */
struct setup_options {
        const char *cgroup_root;
        bool has_uid_range;             /* a uid must be taken, and be in it; its gid too, or be reconnect_group */
        uid_t uid_first, uid_last;
        bool has_reconnect_group;
        gid_t reconnect_group;          /* the one supplementary group: may connect to the broker's holder socket */
};

/* Puts the process into a cgroup below the root. The path: absolute, no ".." in it, leads through no symbolic link.
 * 0 or -errno. */
int setup_join_cgroup(const char *root, const char *path);

/* RLIMIT_MEMLOCK, RLIMIT_NOFILE, RLIMIT_CORE. What cannot be raised for want of privilege is logged. */
void setup_limits(const struct link_setup *s);

/* Changes to the uid and gid of *s, gives up every capability and the hope of new ones. 0 or -errno: -EPERM for an
 * identity that the options do not allow. */
int setup_identity(const struct setup_options *o, const struct link_setup *s);
