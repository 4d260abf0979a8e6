# SPDX-License-Identifier: BSD-2-Clause
# Builds a small program of src/base in the current directory, for 44-tools.sh.
OBJECTS = out/units.o out/errtext.o out/main.o

all: out/program

out/program: out/libbase.a
	$(CC) -o $@ out/main.o out/libbase.a

out/libbase.a: $(OBJECTS)
	rm -f $@
	$(AR) rcs $@ out/units.o out/errtext.o

out/main.o: out/main.c
	$(CC) -O -Isrc -c -o $@ $<

out/main.c:
	mkdir -p out
	printf '#include "base/units.h"\nint main(void) { uint64_t n; return units_parse_size("1KiB", &n) != 0 || n != 1024; }\n' >$@

out/%.o: src/base/%.c | out/main.c
	$(CC) -std=gnu11 -D_GNU_SOURCE -O -g -Isrc -c -o $@ $<
