#!/bin/sh
# Somebody came, went, woke or has another address: all write the same configuration again. Jobs go on.
set -eu
. /usr/local/lib/vws-slurm.sh

take_name
configure
if [ $changed = yes ]; then
    if [ "$VWS_ROLE" = head ]; then
        restart slurmctld
        until_true 60 scontrol ping
    fi
    restart slurmd
fi
until_true 120 works
echo "$(grep -c ^NodeName= "$conf") nodes"
