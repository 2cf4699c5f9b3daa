/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "transport/transport.h"

/* Listening sockets: what they must be, and what they refuse. */

/* -EPROTOTYPE unless fd is a listening Unix socket of the type that the role needs; makes it non-blocking. */
int socket_check_listening(int fd, enum listener_role role);

enum peer_socket socket_peer_kind(enum listener_role role);

/* Tells the kernel that nobody can send descriptors to this socket, a listening one included: closing what a hostile
 * client queued can block. Does nothing on a kernel without the option: transport_degraded(). */
void socket_refuse_descriptors(int fd);
