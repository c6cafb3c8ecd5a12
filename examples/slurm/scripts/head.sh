#!/bin/sh
# The head, which computes too: its munge key goes to the workers, who wait for it and for this script's end.
set -eu
. /usr/local/lib/vws-slurm.sh

need slurmctld slurmctld slurmd slurm-client munge
take_name
folders
if [ ! -s /etc/munge/munge.key ]; then
    (umask 077 && head -c 128 /dev/urandom >/etc/munge/munge.key)
    chown munge: /etc/munge/munge.key
fi
configure
restart munge
restart slurmctld
until_true 60 scontrol ping
vws-publish munge-key </etc/munge/munge.key
restart slurmd
until_true 120 works
echo "slurmctld answers, slurmd works"
