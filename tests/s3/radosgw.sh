#!/bin/bash
# One node of Ceph with its S3 gateway: radosgw.sh FOLDER PORT MONITOR_PORT
#
# Needs ceph-mon, ceph-osd, ceph-common and radosgw of Debian 12, and no root. Keeps its objects in memory (at most
# 4 GiB). Prints one line of JSON once it answers and serves until its stdin closes; the daemons die with the script.
set -euo pipefail

folder=$(realpath -m "$1") port=$2 monitor=$3
access=radosgw-tests secret=radosgw-tests-secret
libraries=/usr/lib/$(uname -m)-linux-gnu
node=$(cat /proc/sys/kernel/random/uuid)
disk=$(cat /proc/sys/kernel/random/uuid)

rm -rf "$folder"
mkdir -p "$folder"/{mon,osd,run,log,rgw}
export CEPH_CONF=$folder/ceph.conf

cat >"$CEPH_CONF" <<CONF
[global]
fsid = $node
mon_host = v1:127.0.0.1:$monitor
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_msgr2 = false
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
keyring = /dev/null

osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_pool_default_erasure_code_profile = plugin=jerasure technique=reed_sol_van k=2 m=1
osd_class_dir = $libraries/rados-classes
osd_class_load_list = *
osd_class_default_list = *
erasure_code_dir = $libraries/ceph/erasure-code
plugin_dir = $libraries/ceph
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 4000
mon_data_avail_crit = 1

mon_data = $folder/mon
osd_data = $folder/osd
rgw_data = $folder/rgw
run_dir = $folder/run
crash_dir = $folder/run
admin_socket = $folder/run/\$name.asok
pid_file =
log_file = $folder/log/\$name.log
mon_cluster_log_file = $folder/log/cluster.log

rgw_frontends = beast endpoint=127.0.0.1:$port tcp_nodelay=1
rgw_enable_usage_log = false
rgw_run_sync_thread = false
rgw_thread_pool_size = 32

# An idle cluster of one has nobody to wait for.
ms_initial_backoff = 0.05
mon_tick_interval = 1
paxos_propose_interval = 0.05
paxos_min_wait = 0.02
CONF

daemon() {
    setpriv --pdeathsig KILL "$@" -f >>"$folder/log/${1##*/}.out" 2>&1 </dev/null &
}

trap 'kill -KILL $(jobs -p) 2>/dev/null || true' EXIT

monmaptool --create --fsid "$node" --addv a "[v1:127.0.0.1:$monitor]" "$folder/monmap" >&2
ceph-mon -i a --mkfs --monmap "$folder/monmap" --keyring /dev/null >&2
daemon ceph-mon -i a
ceph --connect-timeout 20 osd new "$disk" >&2 </dev/null
ceph-osd -i 0 --mkfs --osd-uuid "$disk" >&2
daemon ceph-osd -i 0
daemon radosgw -n client.rgw
radosgw-admin user create --uid tests --display-name tests --access-key "$access" --secret-key "$secret" >&2 </dev/null

for _ in $(seq 300); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        printf '{"endpoint": "http://127.0.0.1:%s", "access_key": "%s", "secret_key": "%s"}\n' "$port" "$access" "$secret"
        cat >/dev/null
        exit
    fi
    sleep 0.1
done
echo "radosgw did not come up" >&2
exit 1
