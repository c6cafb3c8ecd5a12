#!/bin/sh
# Mounts the head's /srv/shared as /shared, now and at every boot. The head serves by now: who requires a role waits until
# all who provide it are done.
set -eu
shared=${SHARED:-/shared}
fstab=${FSTAB:-/etc/fstab}

# Without apt it is an appliance whose mount needs no program beside it.
if ! command -v mount.nfs4 >/dev/null && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update
    apt-get -qy install --no-install-recommends nfs-common
fi

server=$(vws-members nfs-server | head -n 1 | cut -d ' ' -f 1)
line="$server:/srv/shared $shared nfs4 rw,vers=4.2,_netdev,nofail 0 0"
if ! grep -qxF "$line" "$fstab" 2>/dev/null; then
    { grep -v " $shared nfs4 " "$fstab" || true; } >"$fstab.new" 2>/dev/null
    echo "$line" >>"$fstab.new"
    mv "$fstab.new" "$fstab"
fi

mkdir -p "$shared"
# A head that served others already may hear of this machine a moment later than this one of it.
tries=60
until grep -q " $shared nfs" /proc/mounts || mount "$shared"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || exit 1
    sleep 1
done
echo "$VWS_NAME" >"$shared/$VWS_NAME"
echo "mounted $server:/srv/shared"
