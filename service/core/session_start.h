/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>

#include "holder/protocol.h"

struct broker;
struct session;

/* session_start() and session_refuse_connection() are in core/requests.h. */

/* The holder has dropped its privileges and closed its sandbox (LINK_HELLO in answer to LINK_SETUP): it gets the client's
 * connection, the row becomes live, the client its token. */
void session_holder_ready(struct session *s, const struct link_header *h, size_t size);

/* Refused connections go to a disposable process: whoever closes a session connection last may hang in it. */
struct discarder;
struct discarder *discarder_new(const char *holder_program);
struct discarder *discarder_free(struct discarder *d);
/* Takes the connection. */
void discarder_refuse(struct discarder *d, int connection, enum refusal_reason reason, const char *text);
