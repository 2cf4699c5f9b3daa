/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

struct broker;

/*
 * What happens by itself, in a thread of its own so that nobody who serves a client waits for it: settled operations and
 * audit lines reach the disk, deadlines pass, orphans become free.
 */
int housekeeping_start(struct broker *b);
void housekeeping_stop(struct broker *b);
