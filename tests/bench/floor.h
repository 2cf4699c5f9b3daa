/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Serves empty answers to every unary call on a Unix socket until stdin closes: gRPC core alone, with the service's thread
 * model (threads on one completion queue) and its channel arguments. The floor under every latency of the service. */
int floor_serve(const char *socket_path, unsigned threads);
