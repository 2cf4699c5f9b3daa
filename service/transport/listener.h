/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "transport/transport.h"

/*
 * The listening sockets and the one thread that accepts, asks the kernel who it is, and watches gRPC connections for
 * their end: gRPC itself tells nobody when a peer hangs up.
 */
struct listener;
struct connection;

int listener_new(struct transport *t, struct listener **ret);
int listener_start(struct listener *l);
/* Takes fd in every case. */
int listener_add(struct listener *l, int fd, enum listener_role role, const char *tenant);
void listener_remove_tenant(struct listener *l, const char *tenant);
void listener_remove_all(struct listener *l);
/* Any thread: the connection's server is down. Takes a reference until the thread has let go. */
void listener_release(struct listener *l, struct connection *c);
/* Joins the thread; nothing is watched any more. NULL is fine. */
struct listener *listener_free(struct listener *l);
