#!/bin/sh
# Somebody came, went or has another address: all write the same configuration again. Jobs go on.
set -eu
. /usr/local/lib/vws-slurm.sh

take_name
configure
case $VWS_ROLE in
head)
    restart slurmctld
    until_true 60 scontrol ping
    ;;
worker) restart slurmd ;;
esac
echo "$(grep -c ^NodeName= "$conf") nodes"
