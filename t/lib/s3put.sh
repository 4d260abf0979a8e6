#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Puts objects of any key with curl alone.  The environment is rgw.sh's DIR/env.
#
#	t/lib/s3put.sh bucket BUCKET
#	t/lib/s3put.sh put BUCKET KEY FILE
#	t/lib/s3put.sh many BUCKET DIR	each file below DIR under its relative path
#	t/lib/s3put.sh delete BUCKET KEY
#	t/lib/s3put.sh status BUCKET KEY	prints what a HEAD is answered with
#	t/lib/s3put.sh rmbucket BUCKET
# or source it and call s3_bucket, s3_put, ... .  Objects up to 5 GiB.

# Bytes, not characters: a key is UTF-8, or whatever the caller gave.
s3_encode() {
	local LC_ALL=C s=$1 out="" c i
	for ((i = 0; i < ${#s}; i++)); do
		c=${s:i:1}
		case $c in
		[A-Za-z0-9._~/-]) out+=$c ;;
		*) printf -v c '%%%02X' "'$c"; out+=%${c: -2} ;;
		esac
	done
	printf '%s' "$out"
}

s3_curl() { # curl's arguments
	curl -sS -f -g --path-as-is --aws-sigv4 "aws:amz:${AWS_REGION:-us-east-1}:s3" \
		--user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \
		-H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' "$@"
}

s3_bucket() { # BUCKET
	s3_curl -o /dev/null -X PUT "$RGW_ENDPOINT/$1"
}

s3_put() { # BUCKET KEY FILE; not -T: curl adds the file's name to a key that ends in /
	s3_curl -o /dev/null -H 'Content-Type: application/octet-stream' -X PUT --data-binary "@$3" \
		"$RGW_ENDPOINT/$1/$(s3_encode "$2")"
}

# One curl for all: a process an object would take minutes for thousands.
s3_many() { # BUCKET DIR
	local rel list file key rc LC_ALL=C
	list=$(mktemp) || return 1
	while IFS= read -r -d '' rel; do
		file=$2/$rel
		file=${file//\\/\\\\}
		file=${file//$'\n'/\\n}
		file=${file//$'\r'/\\r}
		case $rel in # a subshell a file would be most of the time
		*[!A-Za-z0-9._~/-]*) key=$(s3_encode "$rel") ;;
		*) key=$rel ;;
		esac
		printf 'upload-file = "%s"\nurl = "%s"\noutput = /dev/null\n' \
			"${file//\"/\\\"}" "$RGW_ENDPOINT/$1/$key"
	done < <(cd "$2" && find . -type f -printf '%P\0') >"$list"
	s3_curl --fail-early --no-progress-meter -H 'Content-Type: application/octet-stream' -K "$list"
	rc=$?
	rm -f "$list"
	return $rc
}

s3_delete() { # BUCKET KEY
	s3_curl -o /dev/null -X DELETE "$RGW_ENDPOINT/$1/$(s3_encode "$2")"
}

s3_status() { # BUCKET KEY: prints what a HEAD is answered with, such as 200
	s3_curl -I -o /dev/null -w '%{http_code}\n' "$RGW_ENDPOINT/$1/$(s3_encode "$2")" 2>/dev/null
}

s3_rmbucket() { # BUCKET
	s3_curl -o /dev/null -X DELETE "$RGW_ENDPOINT/$1"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
	case ${1:-} in
	bucket | put | many | delete | status | rmbucket) "s3_$1" "${@:2}" ;;
	*) echo "usage: s3put.sh bucket|put|many|delete|status|rmbucket ..." >&2; exit 2 ;;
	esac
fi
