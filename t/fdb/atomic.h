/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef T_FDB_ATOMIC_H
#define T_FDB_ATOMIC_H

#include "bytes.h"

/*
 * What a mutation makes of a value: own memory in *to, false if the key is then absent.
 * has: whether there is an old value.  Not for ranges, nor for stamped keys and values.
 */
bool atomic_apply(
    unsigned kind, bool has, struct bytes old, struct bytes operand, struct bytes *to);
bool atomic_known(unsigned kind); /* a kind that fdb_transaction_atomic_op() takes */

/*
 * Of a stamped key or value: the ten bytes put where its last four say, these cut off.
 * False, nothing in *to: they do not fit.
 */
bool atomic_stamp(struct bytes with, const uint8_t stamp[static 10], struct bytes *to);

#endif
