#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# A throw-away Ceph radosgw on 127.0.0.1, everything under DIR.
#
#	t/lib/rgw.sh start DIR	starts it; DIR must not exist or be one of ours
#	t/lib/rgw.sh gateway DIR	the gateway again, after it was killed
#	t/lib/rgw.sh stop DIR	kills it; DIR stays, with its logs
# or source it and call rgw_start DIR, rgw_gateway DIR, rgw_stop DIR.
#
# After the start DIR/env holds RGW_ENDPOINT, AWS_ACCESS_KEY_ID and
# AWS_SECRET_ACCESS_KEY for `. DIR/env`.  Ports: RGW_PORT and RGW_MON_PORT, free
# ones if unset.  With RGW_TLS=FILE (certificate and key in PEM form) there is a second
# endpoint with TLS, RGW_TLS_ENDPOINT.  Needs the packages radosgw, ceph-mon and ceph-osd.

rgw_free_port() {
	local p used
	used=$(ss -Htan 2>/dev/null | awk '{ print $4 }')
	for _ in $(seq 200); do
		p=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
		grep -q ":$p\$" <<<"$used" || { echo "$p"; return 0; }
	done
	echo "rgw.sh: found no free port" >&2
	return 1
}

rgw_conf() { # DIR MON_PORT RGW_PORT FSID TLS
	cat <<-EOF
	[global]
	fsid = $4
	mon_host = v2:127.0.0.1:$2
	ms_bind_msgr1 = false
	public_addr = 127.0.0.1
	cluster_addr = 127.0.0.1
	keyring = $1/keyring
	auth_allow_insecure_global_id_reclaim = false
	run_dir = $1/run
	crash_dir = $1/run
	admin_socket = $1/run/\$name.asok
	pid_file = $1/run/\$name.pid
	log_file = $1/log/\$name.log
	# with the default of 1 s each pool that is made costs a second
	paxos_propose_interval = 0.02
	paxos_min_wait = 0.01
	osd_pool_default_size = 1
	osd_pool_default_min_size = 1
	osd_pool_default_pg_num = 8
	osd_pool_default_pg_autoscale_mode = off
	osd_crush_chooseleaf_type = 0
	osd_crush_initial_weight = 1
	mon_allow_pool_size_one = true
	mon_data = $1/mon
	mon_data_avail_crit = 1
	mon_data_avail_warn = 2
	osd_data = $1/osd
	osd_objectstore = memstore
	memstore_device_bytes = ${RGW_BYTES:-4294967296}
	rgw_data = $1/rgw
	# without tcp_nodelay a small GET costs 40 ms (delayed ACK)
	rgw_frontends = beast endpoint=127.0.0.1:$3 tcp_nodelay=1$5
	rgw_dns_name = s3.localhost
	rgw_thread_pool_size = 64
	rgw_rados_pool_pg_num_min = 8
	rgw_enable_usage_log = false
	rgw_enable_ops_log = false
	EOF
}

rgw_daemon() { # DIR NAME COMMAND...: starts it and notes its pid
	local dir=$1 name=$2
	shift 2
	"$@" </dev/null >"$dir/log/$name.out" 2>&1 &
	echo "$name $!" >>"$dir/pids"
}

rgw_begin() { # DIR: one attempt with one choice of ports
	local dir=$1 mon_port rgw_port fsid osd_id name tls_port tls=""
	mon_port=${RGW_MON_PORT:-$(rgw_free_port)} && rgw_port=${RGW_PORT:-$(rgw_free_port)} || return 1
	fsid=$(cat /proc/sys/kernel/random/uuid) osd_id=$(cat /proc/sys/kernel/random/uuid)
	rm -rf "$dir"
	mkdir -p "$dir"/{mon,osd,rgw,run,log} || return 1
	: >"$dir/pids"
	if [ -n "${RGW_TLS:-}" ]; then
		tls_port=$(rgw_free_port) || return 1
		tls=" ssl_endpoint=127.0.0.1:$tls_port ssl_certificate=$RGW_TLS"
	fi
	rgw_conf "$dir" "$mon_port" "$rgw_port" "$fsid" "$tls" >"$dir/ceph.conf"
	local -x CEPH_CONF=$dir/ceph.conf
	ceph-authtool --create-keyring "$dir/keyring" >/dev/null || return 1
	for name in mon. client.admin osd.0 client.rgw; do
		ceph-authtool "$dir/keyring" -n "$name" --gen-key --cap mon 'allow *' \
			--cap osd 'allow *' >/dev/null || return 1
	done
	monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:$mon_port]" "$dir/monmap" \
		>/dev/null || return 1
	ceph-mon --mkfs -i a --monmap "$dir/monmap" --keyring "$dir/keyring" >/dev/null || return 1
	rgw_daemon "$dir" mon ceph-mon -i a -f
	timeout 30 ceph osd new "$osd_id" >/dev/null || return 1
	ceph-osd -i 0 --mkfs --osd-uuid "$osd_id" >"$dir/log/osd-mkfs.out" 2>&1 || return 1
	rgw_daemon "$dir" osd ceph-osd -i 0 -f
	cat >"$dir/env" <<-EOF
	export RGW_ENDPOINT=http://127.0.0.1:$rgw_port
	export RGW_TLS_ENDPOINT=${tls_port:+https://127.0.0.1:$tls_port}
	export AWS_ACCESS_KEY_ID=${RGW_ACCESS_KEY:-testaccess}
	export AWS_SECRET_ACCESS_KEY=${RGW_SECRET_KEY:-testsecretkey0123456789}
	EOF
	timeout 60 radosgw-admin -n client.rgw user create --uid=test --display-name=test \
		--access-key="${RGW_ACCESS_KEY:-testaccess}" \
		--secret-key="${RGW_SECRET_KEY:-testsecretkey0123456789}" >"$dir/user.json" || return 1
	rgw_gateway "$dir"
}

# The gateway alone, on the port it had: also after it was killed, with its data
# still in the other two.
rgw_gateway() { # DIR
	local -x CEPH_CONF=$1/ceph.conf
	local endpoint pid
	endpoint=$(sed -n 's/^export RGW_ENDPOINT=//p' "$1/env")
	sed -i '/^rgw /d' "$1/pids"
	rgw_daemon "$1" rgw radosgw -n client.rgw -f
	pid=$!
	for _ in $(seq 600); do
		kill -0 "$pid" 2>/dev/null || return 1
		curl -s -o /dev/null "$endpoint/" && return 0
		sleep 0.05
	done
	return 1
}

rgw_start() { # DIR
	local dir try
	if [ -e "$1" ] && [ ! -e "$1/pids" ]; then
		echo "rgw.sh: $1 exists and is not a radosgw's directory" >&2
		return 1
	fi
	dir=$(realpath -m "$1")
	# Another program may take a port between our look and the server's bind.
	for try in 1 2 3; do
		rgw_stop "$dir"
		rgw_begin "$dir" && return 0
	done
	rgw_stop "$dir"
	echo "rgw.sh: radosgw did not start in $try attempts; see $dir/log" >&2
	return 1
}

# SIGKILL for all three: the store is throw-away, and a radosgw that is asked to
# stop after its mon is gone hangs.  A pid counts only while it runs our program.
rgw_stop() { # DIR
	local name pid
	[ -e "$1/pids" ] || return 0
	while read -r name pid; do
		case $(readlink "/proc/$pid/exe" 2>/dev/null) in
		*/ceph-mon | */ceph-osd | */radosgw) kill -9 "$pid" ;;
		*) continue ;;
		esac
		while kill -0 "$pid" 2>/dev/null && ! grep -q '^State:.*Z' "/proc/$pid/status" 2>/dev/null; do
			sleep 0.02
		done
	done <"$1/pids"
	: >"$1/pids"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
	case ${1:-} in
	start) [ -n "${2:-}" ] && rgw_start "$2" ;;
	gateway) [ -n "${2:-}" ] && rgw_gateway "$2" ;;
	stop) [ -n "${2:-}" ] && rgw_stop "$2" ;;
	*) echo "usage: rgw.sh start|gateway|stop DIR" >&2; exit 2 ;;
	esac
fi
