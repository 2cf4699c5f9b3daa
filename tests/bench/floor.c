/* SPDX-License-Identifier: Apache-2.0 */
#include "floor.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/time.h>

#define THREADS_MAX 16U

static grpc_server *server;
static grpc_completion_queue *queue;

/* One call after the other, like a connection of the service re-requests its calls. */
struct slot {
        enum { WAITING, RECEIVING, ANSWERING } stage;
        grpc_call *call;
        grpc_call_details details;
        grpc_metadata_array metadata;
        grpc_byte_buffer *request, *answer;
        int cancelled;
};

static void wait_for_call(struct slot *s) {
        s->stage = WAITING;
        grpc_call_details_init(&s->details);
        grpc_metadata_array_init(&s->metadata);
        grpc_server_request_call(server, &s->call, &s->details, &s->metadata, queue, queue, s);
}

static void receive(struct slot *s) {
        grpc_op op = { .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &s->request };

        s->stage = RECEIVING;
        grpc_call_start_batch(s->call, &op, 1, s, NULL);
}

static void answer(struct slot *s) {
        grpc_slice empty = grpc_empty_slice();
        grpc_op ops[4] = {
                { .op = GRPC_OP_SEND_INITIAL_METADATA },
                { .op = GRPC_OP_SEND_MESSAGE },
                { .op = GRPC_OP_SEND_STATUS_FROM_SERVER },
                { .op = GRPC_OP_RECV_CLOSE_ON_SERVER },
        };

        s->answer = grpc_raw_byte_buffer_create(&empty, 1);
        ops[1].data.send_message.send_message = s->answer;
        ops[2].data.send_status_from_server.status = GRPC_STATUS_OK;
        ops[3].data.recv_close_on_server.cancelled = &s->cancelled;
        s->stage = ANSWERING;
        grpc_call_start_batch(s->call, ops, 4, s, NULL);
}

static void finish(struct slot *s) {
        grpc_byte_buffer_destroy(s->request);
        grpc_byte_buffer_destroy(s->answer);
        grpc_metadata_array_destroy(&s->metadata);
        grpc_call_details_destroy(&s->details);
        grpc_call_unref(s->call);
        s->request = s->answer = NULL;
        wait_for_call(s);
}

static void *work(void *arg) {
        (void)arg;
        for (;;) {
                grpc_event e = grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
                struct slot *s = e.tag;

                if (e.type == GRPC_QUEUE_SHUTDOWN)
                        return NULL;
                if (s->stage == WAITING)
                        receive(s);
                else if (s->stage == RECEIVING)
                        answer(s);
                else
                        finish(s);
        }
}

int floor_serve(const char *socket_path, unsigned threads) {
        static struct slot slots[4];
        grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();
        char address[256], byte;
        pthread_t thread;

        grpc_init();
        server = grpc_server_create(NULL, NULL);
        queue = grpc_completion_queue_create_for_next(NULL);
        grpc_server_register_completion_queue(server, queue, NULL);
        (void)snprintf(address, sizeof address, "unix:%s", socket_path);
        if (!grpc_server_add_http2_port(server, address, credentials))
                return EXIT_FAILURE;
        grpc_server_start(server);
        for (size_t i = 0; i < 4; i++)
                wait_for_call(&slots[i]);
        for (unsigned i = 0; i < threads && i < THREADS_MAX; i++)
                if (pthread_create(&thread, NULL, work, NULL) != 0)
                        return EXIT_FAILURE;
        while (read(STDIN_FILENO, &byte, 1) > 0)
                ;
        _exit(EXIT_SUCCESS);    /* its threads sit in gRPC; there is nothing to save */
}
