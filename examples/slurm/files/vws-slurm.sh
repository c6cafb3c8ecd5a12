# What head and workers of the Slurm cluster have in common; read by their hooks.
conf=${SLURM_CONF:-/etc/slurm/slurm.conf}
template=${SLURM_TEMPLATE:-/usr/local/share/slurm.conf.in}

# need PROGRAM PACKAGE...: installs the packages if there is no such program.
need() {
    ! command -v "$1" >/dev/null || return 0
    shift
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update
    apt-get -qy install --no-install-recommends "$@"
}

# Slurm knows machines by what they call themselves.
take_name() {
    [ "$(uname -n)" != "$VWS_NAME" ] || return 0
    hostname "$VWS_NAME"
    echo "$VWS_NAME" >/etc/hostname
}

# The same on every member, because all hear the same lists. Says in `changed` whether it was another one before.
configure() {
    changed=no
    read -r cpus <"$VWS_CONTEXT/data/cpus" || [ -n "$cpus" ]
    heads=$(vws-members head)
    workers=$(vws-members worker | sort)
    mkdir -p "${conf%/*}"
    {
        cat "$template"
        echo "$heads" | while read -r name address fqdn; do
            echo "SlurmctldHost=$name($address)"
        done
        echo "$heads
$workers" | while read -r name address fqdn; do
            echo "NodeName=$name NodeAddr=$address CPUs=$cpus State=UNKNOWN"
        done
        echo "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP"
    } >"$conf.new"
    cmp -s "$conf.new" "$conf" || changed=yes
    mv "$conf.new" "$conf"
    # slurmd wants one of these; this one wants nothing of the machine.
    echo "CgroupPlugin=cgroup/v1" >"${conf%/*}/cgroup.conf"
}

folders() {
    mkdir -p /var/lib/slurm/slurmctld /var/lib/slurm/slurmd /var/log/slurm /run/munge
    chown slurm: /var/lib/slurm/slurmctld /var/log/slurm
    chown munge: /run/munge
}

# restart SERVICE: now, and at every boot where there is systemd.
restart() {
    if [ -d /run/systemd/system ]; then
        systemctl -q enable "$1"
        systemctl restart "$1"
        return
    fi
    case $1 in
    munge) end munged && runuser -u munge -- munged ;;
    *) end "$1" && "$1" || { tail -n 5 "/var/log/slurm/$1.log" && return 1; } ;;
    esac
}

end() {
    pids=$(pidof "$1") || return 0
    # shellcheck disable=SC2086
    kill $pids
    tries=100
    while pidof "$1" >/dev/null && [ $tries -gt 0 ]; do
        tries=$((tries - 1))
        sleep 0.2
    done
}

# The head knows this node as one that works.
works() { sinfo -h -n "$VWS_NAME" -o %T | grep -qE '^(idle|mixed|allocated|completing)$'; }

# until_true SECONDS COMMAND...
until_true() {
    tries=$1
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "$* did not succeed" && return 1; }
        sleep 1
    done
}
