#!/bin/sh
# Exports /srv/shared to the members that mount it, and to nobody else. Again whenever one of them comes or goes.
set -eu
shared=${SHARED:-/srv/shared}
exports=${EXPORTS:-/etc/exports.d/vws.exports}

if ! command -v exportfs >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update
    apt-get -qy install --no-install-recommends nfs-kernel-server
fi

mkdir -p "$shared" "${exports%/*}"
vws-members nfs-client | while read -r name address fqdn; do
    echo "$shared $address(rw,sync,no_subtree_check,no_root_squash)"
done >"$exports"

serve() {
    modprobe nfsd
    mount -t nfsd nfsd /proc/fs/nfsd
    rpc.mountd --no-nfs-version 3
    rpc.nfsd --no-nfs-version 3 4
    # A server waits for the clients of its former life before it serves others. It had none.
    echo Y >/proc/fs/nfsd/v4_end_grace
}

if [ -d /run/systemd/system ]; then
    systemctl -q enable nfs-server
    systemctl start nfs-server
else
    pidof rpc.mountd >/dev/null || serve
fi
exportfs -ra
echo "exported to $(wc -l <"$exports") members"
