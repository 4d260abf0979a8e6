/* SPDX-License-Identifier: BSD-2-Clause */
#include "atomic.h"

#include <string.h>

#include "wire.h"

/* Byte i of a little-endian number: zeroes go on behind its end. */
static unsigned digit(struct bytes b, size_t i)
{
	return i < b.len ? b.at[i] : 0;
}

/* Compares as little-endian numbers, of the old one as many digits as the operand has. */
static int number_cmp(struct bytes old, struct bytes operand)
{
	for (size_t i = operand.len; i-- > 0;) {
		if (digit(old, i) != digit(operand, i))
			return digit(old, i) < digit(operand, i) ? -1 : 1;
	}
	return 0;
}

/* A result as long as the operand, digit by digit. */
static struct bytes by_digit(unsigned kind, struct bytes old, struct bytes operand)
{
	struct bytes to = { mem_get(operand.len), operand.len };
	bool keep = (kind == MUT_MAX && number_cmp(old, operand) > 0) ||
	    (kind == MUT_MIN && number_cmp(old, operand) < 0);
	unsigned sum = 0;

	for (size_t i = 0; i < to.len; i++) {
		unsigned a = digit(old, i), b = operand.at[i];

		sum = a + b + (sum >> 8);
		switch (kind) {
		case MUT_ADD:
			to.at[i] = (uint8_t)sum;
			break;
		case MUT_AND:
			to.at[i] = (uint8_t)(a & b);
			break;
		case MUT_OR:
			to.at[i] = (uint8_t)(a | b);
			break;
		case MUT_XOR:
			to.at[i] = (uint8_t)(a ^ b);
			break;
		default: /* MUT_MAX, MUT_MIN */
			to.at[i] = (uint8_t)(keep ? a : b);
		}
	}
	return to;
}

static struct bytes appended(struct bytes old, struct bytes operand)
{
	struct bytes to;

	if (old.len + operand.len > VALUE_LIMIT)
		return bytes_dup(old);
	to = (struct bytes){ mem_get(old.len + operand.len), old.len + operand.len };
	if (old.len > 0)
		memcpy(to.at, old.at, old.len);
	if (operand.len > 0)
		memcpy(to.at + old.len, operand.at, operand.len);
	return to;
}

bool atomic_apply(
    unsigned kind, bool has, struct bytes old, struct bytes operand, struct bytes *to)
{
	int c;

	if (!has)
		old = (struct bytes){ 0 };
	switch (kind) {
	case MUT_COMPARE_AND_CLEAR:
		if (!has || bytes_same(old, operand))
			return false;
		*to = bytes_dup(old);
		return true;
	case MUT_BYTE_MIN:
	case MUT_BYTE_MAX:
		c = bytes_cmp(old, operand);
		*to = bytes_dup(has && (kind == MUT_BYTE_MIN ? c < 0 : c > 0) ? old : operand);
		return true;
	case MUT_APPEND_IF_FITS:
		*to = appended(old, operand);
		return true;
	case MUT_AND:
	case MUT_MIN: /* these two tell an absent value from an empty one */
		*to = has ? by_digit(kind, old, operand) : bytes_dup(operand);
		return true;
	case MUT_ADD:
	case MUT_OR:
	case MUT_XOR:
	case MUT_MAX:
		*to = by_digit(kind, old, operand);
		return true;
	default: /* MUT_SET */
		*to = bytes_dup(operand);
		return true;
	}
}

bool atomic_known(unsigned kind)
{
	switch (kind) {
	case MUT_ADD:
	case MUT_AND:
	case MUT_OR:
	case MUT_XOR:
	case MUT_APPEND_IF_FITS:
	case MUT_MAX:
	case MUT_MIN:
	case MUT_STAMPED_KEY:
	case MUT_STAMPED_VALUE:
	case MUT_BYTE_MIN:
	case MUT_BYTE_MAX:
	case MUT_COMPARE_AND_CLEAR:
		return true;
	default:
		return false;
	}
}

bool atomic_stamp(struct bytes with, const uint8_t stamp[static 10], struct bytes *to)
{
	struct rd r;
	uint32_t at;

	if (with.len < 4)
		return false;
	r = (struct rd){ with.at + with.len - 4, 4, false };
	at = rd_u32(&r);
	if (at > INT32_MAX || (size_t)at + 10 > with.len - 4)
		return false;
	*to = bytes_dup(bytes_of(with.at, with.len - 4));
	memcpy(to->at + at, stamp, 10);
	return true;
}
