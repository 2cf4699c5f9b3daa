/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Failpoints: named places where a test ends the process (SIGKILL), to see what a crash right there leaves behind.
 *
 *   FAILPOINT(intent_committed);
 *
 * Nothing at all in what is installed: files with failpoints are compiled a second time, with IOMMUD_FAILPOINTS, for the
 * programs in $BUILD/failpoints/ that tests/fault/ starts (tests/README.md). Every name is in the list below, with the
 * program that passes it; a name that a run of tests/fault/test_crash_points never passes fails that run. A new step of
 * an operation (a second message, a second commit, one more change in the kernel) gets a name of its own.
 */
#define FAILPOINTS(X)                                                                                                  \
        /* an operation in the broker (core/op.c, core/journal.c, core/holder_link.c) */                               \
        X(admitted, BROKER)             /* charged and reserved, nothing recorded */                                   \
        X(lease_taken, BROKER)          /* attach: the nodes are open, nothing recorded */                             \
        X(intent_written, BROKER)       /* in the transaction */                                                       \
        X(commit_begins, BROKER)        /* of a group: all of it is written */                                         \
        X(commit_done, BROKER)          /* nobody has been told */                                                     \
        X(intent_committed, BROKER)                                                                                    \
        X(sending, BROKER)                                                                                             \
        X(sent, BROKER)                                                                                                \
        X(result_received, BROKER)                                                                                     \
        X(attach_kept, BROKER)          /* attach: we keep what revokes, the holder does not know */                   \
        X(attach_acked, BROKER)                                                                                        \
        X(finished, BROKER)             /* its last state is in memory, the settle not queued */                       \
        X(settle_queued, BROKER)                                                                                       \
        X(replying, BROKER)                                                                                            \
        X(replied, BROKER)                                                                                             \
        X(next_part, BROKER)            /* of a large unmap: one batch done, the next not recorded */                  \
        X(lazy_taken, BROKER)           /* a lazy unmap waits for its flush, and is not answered yet */                \
        X(flush_begun, BROKER)          /* a batch of lazy unmaps is chosen */                                         \
        X(flushed, BROKER)              /* the holder has done it, nothing is settled */                               \
        X(settle_written, BROKER)       /* in the transaction */                                                       \
        X(settle_committed, BROKER)                                                                                    \
        X(results_released, BROKER)     /* the holder may forget results */                                            \
        /* a session begins (core/session_start.c) */                                                                  \
        X(session_admitted, BROKER)                                                                                    \
        X(session_row_intended, BROKER)                                                                                \
        X(session_holder_started, BROKER)                                                                              \
        X(session_hello, BROKER)                                                                                       \
        X(session_connection_sent, BROKER) /* the holder has the connection, we too */                                 \
        X(session_handed_over, BROKER)                                                                                 \
        X(session_row_live, BROKER)     /* the client has no token */                                                  \
        X(session_token_sent, BROKER)                                                                                  \
        X(session_claimed, BROKER)                                                                                     \
        /* a session ends (core/revocation.c, core/lease.c) */                                                         \
        X(revoke_begun, BROKER)                                                                                        \
        X(revoke_recorded, BROKER)                                                                                     \
        X(revoke_holder_killed, BROKER)                                                                                \
        X(revoke_unmapped, BROKER)      /* through the keepers, the holder may be dying */                             \
        X(revoke_unmapped_again, BROKER)                                                                               \
        X(revoke_leases_ended, BROKER)                                                                                 \
        X(revoke_refunded, BROKER)      /* the rows are there */                                                       \
        X(revoke_rows_deleted, BROKER)  /* in the transaction */                                                       \
        X(revoke_forgotten, BROKER)                                                                                    \
        X(lease_retired, BROKER)        /* no session's any more, its fds still ours */                                \
        /* a start finds sessions of a former life (core/recover*.c, core/reconcile.c) */                              \
        X(recover_loaded, BROKER)                                                                                      \
        X(recover_recognised, BROKER)                                                                                  \
        X(recover_dump_asked, BROKER)                                                                                  \
        X(recover_dump_part, BROKER)                                                                                   \
        X(recover_dump_complete, BROKER)                                                                               \
        X(reconcile_decided, BROKER)    /* in memory */                                                                \
        X(reconcile_written, BROKER)    /* in the transaction */                                                       \
        X(reconcile_committed, BROKER)                                                                                 \
        X(recovered, BROKER)                                                                                           \
        /* a session in its holder (holder/main.c, holder/serve.c, holder/link.c) */                                   \
        X(holder_started, HOLDER)                                                                                      \
        X(holder_sandboxed, HOLDER)                                                                                    \
        X(holder_hello_sent, HOLDER)                                                                                   \
        X(holder_has_client, HOLDER)                                                                                   \
        X(holder_goes, HOLDER)                                                                                         \
        X(holder_token_sent, HOLDER)                                                                                   \
        X(holder_link_lost, HOLDER)                                                                                    \
        X(holder_link_back, HOLDER)                                                                                    \
        X(holder_dump_begins, HOLDER)                                                                                  \
        X(holder_dump_part, HOLDER)                                                                                    \
        X(holder_dump_done, HOLDER)                                                                                    \
        X(holder_client_gone, HOLDER)                                                                                  \
        X(holder_client_unmapped, HOLDER)                                                                              \
        X(holder_end, HOLDER)                                                                                          \
        X(holder_end_unmapped, HOLDER)                                                                                 \
        /* an operation in the holder */                                                                               \
        X(apply_begins, HOLDER)                                                                                        \
        X(apply_map_element, HOLDER)    /* one of a batch is mapped */                                                 \
        X(apply_unmap_element, HOLDER)                                                                                 \
        X(replace_recorded, HOLDER)     /* the new records are in, the IOMMU has the old mappings */                   \
        X(replace_taken_out, HOLDER)    /* what of the old is not kept is out, nothing of the new is in */             \
        X(replace_brought_in, HOLDER)                                                                                  \
        X(apply_ticket_claimed, HOLDER)                                                                                \
        X(apply_memory_mapped, HOLDER)  /* not sealed yet */                                                           \
        X(apply_memory_sealed, HOLDER)                                                                                 \
        X(apply_container_open, HOLDER)                                                                                \
        X(apply_replayed, HOLDER)       /* attach: the mappings are in, the device is not open */                      \
        X(apply_device_open, HOLDER)                                                                                   \
        X(apply_device_closed, HOLDER)                                                                                 \
        X(apply_domain_made, HOLDER)                                                                                   \
        X(apply_domain_gone, HOLDER)                                                                                   \
        X(applied, HOLDER)              /* not remembered */                                                           \
        X(result_remembered, HOLDER)                                                                                   \
        X(result_sent, HOLDER)                                                                                         \
        X(ack_received, HOLDER)                                                                                        \
        X(device_fd_sent, HOLDER)

#define X(name, process) FAILPOINT_##name,
enum failpoint { FAILPOINTS(X) _FAILPOINT_N };
#undef X

#ifdef IOMMUD_FAILPOINTS
void failpoint_hit(enum failpoint point);       /* tests/fault/failpoint.c */
#define FAILPOINT(name) failpoint_hit(FAILPOINT_##name)
#else
#define FAILPOINT(name) ((void)FAILPOINT_##name)
#endif
